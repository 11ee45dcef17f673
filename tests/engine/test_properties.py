"""Whatever happens to a host, in whatever order: once it is quiet, every device is where it belongs.

A hypothesis state machine does to a simulated host what users, guests and tools do: plug, pull, reboot, pause, kill,
give manual orders, reload, fail. The test computes independently where each device belongs, from the rules as a person
reads them. HYPOTHESIS_PROFILE=long searches long.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from tests.machine import Machine, test_case
from tests.simulated_agent import DESK, KIOSK, WIN, SimulatedAgent

from xenplug.adapters.varlink import Refused
from xenplug.core.model import BusId, Device
from xenplug.simulator import vusb
from xenplug.simulator.qusb import NO_DEVICE

FIRST = """version: 1
guests: {desk: {when_empty: remove}}
protect: [{port: 1-5}]
rules:
  - {match: {kind: mouse}, attach: kiosk}
  - {match: {kind: storage}, attach: [win, desk]}
  - {match: {kind: keyboard}, attach: [desk, kiosk]}
  - {match: {kind: printer}, action: block}
"""
SECOND = """version: 1
protect: [{port: 1-5}]
rules:
  - {match: {kind: mouse}, attach: [win, kiosk]}
  - {match: {kind: storage}, attach: kiosk}
  - {match: {kind: keyboard}, action: host}
  - {match: {kind: printer}, attach: win}
