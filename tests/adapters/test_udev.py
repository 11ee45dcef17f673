"""The bus follows events without trusting them: sysfs decides, whatever their order and delay."""

import asyncio
import contextlib
import errno
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.adapters.usbtree import STICK, Tree

from xenplug.adapters import udev
from xenplug.adapters.in_use import InUse
from xenplug.adapters.root_hubs import RootHubs
from xenplug.adapters.sysfs import Sysfs
from xenplug.adapters.udev import UdevBus, Uevent
from xenplug.core.model import BusId, Device, Use
from xenplug.core.protocols import UsbEvent
from xenplug.core.usb.device import RawDevice


class Source:
    """A monitor whose events the test sends."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_NONBLOCK)
        self._queue: deque[Uevent | OSError] = deque()

    def fileno(self) -> int:
        return self._out

    def send(self, *uevents: Uevent | OSError) -> None:
        self._queue.extend(uevents)
        os.write(self._in, b"x")

    def receive(self) -> Uevent | None:
        if not self._queue:
            with contextlib.suppress(BlockingIOError):
                os.read(self._out, 100)
            return None
        uevent = self._queue.popleft()
        if isinstance(uevent, OSError):
            raise uevent
        return uevent

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)


class SlowSysfs(Sysfs):
    """Reading a port in `stuck` waits until `go` is set."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree.sys, tree.root / "run/udev")
        self.stuck: set[str] = set()
        self.go, self.begun = threading.Event(), threading.Event()
        self.reads: list[str] = []

    def read(self, port: str) -> RawDevice | None:
        self.reads.append(port)
        found = super().read(port)
        if port in self.stuck:
            self.begun.set()
            self.go.wait(5)
        return found


class Bench:
    """A bus over a fake sysfs with both sources."""

    def __init__(self, tree: Tree, sources: int = 2) -> None:
        self.tree, self.sysfs = tree, SlowSysfs(tree)
        self.sources = tuple(Source() for _ in range(sources))
        self.kernel, self.udev = self.sources[0], self.sources[-1]
        self.events: list[UsbEvent] = []
        loop, hubs = asyncio.get_running_loop(), RootHubs(tree.sys)
        self.bus = UdevBus(self.sysfs, loop, InUse(tree.root), lambda: self.sources, hubs)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.001)

    async def expect(self, *events: UsbEvent) -> None:
        """These events, in this order, since the last time."""
        await self.until(lambda: len(self.events) >= len(events))
        assert self.events == list(events)
        self.events.clear()

    def device(self, port: str) -> Device | None:
        return self.bus.devices().get(BusId(port))


def story(tell: Callable[[Bench], Awaitable[None]], tmp_path: Path, sources: int = 2) -> None:
    async def run() -> None:
        tree = Tree(tmp_path)
        tree.plug("1-1", 2)
        bench = Bench(tree, sources)
        await bench.bus.start(bench.events.append)
        bench.events.clear()
        try:
            await tell(bench)
        finally:
            bench.sysfs.go.set()
            await bench.bus.stop()
            for source in bench.sources:
                source.close()

    asyncio.run(run())


def event(action: str, port: str, number: int | None = None) -> UsbEvent:
    return UsbEvent(action, BusId(port), number)


