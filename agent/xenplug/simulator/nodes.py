"""The device nodes of dom0's kernel: which driver has each interface, who holds a node open, who has claimed it.

The part of kernel.py that processes (device models) and the agent's sysfs writes use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from xenplug.core.model import BusId, Device
from xenplug.simulator.drivers import USBFS, dom0_drivers
from xenplug.simulator.loop import later
from xenplug.simulator.times import SimulatedTimes

Listener = Callable[[str, BusId, int], None]
"""Called with action, port and device number of every uevent."""


@dataclass(slots=True)
class Plugged:
    """A device, and what the kernel knows of it besides what sysfs shows."""

    device: Device
    holders: set[int] = field(default_factory=set)
    """Processes that have the node open."""
    claimer: int | None = None
    """The process that has claimed the interfaces (usbfs)."""
    resets: int = 0
    """Running resets. Until they end, sysfs shows device number 0."""


class Nodes:
    """The present devices and the processes that use them. A device is identified by port and number."""

    def __init__(self, times: SimulatedTimes | None = None) -> None:
        self.times = times or SimulatedTimes()
        self.listeners: list[Listener] = []
        self.bystanders_rebind = False
        """A device lost because another one was unplugged gets dom0's driver back (lab 3) instead of none (lab 13)."""
        self._present: dict[BusId, Plugged] = {}

    def devices(self) -> Mapping[BusId, Device]:
        return {port: plugged.device for port, plugged in self._present.items()}

    def device(self, port: str) -> Device | None:
        plugged = self._present.get(BusId(port))
        return plugged.device if plugged else None

    def at(self, bus: int, number: int) -> Device | None:
        """The device of this bus address (what libxl looks up in sysfs)."""
        numbered = (plugged.device for plugged in self._present.values() if not plugged.resets)
        return next((d for d in numbered if (d.bus, d.number) == (bus, number)), None)

    def holders(self, device: Device) -> frozenset[int]:
        """Process ids that hold the device's node open."""
        plugged = self._same(device)
        return frozenset(plugged.holders) if plugged else frozenset()

    def claimer(self, device: Device) -> int | None:
        """The id of the process that has claimed the device's interfaces (usbfs)."""
        plugged = self._same(device)
        return plugged.claimer if plugged else None

    def open(self, pid: int, device: Device) -> bool:
        """libusb opens the node and detaches dom0's drivers. False if that device is gone."""
        plugged = self._same(device)
        if plugged is None:
            return False
        plugged.holders.add(pid)
        if plugged.claimer is None:
            self._driverless(plugged)
        return True

    def claim(self, pid: int, device: Device) -> bool:
        """libusb claims every interface: the guest has set a configuration. False if another process has them."""
        plugged = self._same(device)
        if plugged is None or plugged.claimer not in (None, pid):
            return False
        if not plugged.device.configured or plugged.device.shut:
            return False
        plugged.claimer = pid
        self._bind(plugged, tuple(USBFS for _ in plugged.device.interfaces))
        return True

    def close(self, pid: int, device: Device, give_back: bool = True) -> None:
        """The process closes the device. `give_back`: first it resets the device and attaches dom0's drivers again (a
        killed process cannot).
        """
        plugged = self._same(device)
        if plugged is None or pid not in plugged.holders:
            return
        plugged.holders.discard(pid)
        if plugged.claimer not in (None, pid):
            return
        plugged.claimer = None
        self._driverless(plugged)
        if give_back:
            self._reset_soon(plugged)
            if not plugged.holders:
                self.probe(device)

    def reset(self, device: Device) -> None:
        """The device is reset while a process holds it; the claim is lost, and dom0's driver may return (lab 3, 13)."""
        plugged = self._same(device)
        if plugged is None:
            return
        plugged.claimer = None
        self._driverless(plugged)
        self.emit("unbind", plugged.device)
        if self.bystanders_rebind:
            self.probe(device)

    def probe(self, device: Device) -> None:
        """Write drivers_probe: dom0's drivers bind to the driverless interfaces, unless they are deauthorised."""
        plugged = self._same(device)
        if plugged is not None and plugged.device.configured and not plugged.device.shut:
            bound = plugged.device.drivers
            self._bind(plugged, tuple(old or own for old, own in zip(bound, dom0_drivers(device), strict=True)))

    def _reset_soon(self, plugged: Plugged) -> None:
        def begin() -> None:
            plugged.resets += 1
            later(self.times.unnumbered, end)

        def end() -> None:
            plugged.resets -= 1

        later(self.times.reset, begin)

    def _same(self, device: Device) -> Plugged | None:
        plugged = self._present.get(device.port)
        return plugged if plugged and plugged.device.key == device.key else None

    def _driverless(self, plugged: Plugged) -> None:
        self._bind(plugged, tuple(None for _ in plugged.device.drivers))

    def _bind(self, plugged: Plugged, drivers: tuple[str | None, ...]) -> None:
        before = plugged.device.drivers
        if before == drivers:
            return
        plugged.device = replace(plugged.device, drivers=drivers)
        # The kernel sends no events for claims through usbfs (drivers/usb/core/devio.c: claimintf, releaseintf).
        if any(driver not in (None, USBFS) for driver in before):
            self.emit("unbind", plugged.device)
        if any(driver not in (None, USBFS) for driver in drivers):
            self.emit("bind", plugged.device)

    def emit(self, action: str, device: Device) -> None:
        """Send a uevent of the device to all listeners."""
        for listener in list(self.listeners):
            listener(action, device.port, device.number)
