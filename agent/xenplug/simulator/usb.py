"""The agent's view of the simulated USB devices: UsbBus (core/protocols) over kernel.py.

Keeps its own copy of the facts, updated by uevents, and by a few readings after them where the kernel sends no event.
While events are lost the copy is out of date, as on a real host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from xenplug.core.model import Bdf, BusId, Device, PciController
from xenplug.core.protocols import Guard, UsbEvent
from xenplug.simulator.kernel import Kernel
from xenplug.simulator.loop import later, soon

UsbCallback = Callable[[UsbEvent], None]

EVENT_DELAY = (0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between readings of a device with a driverless interface, as on the real bus: no event reports that a process
claimed it."""


class SimBus:
    """UsbBus (core/protocols) for one agent at a time."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._seen: dict[BusId, Device] = {}
        self._fired: UsbCallback | None = None
        self._deaf = False
        self.hanging: set[BusId] = set()
        """Ports of devices on which operations hang in the kernel."""

    async def start(self, fired: UsbCallback) -> None:
        self._fired = fired
        self._deaf = False
        self.kernel.listeners.append(self._uevent)
        await self.rescan()

    async def stop(self) -> None:
        self._fired = None
        if self._uevent in self.kernel.listeners:
            self.kernel.listeners.remove(self._uevent)

    def devices(self) -> Mapping[BusId, Device]:
        """The devices as of the last events, but with the current `in_use`, as on the real bus: mounting causes no USB
        event.
        """
        for port, device in self._seen.items():
            now = self.kernel.device(port)
            if now and now.key == device.key and now.in_use != device.in_use:
                self._seen[port] = replace(device, in_use=now.in_use)
        return dict(self._seen)

    def controllers(self) -> tuple[PciController, ...]:
        return self.kernel.sockets.pci()

    def usbback(self) -> bool:
        return False

    async def rescan(self) -> None:
        await asyncio.sleep(0)
        self._seen = dict(self.kernel.devices())

    def stuck(self, port: BusId) -> bool:
        """Whether operations on the device at this port hang in the kernel (`hanging`)."""
        return port in self.hanging

    async def authorize(self, device: Device, allowed: bool) -> bool:
        await asyncio.sleep(0)
        if device.port in self.hanging:
            return False
        return self.kernel.authorize(device, allowed)

    async def rebind(self, bdf: Bdf, driver: str) -> None:
        await asyncio.sleep(0)
        controller = self.kernel.sockets.by_bdf(bdf)
        if controller and not controller.awake:
            self.kernel.drive(controller, driver)

    async def interfaces(self, device: Device, allowed: bool) -> bool:
        await asyncio.sleep(0)
        if device.port in self.hanging:
            return False
        if allowed and device.tag in self.kernel.deconfigured:
            await asyncio.sleep(self.kernel.times.rules)  # as the real bus, until udev has run its rules
        done = self.kernel.interfaces(device, allowed)
        # No event reports it: the real bus reads the device again by itself.
        self._take(UsbEvent("change", device.port, device.number))
        return done

    def guard(self, guard: Guard) -> None:
        self.kernel.authorize_new, self.kernel.open_new = not guard.devices, not guard.interfaces

    async def probe(self, device: Device) -> None:
        await asyncio.sleep(0)
        self.kernel.probe(device)

    def lose(self, seconds: float = 1.0) -> None:
        """The netlink socket overflows: events of the next `seconds` are dropped, then everything is read and `lost` is
        sent.
        """
        self._deaf = True
        later(seconds, self._notice_loss)

    def _notice_loss(self) -> None:
        self._deaf = False
        self._seen = dict(self.kernel.devices())
        self._deliver(UsbEvent("lost", None))

    def _uevent(self, action: str, port: BusId, number: int) -> None:
        if not self._deaf:
            soon(self._take, UsbEvent(action, port, number))

    def _take(self, event: UsbEvent) -> None:
        assert event.port is not None  # noqa: S101 - only `lost` has none, and it does not come this way
        known, now = self._seen.get(event.port), self.kernel.device(event.port)
        if now is not None and event.action != "remove":
            self._seen[event.port] = now
            self._await_claim(now)
        elif known and (now is None or known.number == event.number):
            del self._seen[event.port]
        self._deliver(event)

    def _await_claim(self, device: Device, readings: int = 0) -> None:
        if None in device.drivers and readings < len(EVENT_DELAY) and not self._deaf:
            later(EVENT_DELAY[readings], self._read_for_claim, device, readings + 1)

    def _read_for_claim(self, device: Device, readings: int) -> None:
        now = self.kernel.device(device.port)
        if now is None or self._seen.get(device.port) is not device:
            return
        self._seen[device.port] = now
        if now == device:
            self._await_claim(now, readings)
        else:
            self._deliver(UsbEvent("change", now.port, now.number))

    def _deliver(self, event: UsbEvent) -> None:
        if self._fired is not None:
            self._fired(event)
