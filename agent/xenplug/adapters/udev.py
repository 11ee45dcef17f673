"""The USB bus of the real host: netlink events (the only use of pyudev) show which port changed, sysfs shows the
device.

Removals are taken from the kernel's own events: udev sends them only after its rules have run, and a guest loses other
devices if the guest port of an unplugged device is not cleared within half a second. All other events come from udev,
after its rules have run. Devices are read and written in threads (device_threads.py): the kernel makes both wait while
a driver probes the device, and one stuck device must not delay the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from xenplug.adapters.device_threads import DeviceStuck, DeviceThreads
from xenplug.adapters.in_use import HARMLESS, InUse
from xenplug.adapters.root_hubs import RootHubs
from xenplug.adapters.sysfs import Sysfs
from xenplug.core.model import Bdf, BusId, Device, PciController, Use
from xenplug.core.protocols import Guard, UsbEvent
from xenplug.core.usb.device import describe
from xenplug.core.usb.place import PORT

log = logging.getLogger(__name__)

BUFFER = 8 << 20
"""Bytes of the netlink receive buffer: some thousand events, more than a full hub causes at once."""
RESCAN_TIMEOUT = 2.0
"""Seconds that a rescan waits for devices that cannot be read; they are reported once they can be."""
ACT = 10.0
"""Seconds to wait for a write to a device: a driver that loads firmware takes some time."""
ACT_PCI = 60.0
"""The same for a whole controller, with all its devices."""
UNANNOUNCED_READS = (0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between readings of a device with a driverless interface. A guest's use begins when its device model claims
an interface through usbfs, and the kernel sends no event for that (drivers/usb/core/devio.c: claimintf). Later rescans
are enough."""
UDEV_QUEUE_FILE = Path("/run/udev/queue")
"""Exists as long as udevd has events to process (systemd: udevd.c, udev_queue_get_queue_is_empty)."""
MODULES = 1.0
"""Maximum seconds that a device waits for udevd to load driver modules: a new driver binds to every authorised
interface at that moment (driver_register), and would take the device from its guest."""
_NODE = re.compile(r"bus/usb/[0-9]{3}/([0-9]{3})\Z")
_ROOT_HUB = re.compile(r"usb[0-9]+\Z")
_ACTIONS = frozenset({"add", "bind", "change", "unbind", "remove"})


@dataclass(frozen=True, slots=True)
class Uevent:
    """The content of one netlink message."""

    action: str
    name: str
    """The folder's name in sysfs: "1-4.2", "1-4.2:1.0" or "usb1"."""
    number: int | None = None


class UeventMonitor(Protocol):
    """A source of uevents."""

    def fileno(self) -> int:
        """Readable when there is something to receive."""

    def receive(self) -> Uevent | None:
        """The next uevent; None if there is none now. Raises OSError if events were lost or cannot be received."""


class _Netlink:
    """A pyudev monitor.

    The kernel applies the filter only to udev's events; of its own it delivers those of every subsystem, and libudev
    drops the others after the process was woken (systemd's sd-device-monitor: the socket filter passes them all).
    """

    def __init__(self, source: str) -> None:
        import pyudev  # not above: it loads libudev, which a recorded host does not need

        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source)
        self._monitor.filter_by("usb")
        try:
            self._monitor.set_receive_buffer_size(BUFFER)
        except OSError as problem:
            log.debug("receive buffer of the %s monitor stays small: %s", source, problem)
        self._monitor.start()

    def fileno(self) -> int:
        return int(self._monitor.fileno())

    def receive(self) -> Uevent | None:
        try:
            device = self._monitor.poll(0)
        except OSError:
            self._clear()
            raise
        if device is None:
            return None
        number = device_number(device.properties.get("DEVNUM"), device.properties.get("DEVNAME"))
        return Uevent(str(device.action), str(device.sys_name), number)

    def _clear(self) -> None:
        """Clear the pending error of the socket. pyudev leaves it there, so it would be reported again and again."""
        with socket.socket(fileno=os.dup(self.fileno())) as same:
            same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def device_number(devnum: str | None, node: str | None) -> int | None:
    """The device number, from DEVNUM (the kernel's, zero-padded), else from the name of the device's node."""
    if devnum and devnum.isascii() and devnum.isdigit():
        return int(devnum)
    found = _NODE.search(node or "")
    return int(found[1]) if found else None


def netlink(control: Path = Path("/run/udev/control")) -> tuple[UeventMonitor, ...]:
    """The kernel's events and udev's; only the kernel's if udevd does not run (a container, an initramfs)."""
    if os.path.exists(control):  # noqa: PTH110 - Path.exists may raise
        return _Netlink("kernel"), _Netlink("udev")
    log.warning("udevd does not run (%s is missing); following the kernel's own events", control)
    return (_Netlink("kernel"),)


