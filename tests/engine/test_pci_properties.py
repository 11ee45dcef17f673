"""Whatever happens to a host whose policy passes whole controllers through: once it is quiet, each controller is with
dom0 or a guest, and no protected device has left.

A hypothesis state machine plugs, pulls, starts, stops, reboots, kills the agent, lets xl fail and gives manual orders.
HYPOTHESIS_PROFILE=long searches long.
"""

from __future__ import annotations

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from tests.machine import Machine, test_case
from tests.simulated_agent import QUSB, SimulatedAgent

from xenplug.adapters.varlink import Refused
from xenplug.core.model import Bdf, GuestType, Speed
from xenplug.scenario.simulated_floor import LedgerInMemory
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.sockets import Bus, HostController
from xenplug.simulator.world import World

CONTROLLERS = (
    HostController(bdf=Bdf("0000:00:14.0"), buses={1: Bus(4), 2: Bus(2, Speed.SUPER)}),
    HostController(bdf=Bdf("0000:03:00.0"), buses={3: Bus(4)}),
)
GUESTS = (
    GuestConfig(name="kiosk", type=GuestType.PV, controllers=(QUSB,), passthrough=True),
    GuestConfig(name="win", type=GuestType.HVM, passthrough=True),
    GuestConfig(name="shut", type=GuestType.HVM),
)
NEVER = "046d:c31c"
"""The tag of what every policy protects."""
POLICIES = tuple(
    f'version: 1\nprotect: [{{device: "{NEVER}"}}]\nrules:\n{rules}'
    for rules in (
        "  - {match: {kind: video}, attach: [win, kiosk], via: pci, siblings: take}\n"
        "  - {match: {kind: mouse}, attach: kiosk}\n",
        "  - {match: {kind: video}, attach: kiosk, via: pci, siblings: same_guest}\n"
        "  - {match: {kind: mouse}, attach: kiosk, fallback: {via: pci, when: [refused, not_delivered]}}\n",
        "  - {match: {kind: video}, attach: shut, via: pci, siblings: take}\n"
        "  - {match: {kind: mouse}, attach: win, fallback: {via: pci, when: [unfit, refused], siblings: take}}\n",
        "  - {match: {kind: mouse}, attach: kiosk}\n",
    )
)
SPEEDS = {"mouse": "low", "video": "high", "keyboard": "low", "storage": "high"}

ports = st.sampled_from(["1-1", "1-2", "1-3", "3-1", "3-2"])
guests = st.sampled_from([config.name for config in GUESTS])
bdfs = st.sampled_from([str(controller.bdf) for controller in CONTROLLERS])


class Host(Machine):
    """A host with two controllers, its agent, and what should be true of them."""

    QUIET = 600.0

    def make_host(self) -> SimulatedAgent:
        simulated = SimulatedAgent(POLICIES[0])
        simulated.world = World(CONTROLLERS)
        simulated.ledger_store = LedgerInMemory(simulated.world)
        for config in GUESTS:
            simulated.world.add_guest(config, running=True)
        return simulated

    @rule(port=ports, kind=st.sampled_from(sorted(SPEEDS)), protected=st.booleans())
    def plug(self, port: str, kind: str, protected: bool) -> None:
        home = self.simulated.world.kernel.sockets.of(port)  # type: ignore[arg-type]
        if port in self.plugged or (protected and not home.awake):
            return  # a device plugged into a controller that left belongs to the guest, and is invisible in dom0
        tag = NEVER if protected else {"mouse": "046d:c016", "video": "2833:0182"}.get(kind, "0781:5567")
        self.plugged[port] = tag
        self.now(lambda: self.simulated.plug(port, tag, kind=kind, speed=SPEEDS[kind]))

    @rule(name=guests, how=st.sampled_from(["stop", "reboot", "destroy", "start", "start"]))
    def guest(self, name: str, how: str) -> None:
        found = self.simulated.world.guests.named(name)
        if (found.domid is None) is (how == "start") and not found.ending:
            self.now(getattr(self.simulated.world.guests, how), name)

    @rule(seconds=st.sampled_from([0.0, 0.2, 0.4, 0.7, 1.0, 1.5, 4.0, 12.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep, seconds)

    @rule(policy=st.sampled_from(POLICIES))
    def reload(self, policy: str) -> None:
        self.do(self.simulated.reload, policy)

    @rule(
        command=st.sampled_from(
            ["pci-assignable-add", "pci-attach", "pci-detach", "pci-assignable-remove", "usbdev-attach", "info"]
        ),
        how=st.sampled_from(["refused", "killed", "silent"]),
    )
    def fail(self, command: str, how: str) -> None:
        self.simulated.world.commands.failures.plan(command, 1, how)

    @rule(bdf=bdfs, verb=st.sampled_from(["detach", "release"]))
    def order(self, bdf: str, verb: str) -> None:
        self.do(self._order, bdf, verb)

    async def _order(self, bdf: str, verb: str) -> None:
        try:
            await self.ask(verb, bdf)
        except Refused as refused:
            assert refused.parameters["cause"] != "timeout" or self.simulated.world.commands.failures

    @invariant()
    def nothing_protected_left(self) -> None:
        kernel = self.simulated.world.kernel
        away = {p for p, tag in self.plugged.items() if tag == NEVER and not kernel.sockets.of(p).awake}  # type: ignore[arg-type]
        assert away == set()

    def judge(self) -> None:
        world = self.simulated.world
        book = self.simulated.agent.reconciler.ledger.pci.passed
        for controller in world.kernel.sockets.controllers:
            holders = [guest.name for guest in world.guests if controller.bdf in guest.pci]
            if controller.awake:
                assert (holders, controller.bdf in book) == ([], False)
            else:
                [name] = holders
                assert name != "shut"
                assert world.guests.named(name).domid is not None
                assert controller.bdf in book
        seen = {port for port, _ in self.plugged.items() if world.kernel.sockets.of(port).awake}  # type: ignore[arg-type]
        shown = {d["port"] for d in self.simulated.agent.service.devices() if d["state"] != "pci"}
        assert shown == seen


TestHost = test_case(Host)
