"""A guest's device model: the process that takes USB devices from dom0 and hands them to the guest.

Its `usb-host` objects are made by qusb.py (ports in xenstore) and emulated.py (QMP). This room knows what happens to an
object once it is there: open, used, pulled, grabbed back, lost as a bystander. Sources: xen-facts 3, lab 3, 5, 13.
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
    """The qusb controller it came from; None for an emulated one. Only the former is scanned for every 2 s."""
    order: int = 0
    device: Device | None = None
    """What it has opened."""
    announced: bool = False
    """The guest is told that something is plugged in."""
    eager: bool = False
    """Grabs what is replugged at once (failure `grab`), not at the next scan."""
    scanning: bool = False


class Owner(Protocol):
    """The guest, as its device model sees it."""

    def configures(self, controller: int | None) -> bool:
        """The guest's system is up and drives this qusb controller (None: an emulated one)."""


class DeviceModel:
    """One qemu process."""

    def __init__(self, kernel: Kernel, owner: Owner, pid: int) -> None:
        self.kernel = kernel
        self.owner = owner
        self.pid = pid
        self.alive = True
        self.objects: list[UsbHostDevice] = []
        self.log: list[str] = []
        """What it writes to /var/log/xen/qemu-dm-NAME.log."""
        self._made = 0
        self.ended: Callable[[], None] = lambda: None
        kernel.listeners.append(self._uevent)

    def add(self, made: UsbHostDevice) -> UsbHostDevice:
        self._made += 1
        made.order = self._made
        self.objects.append(made)
        return made

    def open(self, made: UsbHostDevice, announce: bool = True) -> None:
        """Open what stands at the object's place now; nothing if there is nothing."""
        made.scanning = False
        device = self.kernel.device(made.busid)
        if made not in self.objects or made.device or device is None or not self.kernel.open(self.pid, device):
            return
        made.device, made.announced = device, announce
        self.refresh()

    def drop(self, made: UsbHostDevice) -> None:
        """Delete the object: the device goes back to dom0."""
        if made in self.objects:
            self.objects.remove(made)
            if made.device:
                self.kernel.close(self.pid, made.device)

    def refresh(self) -> None:
        """Let the guest configure what it was told of, if it can."""
        for made in self.objects:
            if self._usable(made):
                later(self.kernel.times.configure, self._use, made)

    def sees(self) -> tuple[Device, ...]:
        """What the guest really has: told of, and claimed for it."""
        told = [made.device for made in self.objects if made.device and made.announced]
        mine = [self.kernel.device(device.port) for device in told if self.kernel.claimer(device) == self.pid]
        return tuple(device for device in mine if device)

    def quit(self) -> None:
        """End in order (SIGHUP), a moment from now: every device goes back to its dom0 driver."""
        self.alive = False
        later(self.kernel.times.dm_exit, self._leave)

    def kill(self) -> None:
        """End at once (SIGKILL, abort): nobody gives dom0's drivers back (xen-facts T36)."""
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

    def _uevent(self, action: str, port: BusId, number: int) -> None:
        for made in [made for made in self.objects if made.qusb is not None and made.busid == port]:
            if action == "remove" and made.device and made.device.number == number:
                self._pulled(made)
            elif action == "add" and made.device is None and not made.scanning:
                made.scanning = True
                times = self.kernel.times
                later(times.bind + 0.01 if made.eager else times.scan, self.open, made, False)

    def _pulled(self, made: UsbHostDevice) -> None:
        made.device, made.announced = None, False
        later(self.kernel.times.bystander_grace, self._judge, made)

    def _judge(self, pulled: UsbHostDevice) -> None:
        """The port was not cleared in time: all that was attached after the pulled device will be lost (lab 13)."""
        if pulled in self.objects:
            times = self.kernel.times
            later(times.bystander_loss - times.bystander_grace, self._lose_after, pulled.order)

    def _lose_after(self, order: int) -> None:
        for made in self.objects:
            if made.qusb is not None and made.order > order and made.device:
                made.announced = False
                self.kernel.reset(made.device)