@dataclass(slots=True)
class _Reading:
    """A port that is being read, and the events since then that require another reading."""

    again: bool = True
    events: list[UsbEvent] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class UdevBus:
    """UsbBus (core/protocols) of a real host. `monitors` creates the kernel's monitor and, if udevd runs, udev's."""

    def __init__(
        self,
        sysfs: Sysfs,
        loop: asyncio.AbstractEventLoop,
        inuse: InUse | None = None,
        monitors: Callable[[], tuple[UeventMonitor, ...]] = netlink,
        hubs: RootHubs | None = None,
    ) -> None:
        self._hubs = hubs
        self._sysfs, self._loop, self._inuse, self._open = sysfs, loop, inuse or InUse(), monitors
        self._devices: dict[BusId, Device] = {}
        self._fired: Callable[[UsbEvent], None] = _nobody
        self._monitors: tuple[UeventMonitor, ...] = ()
        self._reads, self._acts = DeviceThreads(loop, "usb-read"), DeviceThreads(loop, "usb-write")
        self._readings: dict[BusId, _Reading] = {}
        self._gone: dict[BusId, int | None] = {}
        """Ports whose device the kernel has removed, with its number: a reading that still shows it is outdated."""
        self._claims: dict[BusId, asyncio.TimerHandle] = {}
        """The next reading of each device that a process may be about to claim."""
        self._recovery: asyncio.Task[None] | None = None
        self._overflowed = False

    async def start(self, fired: Callable[[UsbEvent], None]) -> None:
        """Raises OSError or ImportError if events cannot be received."""
        self._fired = fired
        self._monitors = self._open()
        for monitor in self._monitors:
            self._loop.add_reader(monitor.fileno(), self._drain)
        await self.rescan()

    async def stop(self) -> None:
        """Does not wait for readings of stuck devices."""
        self._fired = _nobody
        for monitor in self._monitors:
            self._loop.remove_reader(monitor.fileno())
        self._monitors = ()
        for handle in self._claims.values():
            handle.cancel()
        tasks = [reading.task for reading in self._readings.values()] + [self._recovery]
        for task in tasks:
            if task:
                task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)
        self._reads.stop()
        self._acts.stop()

    def devices(self) -> Mapping[BusId, Device]:
        """The devices, up to date by events, except for `in_use`, which is read now: mounting causes no USB event."""
        needs, keyboard = cache(self._inuse.needs), cache(self._inuse.keyboard)
        for port, device in self._devices.items():
            uses: frozenset[Use] = frozenset()
            if not HARMLESS.issuperset(device.drivers):
                uses = self._inuse.of(self._sysfs.folder(port), needs)
            if "keyboard" in device.kinds and _is_dom0s(device) and keyboard():
                uses |= {Use.KEYBOARD}
            if uses != device.in_use:
                self._devices[port] = replace(device, in_use=uses)
        return MappingProxyType(dict(self._devices))

    def controllers(self) -> tuple[PciController, ...]:
        """Read now."""
        return self._sysfs.controllers()

    def usbback(self) -> bool:
        """Read now."""
        return self._sysfs.usbback()

    async def rescan(self) -> None:
        """Read every port again, several at a time; wait at most RESCAN_TIMEOUT for those that are stuck."""
        if self._hubs:
            self._hubs.restore_note()
        ports = {BusId(port) for port in self._sysfs.ports()}
        for port in self._devices.keys() - ports:
            del self._devices[port]
        tasks = [self._look(port) for port in sorted(ports) if not self._reads.stuck(port)]
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=RESCAN_TIMEOUT)
            if stuck:
                log.warning("%d devices cannot be read yet; the kernel is busy with them", len(stuck))

    def stuck(self, port: BusId) -> bool:
        """Whether a read or write of the device hangs in the kernel."""
        return self._reads.stuck(port) or self._acts.stuck(port)

    async def _act(self, port: str, work: Callable[[], object], seconds: float | None = None) -> bool:
        """Run `work` and return its result; False, too, if it hangs in the kernel. It may end later: then the device is
        read again.
        """
        if self._reads.stuck(port):
            return False
        try:
            async with asyncio.timeout(seconds or ACT):
                return bool(await self._acts.run(port, work))
        except (TimeoutError, DeviceStuck):
            return False

    async def authorize(self, device: Device, allowed: bool) -> bool:
        """Write `authorized`; False if the device has been replaced."""
        return await self._act(device.port, partial(self._sysfs.authorize, device.port, device.number, allowed))

    async def rebind(self, bdf: Bdf, driver: str) -> None:
        """A failure shows in `controllers()`."""
        await self._act(bdf, partial(self._sysfs.pci.rebind, bdf, driver), ACT_PCI)

    async def interfaces(self, device: Device, allowed: bool) -> bool:
        """As `authorize`. The kernel sends no event for this, nor for what a device model then does through usbfs, so
        the device is read again, several times.
        """
        if allowed:
            await self._modules_loaded()
        done = await self._act(device.port, partial(self._sysfs.interfaces, device.port, device.number, allowed))
        self._look(device.port)
        if handle := self._claims.pop(device.port, None):
            handle.cancel()
        self._claims[device.port] = self._loop.call_later(UNANNOUNCED_READS[0], self._read_for_claim, device.port, 1)
        return done

    async def _modules_loaded(self) -> None:
        until = self._loop.time() + MODULES
        while os.path.exists(UDEV_QUEUE_FILE) and self._loop.time() < until:  # noqa: PTH110
            await asyncio.sleep(0.01)

    def guard(self, guard: Guard) -> None:
        """Put the guard in force on all root hubs, including later ones."""
        if self._hubs:
            self._hubs.set(guard)

    def _guard_again(self) -> None:
        if self._hubs:
            self._hubs.again()

    async def probe(self, device: Device) -> None:
        """A failure shows in the device's drivers."""
        await self._act(device.port, partial(self._sysfs.probe, device.port))

    def _drain(self) -> None:
        """Receive all pending events, always the kernel's first: a removal must come before the events after it."""
        for monitor in self._monitors:
            try:
                while (uevent := monitor.receive()) is not None:
                    self._take(uevent, monitor)
            except OSError as problem:
                log.warning("USB events were lost (%s); reading everything again", problem)
                self._lost()

    def _take(self, uevent: Uevent, monitor: UeventMonitor) -> None:
        name, interface, _ = uevent.name.partition(":")
        if _ROOT_HUB.match(name) and uevent.action == "add":
            self._guard_again()  # the kernel reads its ports 100 ms from now (hub.c: HUB_DEBOUNCE_STABLE)
        if uevent.action not in _ACTIONS or not PORT.match(name):
            return
        port = BusId(name)
        if monitor is self._monitors[0] and not interface and uevent.action == "remove":
            self._removed(port, uevent.number)
            return
        if uevent.action == "add" and not interface and self._gone.get(port, -1) in (None, uevent.number):
            del self._gone[port]  # the same number again: a new device, after all 127 numbers were used
        if monitor is self._monitors[-1]:
            self._look(port, UsbEvent("change" if interface else uevent.action, port, uevent.number))

    def _removed(self, port: BusId, number: int | None) -> None:
        known = self._devices.get(port)
        if known and number in (None, known.number):
            del self._devices[port]
        self._gone[port] = number
        self._give_up(port)
        self._fired(UsbEvent("remove", port, number))

    def _give_up(self, port: BusId) -> None:
        """Drop the reading of a device that is gone: if it hangs, it must not block the next device at its port."""
        self._acts.forget(port)
        if not self._reads.stuck(port):
            return
        self._reads.forget(port)
        reading = self._readings.pop(port, None)
        if reading and reading.task:
            reading.task.cancel()

    def _look(self, port: BusId, event: UsbEvent | None = None) -> asyncio.Task[None]:
        """Read the port again, then report. A request during a reading causes one more reading after it."""
        reading = self._readings.setdefault(port, _Reading())
        reading.again = True
        if event:
            reading.events.append(event)
        if reading.task is None:
            reading.task = self._loop.create_task(self._read(port, reading))
        return reading.task

    async def _read(self, port: BusId, reading: _Reading) -> None:
        try:
            while reading.again:
                reading.again = False
                events, reading.events = reading.events, []
                found = await self._reads.run(port, partial(self._observe, port))
                if self._store(port, found) and not events:
                    events = [UsbEvent("change", port)]
                for event in events:
                    self._fired(event)
        except DeviceStuck:  # an earlier reading of it hangs
            log.debug("%s: not read", port)
        finally:
            if self._readings.get(port) is reading:
                del self._readings[port]

    def _observe(self, port: BusId) -> Device | None:
        raw = self._sysfs.read(port)
        return describe(raw) if raw else None

    def _store(self, port: BusId, found: Device | None) -> bool:
        """Store the device; return whether it changed. An unchanged device stays the same object."""
        known = self._devices.get(port)
        if found is None:
            self._gone.pop(port, None)  # sysfs no longer has it, so no later reading can show it
        if found is None or self._gone.get(port, -1) in (None, found.number):
            self._devices.pop(port, None)
            return known is not None
        self._gone.pop(port, None)
        if known and known.key == found.key:
            found = replace(found, in_use=known.in_use)
        if found == known:
            return False
        self._devices[port] = found
        self._await_claim(port)
        return True

    def _await_claim(self, port: BusId, readings: int = 0) -> None:
        if handle := self._claims.pop(port, None):
            handle.cancel()
        known = self._devices.get(port)
        if known and None in known.drivers and readings < len(UNANNOUNCED_READS):
            self._claims[port] = self._loop.call_later(
                UNANNOUNCED_READS[readings], self._read_for_claim, port, readings + 1
            )

    def _read_for_claim(self, port: BusId, readings: int) -> None:
        self._look(port)
        self._await_claim(port, readings)

    def _lost(self) -> None:
        self._overflowed = True
        if self._recovery is None or self._recovery.done():
            self._recovery = self._loop.create_task(self._recover())

    async def _recover(self) -> None:
        while self._overflowed:
            self._overflowed = False
            self._gone.clear()
            await self.rescan()
            self._fired(UsbEvent("lost", None))


def _is_dom0s(device: Device) -> bool:
    """Whether dom0's drivers may bind to it, and no guest's device model has it."""
    return device.authorized and "usbfs" not in device.drivers


def _nobody(event: UsbEvent) -> None:
    """Nobody listens."""
