"""The agent killed at every moment, and xenstore and udev lost: afterwards all is as if nothing had been."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from tests.simulated_agent import BOTH, DESK, KIOSK, MICE, WIN, SimulatedAgent, in_virtual_time, moved, run, settled

HERE, THERE = ("attached", "used", "kiosk"), ("attached", "used", "desk")


async def crash_story(moment: float) -> list[str]:
    """A mouse is plugged, the agent killed so much later and started again; what is wrong in the end."""
    simulated = await SimulatedAgent(BOTH, KIOSK, WIN).start()
    await asyncio.sleep(1)
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    await asyncio.sleep(moment)
    await simulated.kill()
    await simulated.start()
    await settled(simulated)
    wrong = []
    for port, guest in (("1-1", "kiosk"), ("1-2", "win")):
        if simulated.stands(port) != ("attached", "used", guest) or port not in simulated.sees(guest):
            wrong.append(
                f"killed {moment:.3f} s after the plug: {port} {simulated.stands(port)}, {simulated.sees(guest)}"
            )
    if simulated.agent.reconciler.ledger.orders.overrides:
        wrong.append(f"killed {moment:.3f} s after the plug: {simulated.agent.reconciler.ledger.orders.overrides}")
    if len(simulated.world.guests.named("win").saved) != 1:
        wrong.append(f"killed {moment:.3f} s after the plug: {simulated.world.guests.named('win').saved}")
    await simulated.kill()
    return wrong


@pytest.mark.parametrize("part", range(4))
def test_killed_at_any_moment_of_an_attach(part):
    wrong = [line for step in range(part, 100, 4) for line in run(crash_story(step * 0.02))]
    assert wrong == []


class Killer:
    """Kills the agent once it has done so many turns of the loop since something began."""

    def __init__(self, simulated: SimulatedAgent, turns: int) -> None:
        self.simulated, self.turns, self.done = simulated, turns, asyncio.Event()
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.turns -= 1
        if self.turns <= 0:
            self.task = asyncio.create_task(self._kill())
            return
        asyncio.get_running_loop().call_soon(self._turn)

    async def _kill(self) -> None:
        await self.simulated.kill()
        self.done.set()


async def killed_in_turn(turns: int, after: float, act: Callable[[SimulatedAgent], object]) -> list[str]:
    """As crash_story, at the k-th turn of the loop after the time at which calls of xl end."""
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    await asyncio.sleep(1)
    simulated.plug("1-1")
    await asyncio.sleep(3)
    act(simulated)
    await asyncio.sleep(after)
    await Killer(simulated, turns).done.wait()
    await simulated.start()
    await settled(simulated, 70)
    guest = "kiosk" if "attach: kiosk" in simulated.policy else "desk"
    wrong = []
    if simulated.stands("1-1") != ("attached", "used", guest) or simulated.sees(guest) != {"1-1"}:
        wrong.append(
            f"turn {turns} after {after}: {simulated.stands('1-1')} {simulated.sees('kiosk')} {simulated.sees('desk')}"
        )
    if simulated.agent.reconciler.ledger.orders.overrides:
        wrong.append(f"turn {turns} after {after}: {simulated.agent.reconciler.ledger.orders.overrides}")
    await simulated.kill()
    return wrong


def reenumerated(simulated: SimulatedAgent) -> None:
    simulated.world.kernel.reenumerate("1-1")


@pytest.mark.parametrize("act", [moved, reenumerated])
@pytest.mark.parametrize("after", [0.0, 0.3, 0.6, 0.9])
def test_killed_at_any_turn_of_a_move(act, after):
    """Between any two awaits around the moments at which something ends."""
    wrong = [line for turns in range(1, 40, 3) for line in run(killed_in_turn(turns, after, act))]
    assert wrong == []


@in_virtual_time
async def test_a_restart_does_nothing_twice():
    simulated = await SimulatedAgent(BOTH, KIOSK, WIN).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settled(simulated)
    before = len(
        simulated.calls("usbdev-attach") + simulated.calls("usbdev-detach") + simulated.calls("usbctrl-attach")
    )
    for _ in range(3):
        await simulated.kill()
        await simulated.start()
        await settled(simulated)
        assert (simulated.stands("1-1"), simulated.at("1-2")["guest"]) == (HERE, "win")
    assert (
        len(simulated.calls("usbdev-attach") + simulated.calls("usbdev-detach") + simulated.calls("usbctrl-attach"))
        == before
    )
    await simulated.kill()


@in_virtual_time
async def test_what_changed_while_nobody_looked_is_put_right():
    simulated = await SimulatedAgent(BOTH, KIOSK, DESK, WIN).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settled(simulated)
    await simulated.kill()
    simulated.pull("1-1")
    simulated.plug("1-1", "046d:c017")
    simulated.pull("1-2")
    simulated.plug("1-3", "046d:c018")
    simulated.world.guests.reboot("kiosk")
    await asyncio.sleep(10)
    await simulated.start()
    await settled(simulated)
    assert simulated.sees("kiosk") == {"1-1", "1-3"} and simulated.sees("win") == set()
    assert simulated.at("1-1")["device"] == "046d:c017"
    await simulated.kill()


@in_virtual_time
async def test_a_bystander_lost_while_nobody_looked_is_healed():
    """A port not cleared in time costs the guest what was attached later; only what was known to be used tells."""
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settled(simulated)
    simulated.plug("1-2", "046d:c017")
    await settled(simulated)
    await simulated.kill()
    simulated.pull("1-1")
    await asyncio.sleep(20)
    assert simulated.sees("kiosk") == set()
    await simulated.start()
    await settled(simulated)
    assert (simulated.sees("kiosk"), simulated.stands("1-2")) == ({"1-2"}, HERE)
    await simulated.kill()


@in_virtual_time
async def test_orders_by_hand_survive_a_crash():
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "046d:c017")
    await settled(simulated)
    await simulated.agent.service.detach("1-1")
    await simulated.agent.service.attach("1-2", "desk")
    await simulated.kill()
    await simulated.start()
    await settled(simulated)
    assert (simulated.stands("1-1"), simulated.stands("1-2")) == (("host", "by_hand", None), THERE)
    await simulated.kill()


# losses


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.2, 0.3, 0.32, 0.34, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("act", ["attach", "move", "pull"])
@in_virtual_time
async def test_xenstore_lost_and_back(act, moment):
    """Whatever was under way: afterwards all is as it should be, and nobody is thought to have meddled."""
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    await asyncio.sleep(1)
    goal = HERE
    if act != "attach":
        simulated.plug("1-1")
        await asyncio.sleep(3)
    if act == "attach":
        simulated.plug("1-1")
    elif act == "pull":
        simulated.pull("1-1")
        simulated.plug("1-1", "046d:c017")
    else:
        moved(simulated)
        goal = THERE
    await asyncio.sleep(moment)
    simulated.world.store.lose()
    await settled(simulated)
    assert simulated.stands("1-1") == goal
    assert simulated.sees(goal[2]) == {"1-1"}
    assert simulated.agent.reconciler.ledger.orders.overrides == {}
    await simulated.kill()


@in_virtual_time
async def test_xenstore_away_for_long(caplog):
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settled(simulated)
    store, connect = simulated.world.store, simulated.world.store.connect

    async def refused() -> None:
        raise ConnectionRefusedError("no xenstored")

    store.connect = refused  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO, "xenplug"):
        store.lose()
        simulated.plug("1-2", "046d:c017")
        simulated.pull("1-1")
        await asyncio.sleep(200)
        store.connect = connect  # type: ignore[method-assign]
        await settled(simulated)
    assert (simulated.sees("kiosk"), simulated.stands("1-2"), simulated.at("1-1")) == ({"1-2"}, HERE, {})
    assert [r.getMessage() for r in caplog.records].count("xenstore: connection lost; reconnecting") == 1
    await simulated.kill()


@in_virtual_time
async def test_udev_events_lost():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settled(simulated)
    simulated.world.bus.lose(5.0)
    simulated.pull("1-1")
    simulated.plug("1-2", "046d:c017")
    simulated.plug("1-3", "046d:c018")
    simulated.pull("1-3")
    await settled(simulated)
    assert (simulated.sees("kiosk"), simulated.stands("1-2"), simulated.at("1-1"), simulated.at("1-3")) == (
        {"1-2"},
        HERE,
        {},
        {},
    )
    await simulated.kill()


@in_virtual_time
async def test_what_no_event_tells_the_rescan_finds():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    await asyncio.sleep(1)
    simulated.world.kernel.listeners.clear()
    simulated.plug("1-1")
    await asyncio.sleep(30)
    assert simulated.at("1-1") == {}
    await simulated.until(lambda: simulated.stands("1-1")[2] == "kiosk", 65)
    await simulated.kill()