def test_plug_and_pull(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        first = bench.device("1-1")
        bench.tree.plug("1-4", 6)
        bench.kernel.send(Uevent("add", "1-4", 6))
        bench.udev.send(Uevent("add", "1-4", 6))
        await bench.expect(event("add", "1-4", 6))
        device = bench.device("1-4")
        assert device is not None
        assert device.number == 6
        bench.udev.send(Uevent("bind", "1-4:1.0"), Uevent("change", "1-1", 2))
        await bench.until(lambda: len(bench.events) == 2)
        assert sorted(bench.events, key=str) == [event("change", "1-1", 2), event("change", "1-4")]
        assert bench.device("1-4") is device
        assert bench.device("1-1") is first
        bench.events.clear()
        bench.tree.pull("1-4")
        bench.kernel.send(Uevent("remove", "1-4:1.0"), Uevent("remove", "1-4", 6))
        await bench.expect(event("remove", "1-4", 6))
        assert bench.device("1-4") is None

    story(tell, tmp_path)


def test_a_removal_is_reported_at_once_though_sysfs_still_shows_the_device(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        bench.kernel.send(Uevent("remove", "1-1", 2))
        await bench.expect(event("remove", "1-1", 2))
        assert bench.device("1-1") is None
        bench.udev.send(Uevent("unbind", "1-1", 2))
        await bench.expect(event("unbind", "1-1", 2))
        assert bench.device("1-1") is None

    story(tell, tmp_path)


def test_late_udev_removal_of_a_replugged_port(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        bench.tree.pull("1-1")
        bench.tree.plug("1-1", 3)
        bench.kernel.send(Uevent("remove", "1-1", 2), Uevent("add", "1-1", 3))
        bench.udev.send(Uevent("add", "1-1", 3), Uevent("remove", "1-1", 2))
        await bench.expect(event("remove", "1-1", 2), event("add", "1-1", 3), event("remove", "1-1", 2))
        device = bench.device("1-1")
        assert device is not None
        assert device.number == 3

    story(tell, tmp_path)


def test_kernel_removal_of_an_earlier_device_leaves_the_new_one(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        bench.kernel.send(Uevent("remove", "1-1", 1))
        await bench.expect(event("remove", "1-1", 1))
        assert bench.device("1-1") is not None

    story(tell, tmp_path)


def test_a_removal_that_only_udev_sent(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        bench.tree.pull("1-1")
        bench.udev.send(Uevent("remove", "1-1", 2))
        await bench.expect(event("remove", "1-1", 2))
        assert bench.device("1-1") is None

    story(tell, tmp_path)


@pytest.mark.parametrize("number", [2, None], ids=["known", "unknown"])
def test_removed_while_being_read(tmp_path: Path, number: int | None) -> None:
    async def tell(bench: Bench) -> None:
        bench.sysfs.stuck.add("1-1")
        bench.udev.send(Uevent("change", "1-1", 2))
        await bench.until(bench.sysfs.begun.is_set)
        bench.kernel.send(Uevent("remove", "1-1", number))
        await bench.expect(event("remove", "1-1", number))
        bench.sysfs.go.set()
        await bench.expect(event("change", "1-1", 2))
        assert bench.device("1-1") is None

    story(tell, tmp_path)


def test_the_same_number_again(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        bench.kernel.send(Uevent("remove", "1-1", 2), Uevent("add", "1-1", 2))
        bench.udev.send(Uevent("add", "1-1", 2))
        await bench.expect(event("remove", "1-1", 2), event("add", "1-1", 2))
        assert bench.device("1-1") is not None

    story(tell, tmp_path)


def test_a_stuck_device_does_not_delay_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udev, "RESCAN_TIMEOUT", 0.05)

    async def tell(bench: Bench) -> None:
        bench.sysfs.stuck.add("1-4")
        bench.tree.plug("1-4", 6)
        bench.tree.plug("1-5", 7)
        bench.udev.send(Uevent("add", "1-4", 6), Uevent("add", "1-5", 7))
        await bench.expect(event("add", "1-5", 7))
        await bench.bus.rescan()
        assert bench.device("1-4") is None
        bench.sysfs.go.set()
        await bench.expect(event("add", "1-4", 6))
        assert bench.device("1-4") is not None

    story(tell, tmp_path)


def test_events_during_a_reading_ask_for_one_more(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        bench.sysfs.reads.clear()
        bench.sysfs.stuck.add("1-1")
        bench.udev.send(Uevent("change", "1-1", 2))
        await bench.until(bench.sysfs.begun.is_set)
        bench.tree.bind("1-1", 0, "usbfs")
        bench.udev.send(*[Uevent("bind", "1-1:1.0")] * 5)
        await asyncio.sleep(0.01)
        bench.sysfs.go.set()
        await bench.expect(event("change", "1-1", 2), *[event("change", "1-1")] * 5)
        assert bench.sysfs.reads == ["1-1", "1-1"]
        device = bench.device("1-1")
        assert device is not None
        assert device.drivers == ("usbfs",)

    story(tell, tmp_path)


def test_overflow(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        bench.tree.pull("1-1")
        bench.tree.plug("1-4", 6)
        bench.udev.send(OSError(errno.ENOBUFS, "No buffer space available"))
        await bench.expect(event("change", "1-4"), UsbEvent("lost", None))
        assert list(bench.bus.devices()) == ["1-4"]

    story(tell, tmp_path)


def test_without_udevd_the_kernels_events_suffice(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        bench.tree.plug("1-4", 6)
        bench.kernel.send(Uevent("add", "1-4", 6), Uevent("bind", "1-4:1.0"))
        await bench.expect(event("add", "1-4", 6), event("change", "1-4"))
        bench.kernel.send(Uevent("remove", "1-4", 6))
        await bench.expect(event("remove", "1-4", 6))
        assert bench.device("1-4") is None

    story(tell, tmp_path, sources=1)


@pytest.mark.parametrize(
    "uevent",
    [Uevent("add", "usb3", 1), Uevent("move", "1-1", 2), Uevent("add", "../1-1"), Uevent("", "")],
    ids=["root hub", "action", "no port", "nothing"],
)
def test_irrelevant_events(tmp_path: Path, uevent: Uevent) -> None:
    async def tell(bench: Bench) -> None:
        bench.udev.send(uevent, Uevent("change", "1-1", 2))
        await bench.expect(event("change", "1-1", 2))

    story(tell, tmp_path)


def test_in_use_is_read_at_every_call(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        folder = bench.tree.plug("1-4", 6, [STICK], "usb-storage")
        bench.tree.write(f"{folder}/1-4:1.0/host1/target1:0:0/1:0:0:0/block/sdb/dev", "8:16\n")
        await bench.bus.rescan()
        before = bench.device("1-4")
        assert before is not None
        assert before.in_use == frozenset()
        assert bench.device("1-4") is before
        bench.tree.write("proc/self/mountinfo", "36 35 8:16 / /mnt rw - ext4 /dev/sdb rw\n")
        after = bench.device("1-4")
        assert after is not None
        assert after.in_use == {Use.STORAGE}
        await bench.bus.rescan()
        assert bench.device("1-4") is after
        bench.tree.bind("1-4", 0, "usbfs")
        bench.udev.send(Uevent("bind", "1-4:1.0"))
        await bench.until(lambda: (found := bench.device("1-4")) and not found.in_use)

    story(tell, tmp_path)


def test_a_claim_through_usbfs_is_seen_without_an_event(tmp_path: Path) -> None:
    """The kernel suppresses the uevent (devio.c: claimintf); on real Xen `used` came a minute late."""

    async def tell(bench: Bench) -> None:
        bench.tree.bind("1-1", 0, None)
        bench.udev.send(Uevent("unbind", "1-1:1.0"))
        await bench.expect(event("change", "1-1"))
        bench.tree.bind("1-1", 0, "usbfs")
        await bench.expect(event("change", "1-1"))
        device = bench.device("1-1")
        assert device is not None
        assert device.drivers == ("usbfs",)

    story(tell, tmp_path)


def test_a_device_without_drivers_is_not_polled_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udev, "UNANNOUNCED_READS", (0.01, 0.02))

    async def tell(bench: Bench) -> None:
        bench.tree.bind("1-1", 0, None)
        bench.sysfs.reads.clear()
        bench.udev.send(Uevent("unbind", "1-1:1.0"))
        await asyncio.sleep(0.2)
        assert bench.sysfs.reads == ["1-1"] * 3

    story(tell, tmp_path)


def test_writes(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        device = bench.device("1-1")
        assert device is not None
        assert await bench.bus.authorize(device, False)
        bench.tree.bind("1-1", 0, None)
        await bench.bus.probe(device)
        assert (bench.tree.sys / "bus/usb/drivers_probe").read_text() == "1-1:1.0"
        bench.tree.pull("1-1")
        assert not await bench.bus.authorize(device, True)
        assert [controller.bdf for controller in bench.bus.controllers()] == ["0000:00:14.0"]

    story(tell, tmp_path)


def test_returned_devices_do_not_change(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        devices = bench.bus.devices()
        bench.kernel.send(Uevent("remove", "1-1", 2))
        await bench.expect(event("remove", "1-1", 2))
        assert list(devices) == ["1-1"]

    story(tell, tmp_path)


@pytest.mark.parametrize(
    ("devnum", "node", "expected"),
    [
        ("006", "/dev/bus/usb/001/007", 6),
        (None, "/dev/bus/usb/001/007", 7),
        (None, "bus/usb/001/127", 127),
        ("x", None, None),
        (None, None, None),
    ],
)
def test_number(devnum: str | None, node: str | None, expected: int | None) -> None:
    assert udev.device_number(devnum, node) == expected
