"""Devices on which operations hang in the kernel: however many there are, they do not delay the others.

The attributes of such a device are FIFOs here: reading one waits for ever, and so does opening one to write.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.adapters.test_udev import Bench, event
from tests.adapters.usbtree import Tree

from xenplug.adapters import device_threads, udev
from xenplug.adapters.device_threads import MAX_THREADS, THREADS, DeviceStuck, DeviceThreads
from xenplug.adapters.udev import Uevent
from xenplug.core.model import BusId

ROOT = Path(__file__).parents[2]
SOON = 20.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_threads, "OVERDUE", 0.2)
    monkeypatch.setattr(udev, "RESCAN_TIMEOUT", 0.3)
    monkeypatch.setattr(udev, "ACT", 2.0)


def hang(tree: Tree, port: str, attribute: str) -> Path:
    """A process that reads or writes this attribute waits."""
    file = tree.root / tree.folder(port) / attribute
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    return file


async def done(act: Callable[[], Awaitable[bool]]) -> None:
    """Sooner or later, because this machine may be busy."""
    while not await act():
        await asyncio.sleep(0.01)


@contextmanager
def released(fifos: list[Path]) -> Iterator[None]:
    """In the end every operation that hangs continues, and fails."""
    try:
        yield
    finally:
        for file in fifos:
            with suppress(OSError):
                os.close(os.open(file, os.O_RDWR | os.O_NONBLOCK))


def story(tmp_path: Path, tell: Callable[[Bench, list[Path]], Awaitable[None]]) -> None:
    async def run() -> None:
        tree, fifos = Tree(tmp_path), list[Path]()
        tree.plug("1-1", 2)
        bench = Bench(tree)
        with released(fifos):
            try:
                async with asyncio.timeout(SOON):
                    await tell(bench, fifos)
            finally:
                await bench.bus.stop()
                for source in bench.sources:
                    source.close()

    asyncio.run(run())


@pytest.mark.parametrize("attribute", ["devnum", "product", "descriptors", "uevent"])
@pytest.mark.parametrize("count", [1, THREADS, THREADS + 1, 20])
def test_devices_that_cannot_be_read(tmp_path: Path, count: int, attribute: str) -> None:
    async def tell(bench: Bench, fifos: list[Path]) -> None:
        for number in range(count):
            bench.tree.plug(f"2-1.{number + 1}", number + 10)
            fifos.append(hang(bench.tree, f"2-1.{number + 1}", attribute))
        await bench.bus.start(bench.events.append)
        await bench.until(lambda: bench.device("1-1"))
        bench.tree.plug("1-4", 6)
        bench.udev.send(Uevent("add", "1-4", 6))
        await bench.until(lambda: bench.device("1-4"))
        device = bench.device("1-4")
        assert device
        await done(lambda: bench.bus.authorize(device, False))
        await bench.until(lambda: all(bench.bus.stuck(BusId(f"2-1.{n + 1}")) for n in range(count)))
        await bench.bus.rescan()
        before = threading.active_count()
        for _ in range(3):
            await bench.bus.rescan()
        assert threading.active_count() <= before, "nothing more is begun for a device that hangs"
        assert set(bench.bus.devices()) == {"1-1", "1-4"}

    story(tmp_path, tell)


@pytest.mark.parametrize("count", [1, THREADS, THREADS + 1, 20])
def test_devices_that_cannot_be_written(tmp_path: Path, count: int) -> None:
    async def tell(bench: Bench, fifos: list[Path]) -> None:
        ports = [f"2-1.{number + 1}" for number in range(count)]
        for number, port in enumerate(ports):
            bench.tree.plug(port, number + 10)
        await bench.bus.start(bench.events.append)
        devices = [bench.bus.devices()[BusId(port)] for port in ports]
        fifos += [hang(bench.tree, port, "authorized") for port in ports]
        acts = asyncio.gather(*(bench.bus.authorize(device, False) for device in devices))
        good = bench.device("1-1")
        assert good
        await done(lambda: bench.bus.authorize(good, False))
        assert await acts == [False] * count
        assert all(bench.bus.stuck(device.port) for device in devices)
        before = threading.active_count()
        assert not await bench.bus.authorize(devices[0], True)
        await bench.bus.probe(devices[0])
        assert not await bench.bus.interfaces(devices[0], True)
        assert threading.active_count() <= before
        bench.tree.plug("1-4", 6)
        bench.udev.send(Uevent("add", "1-4", 6))
        await bench.until(lambda: bench.device("1-4"))

    story(tmp_path, tell)


def test_the_next_device_at_the_port_of_one_that_hangs(tmp_path: Path) -> None:
    async def tell(bench: Bench, fifos: list[Path]) -> None:
        await bench.bus.start(bench.events.append)
        for number in range(3, 10):
            kept = bench.tree.root / f"kept{number}"
            hang(bench.tree, "1-1", "product").rename(kept)
            os.link(kept, bench.tree.root / bench.tree.folder("1-1") / "product")
            fifos.append(kept)
            bench.udev.send(Uevent("change", "1-1", number - 1))
            await bench.until(lambda: bench.bus.stuck(BusId("1-1")))
            bench.tree.pull("1-1")
            bench.tree.plug("1-1", number)
            bench.kernel.send(Uevent("remove", "1-1", number - 1))
            bench.udev.send(Uevent("add", "1-1", number))
            await bench.until(lambda n=number: (found := bench.device("1-1")) and found.number == n)  # type: ignore[misc]
            assert not bench.bus.stuck(BusId("1-1"))

    story(tmp_path, tell)


def test_a_device_that_hung_is_read_again(tmp_path: Path) -> None:
    async def tell(bench: Bench, fifos: list[Path]) -> None:
        bench.tree.plug("1-4", 6)
        file = hang(bench.tree, "1-4", "product")
        await bench.bus.start(bench.events.append)
        assert bench.device("1-4") is None
        file.rename(tmp_path / "fifo")
        with released([tmp_path / "fifo"]):
            pass
        await bench.until(lambda: bench.device("1-4"))
        assert event("change", "1-4") in bench.events
        assert not bench.bus.stuck(BusId("1-4"))

    story(tmp_path, tell)


def test_the_number_of_threads_is_bounded() -> None:
    async def run() -> None:
        go, most = threading.Event(), THREADS + MAX_THREADS
        threads = DeviceThreads(asyncio.get_running_loop(), "test")
        before = threading.active_count()
        jobs = [asyncio.ensure_future(threads.run(f"1-{n}", lambda: go.wait(30))) for n in range(most + 50)]
        async with asyncio.timeout(SOON):
            while threading.active_count() < before + most:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert threading.active_count() == before + most
            with pytest.raises(DeviceStuck):
                await threads.run("1-0", lambda: True)
            go.set()
            assert all(await asyncio.gather(*jobs))
            while threading.active_count() > before + THREADS:
                await asyncio.sleep(0.01)
            assert await threads.run("1-0", lambda: 7) == 7
        threads.stop()

    asyncio.run(run())


def test_what_the_work_raises_is_raised() -> None:
    async def run() -> None:
        threads = DeviceThreads(asyncio.get_running_loop(), "test")
        with pytest.raises(ZeroDivisionError):
            await threads.run("1-1", lambda: 1 / 0)
        assert await threads.run("1-1", lambda: 1) == 1
        threads.stop()

    asyncio.run(run())


ENDING = """
import asyncio, sys
from xenplug.adapters.device_threads import DeviceThreads
async def main():
    threads = DeviceThreads(asyncio.get_running_loop(), "test")
    jobs = [asyncio.ensure_future(threads.run(f"1-{n}", lambda: open(sys.argv[1]).read())) for n in range(20)]
    await asyncio.sleep(0.1)
    threads.stop()
asyncio.run(main())
print("over")
"""


def test_the_process_ends_though_threads_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    environment = {"PYTHONPATH": str(ROOT / "agent")}
    argv = [sys.executable, "-c", ENDING, str(tmp_path / "fifo")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=SOON, check=True)
    assert done.stdout == "over\n"
