"""`xenplug run --toolstack simulated`: the agent on this host's real devices and simulated guests.

The simulated host follows the real bus (or a recording) event by event; every write (xenstore, authorized, drivers)
goes to the simulator. So a policy can be tried on a laptop without Xen: unplug the mouse and see what would happen.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from xenplug.core.documents.document import parse, plain, schema, validate
from xenplug.core.model import ControllerType, GuestType
from xenplug.core.policy.load import Loaded
from xenplug.core.policy.rules import ControllerSpec, Policy
from xenplug.core.protocols import UsbBus
from xenplug.service.bootstrap import Backends, HostClock
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.overlay import OverlayBus
from xenplug.simulator.world import World

log = logging.getLogger("xenplug")

DEFAULT_CONTROLLER = ControllerSpec(ControllerType.QUSB, 2, 8)


class SimulatedGuest(NamedTuple):
    """A guest, and whether it runs."""

    config: GuestConfig
    running: bool = True


class SimulatedHost:
    """The simulated host, which follows `bus`. `guests`: its guests; None: those that the policy names, all running."""

    def __init__(self, bus: UsbBus, guests: list[SimulatedGuest] | None) -> None:
        self._world = World()
        self._bus = OverlayBus(self._world.kernel, bus)
        self._by_policy = guests is None
        self._known: set[str] = set()
        self._start(guests or [])

    def backends(self, clock: HostClock) -> Backends:
        """The agent's backends."""
        world = self._world
        return Backends(self._bus, world.store, world.commands, world.domains, clock)

    def start_named_guests(self, loaded: Loaded) -> Loaded:
        """Start the guests that this policy names and that do not run yet."""
        if self._by_policy and loaded.policy:
            self._start([SimulatedGuest(config) for config in guests_of(loaded.policy)])
        return loaded

    def _start(self, guests: list[SimulatedGuest]) -> None:
        new = [guest for guest in guests if guest.config.name not in self._known]
        for guest in new:
            self._world.add_guest(guest.config, guest.running)
        self._known |= {guest.config.name for guest in new}
        if new:
            names = ", ".join(guest.config.name for guest in new if guest.running) or "none"
            log.info("running simulated guests: %s; nothing on this host is changed", names)


def guests_of(policy: Policy) -> list[GuestConfig]:
    """The guests a policy names: pv guests with a qusb controller, hvm guests if the policy's controller type is
    devicemodel.
    """
    names = dict.fromkeys([*policy.guests, *(g for rule in policy.rules for g in rule.guests)])
    return [_guest(name, policy) for name in names]


def _guest(name: str, policy: Policy) -> GuestConfig:
    asked = policy.guests.get(name)
    spec = asked.controller if asked else None
    if spec and spec.type is ControllerType.DEVICEMODEL:
        return GuestConfig(name=name, type=GuestType.HVM)
    return GuestConfig(name=name, type=GuestType.PV, controllers=(DEFAULT_CONTROLLER,))


def read_guests(text: bytes, name: str) -> list[SimulatedGuest]:
    """The guests in a file in the format of a scenario's `guests:`. Raises ValueError with all problems."""
    from xenplug.scenario.format import guest_problems, guest_specs
    from xenplug.scenario.simulated_floor import guest_config

    node, problems = parse(text, name)
    if node is not None and not problems:
        form: dict[str, Any] = dict(schema("scenario")["properties"]["guests"])
        form["$defs"] = schema("scenario")["$defs"]
        problems = validate(node, form, name) or guest_problems(node, name)
    if node is None or problems:
        raise ValueError("\n".join(map(str, problems)))
    specs = guest_specs(plain(node))
    return [SimulatedGuest(guest_config(name, spec), spec.running) for name, spec in specs.items()]
