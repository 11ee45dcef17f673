"""A whole simulated host: built from plain values, changed by a scenario's verbs, used by the agent through
core/protocols.

store, commands, bus, domains and clock are for the reconciler. kernel and guests are for scenarios, to change the host.
guest_sees and holders show the true state, whatever xenstore says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from xenplug.core.model import BusId, Device
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.guests import Guests
from xenplug.simulator.kernel import Kernel
from xenplug.simulator.loop import LoopClock, later
from xenplug.simulator.sockets import HostController
from xenplug.simulator.store import SimStore, StoreTree
from xenplug.simulator.times import SimulatedTimes
from xenplug.simulator.toolstack import HostFacts, SimulatedToolstack
from xenplug.simulator.usb import SimBus
from xenplug.simulator.xl import SimXl
from xenplug.simulator.xl_usbdev import host_busids


class SimDomains:
    """Domains (core/protocols)."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests
        self.ended: Callable[[], None] = lambda: None
        guests.model_ended = self._later

    def _later(self) -> None:
        later(0.0, lambda: self.ended())

    def ready(self, domid: int, uuid: str) -> bool:
        guest = self._guests.of(domid)
        return guest is not None and guest.ready and guest.uuid == uuid

    def lives(self, pid: int) -> bool:
        return any(guest.model is not None and guest.model.alive and guest.model.pid == pid for guest in self._guests)

    def held(self, pid: int) -> frozenset[tuple[int, int]]:
        kernel = self._guests.kernel
        return frozenset((d.bus, d.number) for d in kernel.devices().values() if pid in kernel.holders(d))


class World:
    """The simulated host. Create and use it within a running loop."""

    def __init__(
        self,
        controllers: Iterable[HostController] = (),
        facts: HostFacts | None = None,
        times: SimulatedTimes | None = None,
    ) -> None:
        self.tree = StoreTree()
        self.kernel = Kernel([replace(controller) for controller in controllers], times)
        self.guests = Guests(self.tree, self.kernel)
        self.store = SimStore(self.tree)
        self.commands = SimXl(self.guests, facts or HostFacts())
        self.bus = SimBus(self.kernel)
        self.domains = SimDomains(self.guests)
        self.clock = LoopClock()

    def add_guest(self, config: GuestConfig, running: bool = False) -> None:
        """Add a guest; `running`: it is up already, with its frontends connected."""
        self.guests.define(config)
        if running:
            self.guests.start(config.name, at_once=True)

    def suspend(self, seconds: float) -> None:
        """Suspend and resume the host: monotonic time stops, and every device returns with a new address."""
        self.clock.suspend(seconds)
        for port, device in sorted(self.kernel.devices().items()):
            if not (device.hub or device.partly_hub):
                self.kernel.reenumerate(port)

    def guest_sees(self, name: str) -> tuple[Device, ...]:
        """The devices that the guest really has: its device model has claimed them and the guest sees them."""
        guest = self.guests.named(name)
        return guest.serving.sees() if guest.serving else ()

    def holders(self, device: Device) -> frozenset[str]:
        """The guests whose device model has the device's node open."""
        pids = self.kernel.holders(device)
        return frozenset(guest.name for guest in self.guests if guest.model and guest.model.pid in pids)

    def stale_ports(self) -> list[BusId]:
        """Busids on guest ports of living domains whose device is gone."""
        return [busid for busid in host_busids(SimulatedToolstack(self.guests)) if self.kernel.device(busid) is None]