"""
ORDER: dict[str, dict[str, tuple[str, ...]]] = {
    FIRST: {"mouse": ("kiosk",), "storage": ("win", "desk"), "keyboard": ("desk", "kiosk")},
    SECOND: {"mouse": ("win", "kiosk"), "storage": ("kiosk",), "printer": ("win",)},
}
"""The same, as the oracle reads it. `serial` has no rule anywhere."""
FOLLOWS = {"mouse", "keyboard"}
"""Kinds that go to the first guest of a list as soon as it runs."""
KINDS = {"mouse": "low", "keyboard": "low", "storage": "high", "printer": "high", "serial": "full"}
PROTECTED = "1-5"
CONTROLLERS = {"kiosk": 2, "desk": 2, "win": 1}
"""Maximum: those of its config, and one that the agent may create."""
NOT_NOTED = {
    "no_device",
    "protected",
    "foreign",
    "guest_stopped",
    "guest_starting",
    "guest_stopping",
    "guest_paused",
    "guest_suspended",
}
"""Refusals of orders that had no effect; all others were noted and are tried again."""
FAILURES = 5
"""Fewer than the attempts after which a device is given up."""

ports = st.sampled_from(["1-1", "1-2", "1-3", "1-4", PROTECTED])
guests = st.sampled_from(["kiosk", "desk", "win"])


@dataclass(slots=True)
class Plugged:
    """A device as the oracle knows it."""

    kind: str
    hand: tuple[str, str | None] | None = None
    """What a person ordered: attach and a guest, or detach."""
    back: str | None = None
    """The guest it was with when it was ordered to another."""
    foreign: tuple[str, int] | None = None
    """The guest (and its domid) to which someone at the console attached it."""


class Host(Machine):
    """A host, its agent, and what should be true of them."""

    def __init__(self) -> None:
        self.failures = 0
        self.preferred: str | None = None
        self.lost_xenstore = False
        self.policy = FIRST
        super().__init__()

    def make_host(self) -> SimulatedAgent:
        return SimulatedAgent(FIRST, KIOSK, DESK, WIN)

    def _device(self, port: str) -> Device | None:
        return self.simulated.world.kernel.device(BusId(port))

    def watch(self) -> None:
        super().watch()
        kept = self._device(PROTECTED)
        if kept and self.simulated.world.holders(kept):
            self.wrong.append(f"the protected device is in the hands of {self.simulated.world.holders(kept)}")
        for guest in self.simulated.world.guests:
            if guest.model and NO_DEVICE in guest.model.log:
                self.wrong.append(f"the device model of {guest.name} ended by a detach")

    def _runs(self, name: str) -> bool:
        found = self.simulated.world.guests.named(name)
        return found.domid is not None and not found.ending

    # what happens

    @rule(port=ports, kind=st.sampled_from(sorted(KINDS)))
    def plug(self, port: str, kind: str) -> None:
        if port not in self.plugged:
            self.plugged[port] = Plugged(kind)
            self.now(lambda: self.simulated.plug(port, kind=kind, speed=KINDS[kind]))

    @precondition(lambda self: self.plugged)
    @rule(data=st.data())
    def reenumerate(self, data: st.DataObject) -> None:
        port = data.draw(st.sampled_from(sorted(self.plugged)))
        self.plugged[port] = Plugged(self.plugged[port].kind)
        self.now(self.simulated.world.kernel.reenumerate, port)

    @rule(name=guests, how=st.sampled_from(["stop", "reboot", "destroy", "start", "pause", "unpause"]))
    def guest(self, name: str, how: str) -> None:
        found = self.simulated.world.guests.named(name)
        if (found.domid is None) is (how == "start") and not found.ending:
            self.now(getattr(self.simulated.world.guests, how), name)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.2, 0.3, 0.31, 0.7, 1.5, 4.0, 12.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep, seconds)

    @rule(what=st.sampled_from(["udev", "xenstore"]))
    def lose(self, what: str) -> None:
        self.lost_xenstore |= what == "xenstore"
        self.now(self.simulated.world.bus.lose if what == "udev" else self.simulated.world.store.lose)

    @rule(policy=st.sampled_from([FIRST, SECOND, "version: 1\nrules: [{match: {}}]"]))
    def reload(self, policy: str) -> None:
        self.do(self.simulated.reload, policy)
        if policy in ORDER:
            self.policy = policy
        self.simulated.policy = self.policy

    @precondition(lambda self: self.failures < FAILURES)
    @rule(
        command=st.sampled_from(["usbdev-attach", "usbdev-detach", "usbctrl-attach"]),
        how=st.sampled_from(["refused", "killed", "silent", "grab"]),
    )
    def fail(self, command: str, how: str) -> None:
        self.failures += 1
        self.simulated.world.commands.failures.plan(command, 1, how)

    @precondition(lambda self: self.plugged)
    @rule(data=st.data(), guest=guests, verb=st.sampled_from(["attach", "detach", "release"]))
    def order(self, data: st.DataObject, guest: str, verb: str) -> None:
        port = data.draw(st.sampled_from(sorted(self.plugged)))
        self.do(self._order, port, guest, verb)

    @precondition(lambda self: self.plugged)
    @rule(data=st.data(), guest=guests, seconds=st.sampled_from([0.0, 0.5, 2.0]))
    def change_of_mind(self, data: st.DataObject, guest: str, seconds: float) -> None:
        """Attached by hand and detached while the guest may still be setting it up."""
        port = data.draw(st.sampled_from(sorted(self.plugged)))
        self.do(self._order, port, guest, "attach")
        self.do(asyncio.sleep, seconds)
        self.do(self._order, port, guest, "detach")

    async def _order(self, port: str, guest: str, verb: str) -> None:
        await self.opened()
        known, here = self.plugged[port], self._device(port)
        was = self.simulated.device_json(port).get("guest")
        while not here or self.simulated.device_json(port).get("address") != here.address:
            await asyncio.sleep(0.5)  # events are lost: the order would be for the device that was there before
        try:
            await self.ask(verb, port, *([guest] if verb == "attach" else []))
        except Refused as refused:
            if refused.parameters["cause"] in NOT_NOTED:
                return
        if not known.foreign:
            known.hand = None if verb == "release" else (verb, guest if verb == "attach" else None)
            known.back = was

    @rule(scope=st.sampled_from(["all", "kiosk", "desk"]), verb=st.sampled_from(["pause", "resume"]))
    def leave(self, scope: str, verb: str) -> None:
        """Paused devices are left alone; in the end nothing is paused."""
        self._say(verb, scope)

    @rule(guest=st.none() | st.sampled_from(["desk", "kiosk"]))
    def prefer(self, guest: str | None) -> None:
        if self._say("prefer", guest):
            self.preferred = guest

    def _say(self, verb: str, guest: str | None) -> bool:
        """False: refused, because no such guest runs or is in the policy in force."""
        try:
            self.do(self.ask, verb, guest)
        except Refused as refused:
            assert refused.parameters["cause"] in ("no_guest", "no_device")
            assert guest not in ("all", None) and guest not in self.simulated.policy
            return False
        return True

    @rule(seconds=st.sampled_from([60.0, 3600.0]))
    def suspend(self, seconds: float) -> None:
        for port, known in self.plugged.items():
            self.plugged[port] = Plugged(known.kind)
        self.now(self.simulated.world.suspend, seconds)

    @precondition(lambda self: self.plugged)
    @rule(data=st.data(), name=guests)
    def console(self, data: st.DataObject, name: str) -> None:
        """Someone attaches a device that no rule names to a guest, or detaches one, while nothing else happens."""
        port = data.draw(st.sampled_from(sorted(self.plugged)))
        self.do(self._console, port, name)

    async def _console(self, port: str, name: str) -> None:
        await asyncio.sleep(120)
        view, known = self.simulated.device_json(port), self.plugged[port]
        if not self._idle() or not view or port == PROTECTED:
            return
        if view["guest"]:
            if known.foreign:
                return
            found = self.simulated.world.guests.named(view["guest"])
            words = ["usbdev-detach", str(found.domid), str(view["guest_controller"]), str(view["guest_port"])]
            if (await self.simulated.world.commands.console(words)).ok:
                known.hand = ("detach", None)
                await asyncio.sleep(40)  # else the end of its domain would explain it
        elif known.kind == "serial" and not known.hand and self._runs(name) and name != "win":
            here = self._device(port)
            assert here
            words = ["usbdev-attach", name, f"hostbus={here.bus}", f"hostaddr={here.number}"]
            if (await self.simulated.world.commands.console(words)).ok:
                known.foreign = name, self.simulated.world.guests.named(name).domid or 0
                await asyncio.sleep(
                    1
                )  # which device was attached is known only if it was observed before the next one appeared

    def _idle(self) -> bool:
        """Whether nothing runs, nothing will be tried again, and no guest is paused."""
        ledger = self.simulated.agent.reconciler.ledger
        states = {d["state"] for d in self.simulated.agent.service.devices()}
        paused = any(g.paused for g in self.simulated.world.guests)
        busy = states & {"failing", "attaching"} or any(e.intent for e in ledger.entries.values())
        return not paused and not busy

    # invariants

    @invariant()
    def not_too_many_controllers(self) -> None:
        tree = self.simulated.world.tree
        for found in self.simulated.world.guests.domains():
            assert len(vusb.all_of(tree, found.domid or 0)) <= CONTROLLERS[found.name], found.name

    async def end(self) -> None:
        for found in self.simulated.world.guests:
            if found.paused:
                self.simulated.world.guests.unpause(found.name)
        await self.simulated.agent.service.resume("all")
        await super().end()

    def judge(self) -> None:
        where = {port: self._belongs(port, known) for port, known in self.plugged.items()}
        for port, allowed in where.items():
            has = {name for name in ("kiosk", "desk", "win") if port in self.simulated.devices_of(name)}
            view = self.simulated.device_json(port)
            if self.lost_xenstore and view["cause"] == "taken":
                continue  # lost because another port was not cleared in time, before it was seen in use
            assert has == (set() if view["guest"] is None else {view["guest"]}), (port, has, view)
            assert (has or {None}) <= allowed, (port, self.plugged[port], has, allowed, view)
            expected = "attached" if has and not self.plugged[port].foreign else None
            assert expected in (None, view["state"]), view
        assert set().union(*(self.simulated.devices_of(name) for name in ("kiosk", "desk", "win"))) <= set(where)
        assert {d["port"] for d in self.simulated.agent.service.devices()} == set(where)

    def _belongs(self, port: str, known: Plugged) -> set[str | None]:
        """The guests that may have it now; None: it must be with the host."""
        if port == PROTECTED:
            return {None}
        if known.foreign:
            name, domid = known.foreign
            found = self.simulated.world.guests.named(name)
            return {name} if found.domid == domid else {None}
        if known.hand:
            action, guest = known.hand
            # A move that failed is undone.
            back = {known.back} if self.failures and known.back and self._runs(known.back) else set()
            return {guest, *back} if action == "attach" and guest and self._runs(guest) else {None}
        running = [name for name in ORDER[self.policy].get(known.kind, ()) if self._runs(name)]
        if not running:
            return {None}
        if self.failures:
            return set(running)  # the same
        if self.preferred in running:
            return {self.preferred}
        return {running[0]} if known.kind in FOLLOWS else set(running)


TestHost = test_case(Host)
