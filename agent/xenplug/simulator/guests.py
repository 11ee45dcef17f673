"""Guests and their domains: how they start, run, reboot and end, and what libxl writes to xenstore for them.

In libxl's order: name, vm and type first; then the domain is introduced, its device model started, its controllers
made; libxl-json last (xen-facts 2.8). A new domid at every start, never an old one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

from xenplug.core.model import Bdf, ControllerType
from xenplug.core.policy.rules import ControllerSpec
from xenplug.simulator import vusb
from xenplug.simulator.domain import GuestConfig, SimGuest
from xenplug.simulator.emulated import QemuMonitor
from xenplug.simulator.kernel import Kernel
from xenplug.simulator.loop import later
from xenplug.simulator.pci_backend import write_pci
from xenplug.simulator.qemu import DeviceModel
from xenplug.simulator.qusb import QusbBackend
from xenplug.simulator.store import StoreTree

FIRST_PID = 4000
SUSPENDED = "s"
"""The shutdown reason of a suspended domain in `xl list`."""


class Guests:
    """All guests of the host. Raises ValueError for a mistake in a scenario (unknown guest, started twice)."""

    def __init__(self, tree: StoreTree, kernel: Kernel) -> None:
        self.tree = tree
        self.kernel = kernel
        self.times = kernel.times
        self._by_name: dict[str, SimGuest] = {}
        self._last_domid = 0
        self._last_pid = FIRST_PID
        self.model_ended: Callable[[], None] = lambda: None
        """Called when a device model's process ends."""
        tree.write("/local/domain/0/name", "Domain-0")
        tree.write("/local/domain/0/domid", "0")

    def define(self, config: GuestConfig) -> SimGuest:
        """Define the guest; it does not run yet."""
        if config.name in self._by_name:
            raise ValueError(f"guest {config.name}: defined twice")
        made = SimGuest(config, str(uuid.uuid5(uuid.NAMESPACE_DNS, config.name)), config.has_frontend)
        self._by_name[config.name] = made
        return made

    def __iter__(self) -> Iterator[SimGuest]:
        return iter(self._by_name.values())

    def named(self, name: str) -> SimGuest:
        if name not in self._by_name:
            raise ValueError(f"guest {name}: no such guest")
        return self._by_name[name]

    def of(self, domid: int) -> SimGuest | None:
        """The guest whose domain this is now."""
        return next((guest for guest in self if guest.domid == domid), None)

    def domains(self) -> list[SimGuest]:
        """Those that have a domain, by domid."""
        return sorted((guest for guest in self if guest.domid is not None), key=lambda guest: guest.domid or 0)

    # what happens to a guest

    def start(self, name: str, at_once: bool = False) -> None:
        """Create the domain from the guest's config. `at_once`: it is up already (a scenario's first state)."""
        guest = self.named(name)
        guest.saved = dict(enumerate(guest.config.controllers))
        self._create(guest, at_once)

    def stop(self, name: str) -> None:
        """The guest shuts itself down."""
        self._shut_down(self._running(name), "-")

    def reboot(self, name: str) -> None:
        """The guest reboots itself: xl's monitor ends the domain and creates the next one, 3 s from gone to back."""
        self._shut_down(self._running(name), "r")

    def destroy(self, name: str) -> None:
        """End the domain at once, and its device model a moment later (xen-facts 2.7)."""
        guest = self._running(name)
        domid, model = guest.domid, guest.serving
        assert domid is not None  # noqa: S101 - _running checked it
        if model:
            model.quit()
        for controller in vusb.all_of(self.tree, domid):
            if not self._is_stale(controller):  # else libxl cannot remove it and leaves the backend behind
                vusb.remove(self.tree, controller)
        for path in (f"/local/domain/{domid}", f"/libxl/{domid}", f"/local/domain/0/device-model/{domid}"):
            self.tree.remove(path)
        self.tree.remove(f"/local/domain/0/backend/pci/{domid}")
        self._forget(guest)
        self.tree.release(domid)

    def pause(self, name: str) -> None:
        self._running(name).paused = True

    def unpause(self, name: str) -> None:
        guest = self._running(name)
        guest.paused = False
        self._wake(guest)

    def suspend(self, name: str) -> None:
        """xl suspend (Xen 4.20): the domain has shut down with the reason suspend; its device model runs on."""
        self._running(name).ending = SUSPENDED
        self.tree.shut_down()

    def resume(self, name: str) -> None:
        """xl resume; no event reports it."""
        guest = self._running(name)
        if guest.ending == SUSPENDED:
            guest.ending = ""
            self._wake(guest)

    def frontend(self, name: str, connected: bool) -> None:
        """The guest's system loads (or unloads) its PVUSB driver."""
        guest = self.named(name)
        guest.driver = connected
        if connected:
            self._wake(guest)
            return
        for controller in sorted(guest.connected):
            self._write_states(guest, controller, frontend="1", backend="2")
        guest.connected.clear()

    def device_model(self, name: str, alive: bool) -> None:
        """Kill the guest's qemu, or start it again."""
        guest = self._running(name)
        if alive and not guest.serving:
            self._start_model(guest)
        elif not alive and guest.serving:
            guest.serving.kill()

    # start of a domain

    def _create(self, guest: SimGuest, at_once: bool = False) -> None:
        if guest.domid is not None:
            raise ValueError(f"guest {guest.name}: already running")
        self._last_domid += 1
        domid = guest.domid = self._last_domid
        self._name(guest, domid)
        steps = (self._introduce, self._start_model, self._make_controllers, self._finish)
        if at_once:
            for step in (*steps, self._boot, self._connect_all):
                step(guest)
            return
        for count, step in enumerate(steps, start=1):
            later(self.times.create * count / len(steps), self._if_same, guest, domid, step)
        later(max(guest.config.boots_in, self.times.create), self._if_same, guest, domid, self._boot)

    def _if_same(self, guest: SimGuest, domid: int, step: Callable[[SimGuest], None]) -> None:
        if guest.domid == domid:
            step(guest)

    def _name(self, guest: SimGuest, domid: int) -> None:
        self.tree.write(f"/vm/{guest.uuid}/name", guest.name)
        self.tree.write(f"/vm/{guest.uuid}/uuid", guest.uuid)
        self.tree.write(f"/libxl/{domid}/type", guest.config.type.value)
        self.tree.write(f"/local/domain/{domid}/vm", f"/vm/{guest.uuid}")
        self.tree.write(f"/local/domain/{domid}/domid", str(domid))
        self.tree.write(f"/local/domain/{domid}/name", guest.name)

    def _introduce(self, guest: SimGuest) -> None:
        self.tree.introduce(guest.domid or 0)

    def _start_model(self, guest: SimGuest) -> None:
        if not guest.config.has_device_model or guest.domid is None:
            return
        self._last_pid += 1
        guest.model = DeviceModel(self.kernel, guest, self._last_pid)
        guest.model.ended = lambda: self.model_ended()
        guest.monitor = QemuMonitor(guest.model)
        self.tree.write(f"/local/domain/{guest.domid}/image/device-model-pid", str(self._last_pid))
        self.tree.write(f"/local/domain/0/device-model/{guest.domid}/state", "running")
        guest.qusb = QusbBackend(guest.model, self.tree, guest.domid, lambda c: self._connect_later(guest, c))

    def _make_controllers(self, guest: SimGuest) -> None:
        for id_, spec in guest.saved.items():
            vusb.write(self.tree, guest.domid or 0, id_, spec)
            if spec.type is ControllerType.DEVICEMODEL and guest.monitor:
                guest.monitor.add_controller(f"xenusb-{id_}", spec)
        write_pci(self.tree, guest.domid or 0, guest.pci)

    def _finish(self, guest: SimGuest) -> None:
        guest.ready = True

    def _boot(self, guest: SimGuest) -> None:
        guest.up = True
        self._wake(guest)

    # its frontends

    def _connect_all(self, guest: SimGuest) -> None:
        for controller in vusb.all_of(self.tree, guest.domid or 0):
            if controller.type is ControllerType.QUSB and guest.serving:
                self.tree.write(f"{controller.backend}/state", "2")
                self._connect(guest, guest.domid, controller.id)

    def _wake(self, guest: SimGuest) -> None:
        """The guest's system connects to the controllers that wait for it."""
        for controller in vusb.all_of(self.tree, guest.domid or 0):
            if self.tree.read(f"{controller.backend}/state") == "2":
                self._connect_later(guest, controller.id)
        if guest.serving:
            guest.serving.refresh()

    def _connect_later(self, guest: SimGuest, controller: int) -> None:
        later(self.times.connect, self._connect, guest, guest.domid, controller)

    def _connect(self, guest: SimGuest, domid: int | None, controller: int) -> None:
        found = vusb.read(self.tree, domid or 0, controller)
        able = guest.driver and guest.up and not guest.paused and not guest.ending and guest.serving
        if guest.domid != domid or found is None or not able or controller in guest.connected:
            return
        guest.connected.add(controller)
        self._write_states(guest, controller, frontend=vusb.XENBUS_CONNECTED, backend=vusb.XENBUS_CONNECTED)
        if guest.serving:
            guest.serving.refresh()

    def _write_states(self, guest: SimGuest, controller: int, *, frontend: str, backend: str) -> None:
        found = vusb.read(self.tree, guest.domid or 0, controller)
        if found:
            self.tree.write(f"{found.frontend}/state", frontend)
            self.tree.write(f"{found.backend}/state", backend)

    # end of a domain

    def _running(self, name: str) -> SimGuest:
        guest = self.named(name)
        if guest.domid is None:
            raise ValueError(f"guest {name}: not running")
        return guest

    def _shut_down(self, guest: SimGuest, reason: str) -> None:
        guest.ending = reason
        self.tree.shut_down()
        if reason == "-" and guest.config.kept:
            return
        later(self.times.shutdown, self._end, guest, guest.domid)

    def _end(self, guest: SimGuest, domid: int | None) -> None:
        """libxl empties the ports before it removes the domain (xen-facts 2.7)."""
        if domid is None or guest.domid != domid:
            return
        for controller in vusb.all_of(self.tree, domid):
            if controller.type is not ControllerType.DEVICEMODEL and not self._is_stale(controller):
                vusb.empty(self.tree, controller)
        later(self.times.undress, self._gone, guest, domid)

    def _gone(self, guest: SimGuest, domid: int) -> None:
        if guest.domid != domid:
            return
        again, saved, pci = guest.ending == "r", dict(guest.saved), list(guest.pci)
        self.destroy(guest.name)
        if again:
            later(self.times.reboot_sleep, self._recreate, guest, saved, pci)

    def _recreate(self, guest: SimGuest, saved: dict[int, ControllerSpec], pci: list[Bdf]) -> None:
        """A reboot brings controllers and PCI devices back, but no hot-plugged USB devices (xen-facts T11)."""
        if guest.domid is None:
            guest.saved, guest.pci = saved, pci
            self._create(guest)

    def _forget(self, guest: SimGuest) -> None:
        fresh = SimGuest(guest.config, guest.uuid, guest.driver)
        for name in fresh.__slots__:
            setattr(guest, name, getattr(fresh, name))

    def _is_stale(self, controller: vusb.Vusb) -> bool:
        values = (self.tree.read(controller.port(port)) for port in range(1, controller.ports + 1))
        return any(value and self.kernel.device(value) is None for value in values)
