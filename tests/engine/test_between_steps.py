"""The agent is killed before and after each change of the host, and started again: the result is the same."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.simulated_agent import BOTH, DESK, KIOSK, MICE, WIN, SimulatedAgent, run, settle

from xenplug.core.model import Bdf, GuestType
from xenplug.service.bootstrap import Backends
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.sockets import Bus, HostController

EFFECTS = {"run", "replace", "write", "remove", "authorize", "interfaces", "probe", "rebind"}
"""The methods of the backends that change the host."""


class Counted:
    """A backend that stops for good before, or after, the n-th effect on its host."""

    def __init__(self, face: Any, gate: Callable[[], Awaitable[None]]) -> None:
        self._face, self._gate = face, gate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._face, name)
        if name not in EFFECTS or not inspect.iscoroutinefunction(found):
            return found

        async def counted(*args: Any, **more: Any) -> Any:
            await self._gate()
            result = await found(*args, **more)
            await self._gate()
            return result

        return counted

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._face, name, value)


class Stopping(SimulatedAgent):
    """A simulated host whose agent stops at the n-th gate since `armed`."""

    armed: int | None = None
    stopped: asyncio.Event

    async def gate(self) -> None:
        if self.armed is None:
            return
        self.armed -= 1
        if self.armed < 0:
            self.stopped.set()
            await asyncio.Event().wait()

    def backends(self) -> Backends:
        self.stopped = asyncio.Event()
        usual = super().backends()
        counted: dict[str, Any] = {
            name: Counted(getattr(usual, name), self.gate) for name in ("bus", "store", "commands")
        }
        return replace(usual, **counted)


async def first_plug(simulated: SimulatedAgent) -> None:
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")


async def move(simulated: SimulatedAgent) -> None:
    simulated.reload_soon(MICE.replace("attach: kiosk", "attach: desk"))


async def pull_and_replug(simulated: SimulatedAgent) -> None:
    simulated.pull("1-1")
    simulated.pull("1-2")
    simulated.plug("1-2", "0781:5568", kind="storage", speed="high")


async def reboot(simulated: SimulatedAgent) -> None:
    simulated.world.guests.reboot("win")
    simulated.world.guests.reboot("kiosk")


async def block(simulated: SimulatedAgent) -> None:
    simulated.reload_soon(BOTH.replace("attach: kiosk", "action: block"))


STORIES: dict[str, tuple[Callable[[SimulatedAgent], Awaitable[None]], bool, dict[str, set[str]]]] = {
    "first plug": (first_plug, False, {"kiosk": {"1-1"}, "win": {"1-2"}, "desk": set()}),
    "move": (move, True, {"kiosk": set(), "win": set(), "desk": {"1-1"}}),
    "pull": (pull_and_replug, True, {"kiosk": set(), "win": {"1-2"}, "desk": set()}),
    "reboot": (reboot, True, {"kiosk": {"1-1"}, "win": {"1-2"}, "desk": set()}),
    "block": (block, True, {"kiosk": set(), "win": {"1-2"}, "desk": set()}),
}
"""The event; whether mouse and stick are with their guests before; which guest sees which device in the end."""


async def killed(simulated: Stopping, gate: int, happens: Callable[[SimulatedAgent], Awaitable[None]]) -> bool:
    """Kill the agent at that gate and start it again; False if the test ended before."""
    simulated.armed = gate
    await happens(simulated)
    try:
        async with asyncio.timeout(60):
            await simulated.stopped.wait()
    except TimeoutError:
        await simulated.kill()
        return False
    simulated.armed = None
    await simulated.kill()
    await asyncio.sleep(3)
    await simulated.start()
    await settle(simulated, 70)
    return True


async def killed_at(story: str, gate: int) -> list[str] | None:
    """What is wrong in the end; None if the test ended before that gate."""
    happens, plugged, expected = STORIES[story]
    simulated = Stopping(BOTH, KIOSK, DESK, WIN)
    await simulated.start()
    if plugged:
        await first_plug(simulated)
    await settle(simulated)
    if not await killed(simulated, gate, happens):
        return None
    seen = {name: simulated.devices_of(name) for name in expected}
    ledger = simulated.agent.reconciler.ledger
    wrong = [f"killed at gate {gate}: {seen}"] if seen != expected else []
    wrong += (
        [f"killed at gate {gate}: taken for somebody's order: {ledger.orders.overrides}"]
        if ledger.orders.overrides
        else []
    )
    made = {domid: record.controllers_made for domid, record in ledger.domains.items()}
    if sum(map(len, made.values())) > 1:
        wrong.append(f"killed at gate {gate}: controllers made: {made}")
    await simulated.kill()
    return wrong


@pytest.mark.parametrize("story", STORIES)
def test_killed_between_any_two_steps(story):
    wrong: list[str] = []
    gates = 0
    while (found := run(killed_at(story, gates))) is not None:
        wrong += found
        gates += 1
    assert wrong == []
    assert gates >= 4, "else nothing was done that could be cut short"


# whole controllers

FAR = Bdf("0000:03:00.0")
HOST = (HostController(buses={1: Bus(4)}, bdf=Bdf("0000:00:14.0")), HostController(buses={3: Bus(4)}, bdf=FAR))
OPEN = GuestConfig(name="win", type=GuestType.HVM, passthrough=True)
VIA = "version: 1\nrules: [{match: {device: '2833:*'}, attach: win, via: pci, siblings: take}]\n"


async def headset(simulated: SimulatedAgent) -> None:
    simulated.plug("3-1", "2833:0186", kind="video", speed="high")


async def not_wanted(simulated: SimulatedAgent) -> None:
    simulated.reload_soon(VIA.replace("attach: win, via: pci, siblings: take", "action: host"))


async def guest_reboots(simulated: SimulatedAgent) -> None:
    simulated.world.guests.reboot("win")


async def guest_stops(simulated: SimulatedAgent) -> None:
    simulated.world.guests.stop("win")


async def controller_killed_at(
    happens: Callable[[SimulatedAgent], Awaitable[None]], goes: bool, gate: int
) -> tuple[bool, str | None] | None:
    """Whether dom0 drives it in the end, and which guest has it; None if the test ended before that gate."""
    simulated = Stopping(VIA, OPEN, controllers=HOST)
    await simulated.start()
    simulated.plug("3-2", "0781:5567", kind="storage", speed="high")
    if not goes:
        await headset(simulated)
    await settle(simulated, 40)
    if not await killed(simulated, gate, happens):
        return None
    await asyncio.sleep(60)
    home = simulated.world.kernel.sockets.by_bdf(FAR)
    assert home
    has = next((guest.name for guest in simulated.world.guests if FAR in guest.pci), None)
    await simulated.kill()
    return home.awake, has


@pytest.mark.parametrize(
    "happens, end",
    [
        (headset, (False, "win")),
        (not_wanted, (True, None)),
        (guest_reboots, (False, "win")),
        (guest_stops, (True, None)),
    ],
)
def test_a_controller_is_never_left_between(happens, end):
    gates, wrong = 0, []
    while (found := run(controller_killed_at(happens, happens is headset, gates))) is not None:
        wrong += [(gates, found)] if found != end else []
        gates += 1
    assert wrong == []
    assert gates >= 2, "else nothing was done that could be cut short"
