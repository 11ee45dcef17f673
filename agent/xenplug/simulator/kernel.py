"""The USB side of dom0's kernel: which devices are plugged in where, and how they connect and disconnect.

This is the true state. usb.py shows it to the agent, device models take devices from it, scenarios plug and unplug
here. Uevents reach the listeners at once, in the order of a real plug: add, configured, bind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from xenplug.core.model import BusId, Device, Tag, Use
from xenplug.core.usb.kinds import kinds
from xenplug.simulator.loop import later
from xenplug.simulator.nodes import Nodes, Plugged
from xenplug.simulator.sockets import HostController, Sockets, parent
from xenplug.simulator.times import SimulatedTimes

LAST_NUMBER = 127


class Kernel(Nodes):
    """The USB side of dom0. Raises ValueError for mistakes in a scenario (no such port, port in use)."""

    def __init__(self, controllers: Iterable[HostController] = (), times: SimulatedTimes | None = None) -> None:
        super().__init__(times)
        self.sockets = Sockets(controllers)
        self.authorize_new = True
        """usbcore's authorized_default."""
        self.open_new = True
        """interface_authorized_default of the root hubs."""
        self.deconfigured: set[Tag] = set()
        """Devices from which a udev rule takes the configuration at `add` (39-usbmuxd.rules)."""
        self._asleep: dict[BusId, Device] = {}
        """Devices on a controller that dom0 does not drive."""
        self._next: dict[int, int] = {}

    def plug(self, device: Device, settled: bool = False) -> Device:
        """Plug the device in at its port; returns it with its address (a `number` that is set is kept).

        `settled`: it has been there for a long time, configured and bound.
        """
        self.sockets.check(device)
        if device.port in self._present or device.port in self._asleep:
            raise ValueError(f"port {device.port}: a device is plugged in there already")
        if not self.sockets.of(device.port).awake:
            self._asleep[device.port] = device
            return device
        above = parent(device.port)
        if above is not None and not self._is_hub(above):
            raise ValueError(f"port {device.port}: there is no hub at {above}")
        placed = self._appear(device)
        if settled and placed.authorized and device.tag not in self.deconfigured:
            self._configure(placed)
            self._first_bind(placed)
        return self._present[device.port].device

    def _is_hub(self, port: BusId) -> bool:
        """Whether devices can be plugged into it: the kernel's hub driver needs an interface of class hub."""
        plugged = self._present.get(port)
        return plugged is not None and (plugged.device.hub or plugged.device.partly_hub)

    def unplug(self, port: str) -> None:
        """Unplug the device, and all below it."""
        if self._asleep.pop(BusId(port), None):
            return
        if BusId(port) not in self._present:
            raise ValueError(f"port {port}: nothing is plugged in there")
        self._vanish(BusId(port))

    def reenumerate(self, port: str, device: Device | None = None) -> Device:
        """The device disconnects and returns at once with a new address, perhaps as another device."""
        old = self.device(port)
        if old is None:
            raise ValueError(f"port {port}: nothing is plugged in there")
        self._vanish(BusId(port))
        return self._appear(replace(device or old, port=BusId(port), number=0))

    def authorize(self, device: Device, allowed: bool) -> bool:
        """Write sysfs `authorized`. False if that device is gone."""
        plugged = self._same(device)
        if plugged is None:
            return False
        if plugged.device.authorized == allowed:
            return True
        plugged.device = replace(plugged.device, authorized=allowed)
        if allowed:
            self._configure(plugged.device)
        else:
            plugged.claimer = None
            plugged.device = replace(plugged.device, configured=False, shut=False, drivers=())
            self.emit("unbind", plugged.device)
        return True

    def interfaces(self, device: Device, allowed: bool) -> bool:
        """Write `authorized` of its interfaces; with 0 they lose their drivers. False if that device is gone."""
        plugged = self._same(device)
        if plugged is None or not plugged.device.configured:
            return False
        if allowed is not plugged.device.shut:
            return True
        if not allowed:
            plugged.claimer = None
            self._driverless(plugged)
        plugged.device = replace(plugged.device, shut=not allowed)
        return True

    def use(self, port: str, uses: frozenset[Use]) -> None:
        """Set what dom0 uses the device for (such as a mounted stick). No uevent reports it."""
        plugged = self._present[BusId(port)]
        plugged.device = replace(plugged.device, in_use=uses)

    def drive(self, controller: HostController, driver: str | None) -> None:
        """Bind another driver to the host controller: all its devices disappear or appear (xen-facts 5)."""
        was, controller.driver = controller.awake, driver
        if was and not controller.awake:
            mine = [p for p in self._present if self.sockets.of(p) is controller]
            self._asleep |= {p: self._present[p].device for p in mine}
            for port in [p for p in mine if parent(p) is None]:
                self._vanish(port)
        elif controller.awake and not was:
            for bus in controller.buses:
                self._next.pop(bus, None)
            for port in sorted((p for p in self._asleep if self.sockets.of(p) is controller), key=len):
                self._appear(replace(self._asleep.pop(port), number=0))

    def follow(self, devices: Mapping[BusId, Device]) -> None:
        """Follow a real bus: unplug devices that are gone, plug in new ones; the others keep their simulated state."""
        for port, here in list(self._present.items()):
            if port in self._present and (port not in devices or devices[port].key != here.device.key):
                self._vanish(port)
        for device in devices.values():
            self.sockets.learn(device)
            if device.port not in self._present and self.sockets.of(device.port).awake:
                self._appear(device, as_it_is=True)

    def _appear(self, device: Device, as_it_is: bool = False) -> Device:
        placed = device if as_it_is else self.sockets.placed(device)
        number = device.number or self._number(placed.bus)
        device_kinds = device.kinds or kinds(device.tag, [*device.interfaces, device.device_class], {})
        placed = replace(placed, number=number, kinds=device_kinds)
        placed = replace(placed, authorized=self.authorize_new, configured=False, shut=False, drivers=())
        self._present[placed.port] = Plugged(placed)
        self.emit("add", placed)
        if placed.authorized:
            later(self.times.interfaces, self._configure, placed)
        if placed.tag in self.deconfigured:
            later(self.times.rules, self._deconfigure, placed)
        return placed

    def _vanish(self, port: BusId) -> None:
        for below in [p for p in self._present if parent(p) == port]:
            self._vanish(below)
        gone = self._present.pop(port)
        self.emit("unbind", gone.device)
        self.emit("remove", gone.device)

    def _number(self, bus: int) -> int:
        """The next free device number: the root hub has 1, the count wraps at 127 (hub.c: choose_devnum)."""
        used = {d.number for d in self.devices().values() if d.bus == bus} | {1}
        start = self._next.get(bus, 2)
        order: list[int] = [*range(start, LAST_NUMBER + 1), *range(1, LAST_NUMBER + 1)]
        chosen = next(number for number in order if number not in used)
        self._next[bus] = chosen + 1
        return chosen

    def _configure(self, device: Device) -> None:
        plugged = self._same(device)
        if plugged is None or not plugged.device.authorized or plugged.device.configured:
            return
        driverless = tuple(None for _ in device.interfaces)
        plugged.device = replace(plugged.device, configured=True, shut=not self.open_new, drivers=driverless)
        self.emit("add", plugged.device)
        later(self.times.bind - self.times.interfaces, self._first_bind, plugged.device)

    def _deconfigure(self, device: Device) -> None:
        """A write of 0 to bConfigurationValue: the interfaces go, whoever has claimed them."""
        plugged = self._same(device)
        if plugged is not None and plugged.device.configured:
            plugged.claimer = None
            plugged.device = replace(plugged.device, configured=False, shut=False, drivers=())
            self.emit("unbind", plugged.device)

    def _first_bind(self, device: Device) -> None:
        """Interfaces that started deauthorised are not probed, even if they are authorised by now."""
        plugged = self._same(device)
        if plugged is None or not plugged.device.configured or any(plugged.device.drivers):
            return
        if not device.shut:
            self.probe(device)
        self.emit("bind", plugged.device)
