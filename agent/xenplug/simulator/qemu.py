"""A guest's device model: the process that takes USB devices from dom0 and hands them to the guest.

Its `usb-host` objects are made by qusb.py (ports in xenstore) and emulated.py (QMP). This module knows what happens to
an object afterwards: opened, used, unplugged, opened again, lost because another device was unplugged. Sources:
xen-facts 3, lab 3, 5, 13.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from xenplug.core.model import BusId, Device
from xenplug.simulator.kernel import Kernel
from xenplug.simulator.loop import later


@dataclass(slots=True, eq=False)
class UsbHostDevice:
    """One usb-host object of a qemu."""

    id: str
    bus: str
    """Its controller's id: xen-qusb-0, xenusb-0."""
    port: int
    busid: BusId
    qusb: int | None
    """The qusb controller it came from; None for an emulated one. Only for the former qemu scans every 2 s."""
    order: int = 0
    device: Device | None = None
    """The device that it has open."""
    announced: bool = False
    """Whether the guest sees a device on the port."""
    asked: bool = False
    """The guest enumerates it, or the guest's drivers start: requests to it are under way all the time."""
    eager: bool = False
    """Opens a replugged device at once (failure `grab`), not at the next scan."""
    scanning: bool = False


class Owner(Protocol):
    """The guest, as its device model sees it."""

    def configures(self, controller: int | None) -> bool:
        """Whether the guest's system is up and has a driver for this qusb controller (None: an emulated one)."""


class DeviceModel:
    """One qemu process."""

    def __init__(self, kernel: Kernel, owner: Owner, pid: int) -> None:
        self.kernel = kernel
        self.owner = owner
        self.pid = pid
        self.alive = True
        self.objects: list[UsbHostDevice] = []
        self.log: list[str] = []
        """The lines that it writes to /var/log/xen/qemu-dm-NAME.log."""
        self._made = 0
        self.ended: Callable[[], None] = lambda: None
        kernel.listeners.append(self._uevent)

    def add(self, made: UsbHostDevice) -> UsbHostDevice:
        self._made += 1
        made.order = self._made
        self.objects.append(made)
        return made

    def open(self, made: UsbHostDevice, announce: bool = True) -> None:
        """Open the device that the object names now, if there is one."""
        made.scanning = False
        device = self.kernel.device(made.busid)
        if made not in self.objects or made.device or device is None or not self.kernel.open(self.pid, device):
            return
        made.device, made.announced = device, announce
        self.refresh()

    def drop(self, made: UsbHostDevice) -> None:
        """Delete the object: the device returns to dom0."""
        if made in self.objects:
            self.objects.remove(made)
            if made.device:
                self.kernel.close(self.pid, made.device)

    def refresh(self) -> None:
        """Let the guest configure the devices that it sees, if it can."""
        for made in self.objects:
            if self._usable(made):
                made.asked = True
                later(self.kernel.times.configure, self._use, made)

    def sees(self) -> tuple[Device, ...]:
        """The devices that the guest really has: visible to it, and claimed for it."""
        announced = [made.device for made in self.objects if made.device and made.announced]
        claimed = [self.kernel.device(device.port) for device in announced if self.kernel.claimer(device) == self.pid]
        return tuple(device for device in claimed if device)

    def quit(self) -> None:
        """End in order (SIGHUP), a moment from now: every device returns to its dom0 driver."""
        self.alive = False
        later(self.kernel.times.dm_exit, self._leave)

    def kill(self) -> None:
        """End at once (SIGKILL, abort): dom0's drivers are not attached again (xen-facts T36)."""
        for made in self.objects:
            if made.device:
                self.kernel.close(self.pid, made.device, give_back=False)
        self._end()

    def _leave(self) -> None:
        for made in list(self.objects):
            self.drop(made)
        self._end()

    def _end(self) -> None:
        self.alive = False
        self.objects.clear()
        self.ended()
        if self._uevent in self.kernel.listeners:
            self.kernel.listeners.remove(self._uevent)

    def _usable(self, made: UsbHostDevice) -> bool:
        if not self.alive or made not in self.objects or made.device is None or not made.announced:
            return False
        return self.kernel.claimer(made.device) is None and self.owner.configures(made.qusb)

    def _use(self, made: UsbHostDevice) -> None:
        if self._usable(made) and made.device:
            self.kernel.claim(self.pid, made.device)
            later(self.kernel.times.drivers, self._drivers_started, made, made.device)

    def _drivers_started(self, made: UsbHostDevice, device: Device) -> None:
        if made.device is device:
            made.asked = False

    def _uevent(self, action: str, port: BusId, number: int) -> None:
        for made in [made for made in self.objects if made.qusb is not None and made.busid == port]:
            if action == "remove" and made.device and made.device.number == number:
                self._pulled(made)
            elif action == "add" and made.device is None and not made.scanning:
                made.scanning = True
                times = self.kernel.times
                later(times.bind + 0.01 if made.eager else times.scan, self.open, made, False)

    def _pulled(self, made: UsbHostDevice) -> None:
        made.device, made.announced, made.asked = None, False, False
        later(self.kernel.times.bystander_grace, self._judge, made)

    def _judge(self, pulled: UsbHostDevice) -> None:
        """The port was not cleared in time: every device attached after the unplugged one will be lost (lab 13)."""
        if pulled in self.objects:
            times = self.kernel.times
            later(times.bystander_loss - times.bystander_grace, self._lose_after, pulled.order)

    def _lose_after(self, order: int) -> None:
        for made in self.objects:
            if made.qusb is not None and made.order > order and made.device:
                made.announced = False
                self.kernel.reset(made.device)
