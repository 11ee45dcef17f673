"""A whole simulated host: made from plain values, moved by a scenario's verbs, seen by the agent through the faces.

store, commands, bus, domains and clock are what the reconciler gets; kernel and guests are what the outside world does
to the host; guest_sees and holders tell what is really so, whatever xenstore says.
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
    """faces.Domains."""

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
    """The simulated host. Make and use it within a running loop."""

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
        """A guest of the host; `running`: it has been up since long, its frontends connected."""
        self.guests.define(config)
        if running:
            self.guests.start(config.name, at_once=True)

    def suspend(self, seconds: float) -> None:
        """The host sleeps and wakes: monotonic time stood still, and every device comes back with a new address."""
        self.clock.suspend(seconds)
        for port, device in sorted(self.kernel.devices().items()):
            if not (device.hub or device.partly_hub):
                self.kernel.reenumerate(port)

    def guest_sees(self, name: str) -> tuple[Device, ...]:
        """The devices the guest really has: its device model has claimed them and the guest knows."""
        guest = self.guests.named(name)
        return guest.serving.sees() if guest.serving else ()

    def holders(self, device: Device) -> frozenset[str]:
        """The guests whose device model holds the device's node open."""
        pids = self.kernel.holders(device)
        return frozenset(guest.name for guest in self.guests if guest.model and guest.model.pid in pids)

    def stale_ports(self) -> list[BusId]:
        """Busids on guest ports of living domains whose device is gone."""
        return [busid for busid in host_busids(SimulatedToolstack(self.guests)) if self.kernel.device(busid) is None]
