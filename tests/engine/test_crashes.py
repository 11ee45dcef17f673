"""The agent is killed at every moment, xenstore and udev are lost: afterwards the state is correct."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from tests.simulated_agent import (
    BOTH,
    DESK,
    KIOSK,
    MICE,
    WIN,
    SimulatedAgent,
    begin_moving_the_mouse,
    in_virtual_time,
    run,
    settle,
)

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
    await settle(simulated)
    wrong = []
    for port, guest in (("1-1", "kiosk"), ("1-2", "win")):
        if simulated.state_of(port) != ("attached", "used", guest) or port not in simulated.devices_of(guest):
            wrong.append(
                f"killed {moment:.3f} s after the plug: "
                f"{port} {simulated.state_of(port)}, {simulated.devices_of(guest)}"
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
    await settle(simulated, 70)
    guest = "kiosk" if "attach: kiosk" in simulated.policy else "desk"
    wrong = []
    if simulated.state_of("1-1") != ("attached", "used", guest) or simulated.devices_of(guest) != {"1-1"}:
        wrong.append(
            f"turn {turns} after {after}: {simulated.state_of('1-1')} "
            f"{simulated.devices_of('kiosk')} {simulated.devices_of('desk')}"
        )
    if simulated.agent.reconciler.ledger.orders.overrides:
        wrong.append(f"turn {turns} after {after}: {simulated.agent.reconciler.ledger.orders.overrides}")
    await simulated.kill()
    return wrong


def reenumerated(simulated: SimulatedAgent) -> None:
    simulated.world.kernel.reenumerate("1-1")


@pytest.mark.parametrize("act", [begin_moving_the_mouse, reenumerated])
@pytest.mark.parametrize("after", [0.0, 0.3, 0.6, 0.9])
def test_killed_at_any_iteration_of_a_move(act, after):
    """Between any two awaits around the moments at which something ends."""
    wrong = [line for turns in range(1, 40, 3) for line in run(killed_in_turn(turns, after, act))]
    assert wrong == []


def attach_calls(simulated: SimulatedAgent) -> int:
    return sum(len(simulated.xl_calls(c)) for c in ("usbdev-attach", "usbdev-detach", "usbctrl-attach"))


@in_virtual_time
async def test_a_restart_does_nothing_twice():
    simulated = await SimulatedAgent(BOTH, KIOSK, WIN).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settle(simulated)
    before = attach_calls(simulated)
    for _ in range(3):
        await simulated.kill()
        await simulated.start()
        await settle(simulated)
        assert (simulated.state_of("1-1"), simulated.device_json("1-2")["guest"]) == (HERE, "win")
    assert attach_calls(simulated) == before
    await simulated.kill()


@in_virtual_time
async def test_changes_while_no_agent_ran_are_corrected():
    simulated = await SimulatedAgent(BOTH, KIOSK, DESK, WIN).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settle(simulated)
    await simulated.kill()
    simulated.pull("1-1")
    simulated.plug("1-1", "046d:c017")
    simulated.pull("1-2")
    simulated.plug("1-3", "046d:c018")
    simulated.world.guests.reboot("kiosk")
    await asyncio.sleep(10)
    await simulated.start()
    await settle(simulated)
    assert simulated.devices_of("kiosk") == {"1-1", "1-3"} and simulated.devices_of("win") == set()
    assert simulated.device_json("1-1")["device"] == "046d:c017"
    await simulated.kill()


@in_virtual_time
async def test_a_device_lost_while_no_agent_ran_is_attached_again():
    """If a port is not cleared in time, the guest loses devices attached later; only the ledger knows that they were
    used.
    """
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    simulated.plug("1-2", "046d:c017")
    await settle(simulated)
    await simulated.kill()
    simulated.pull("1-1")
    await asyncio.sleep(20)
    assert simulated.devices_of("kiosk") == set()
    await simulated.start()
    await settle(simulated)
    assert (simulated.devices_of("kiosk"), simulated.state_of("1-2")) == ({"1-2"}, HERE)
    await simulated.kill()


@in_virtual_time
async def test_manual_orders_survive_a_crash():
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "046d:c017")
    await settle(simulated)
    await simulated.agent.service.detach("1-1")
    await simulated.agent.service.attach("1-2", "desk")
    await simulated.kill()
    await simulated.start()
    await settle(simulated)
    assert (simulated.state_of("1-1"), simulated.state_of("1-2")) == (("host", "by_hand", None), THERE)
    await simulated.kill()


# losses


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.2, 0.3, 0.32, 0.34, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("act", ["attach", "move", "pull"])
@in_virtual_time
async def test_xenstore_lost_and_reconnected(act, moment):
    """Whatever steps were running: afterwards the state is correct, and nothing counts as a manual override."""
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
        begin_moving_the_mouse(simulated)
        goal = THERE
    await asyncio.sleep(moment)
    simulated.world.store.lose()
    await settle(simulated)
    assert simulated.state_of("1-1") == goal
    assert simulated.devices_of(goal[2]) == {"1-1"}
    assert simulated.agent.reconciler.ledger.orders.overrides == {}
    await simulated.kill()


@in_virtual_time
async def test_xenstore_away_for_long(caplog):
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
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
        await settle(simulated)
    assert simulated.devices_of("kiosk") == {"1-2"}
    assert simulated.state_of("1-2") == HERE
    assert simulated.device_json("1-1") == {}
    assert [r.getMessage() for r in caplog.records].count("xenstore: connection lost; reconnecting") == 1
    await simulated.kill()


@in_virtual_time
async def test_udev_events_lost():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.bus.lose(5.0)
    simulated.pull("1-1")
    simulated.plug("1-2", "046d:c017")
    simulated.plug("1-3", "046d:c018")
    simulated.pull("1-3")
    await settle(simulated)
    assert simulated.devices_of("kiosk") == {"1-2"}
    assert simulated.state_of("1-2") == HERE
    assert simulated.device_json("1-1") == {}
    assert simulated.device_json("1-3") == {}
    await simulated.kill()


@in_virtual_time
async def test_a_rescan_finds_changes_without_an_event():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    await asyncio.sleep(1)
    simulated.world.kernel.listeners.clear()
    simulated.plug("1-1")
    await asyncio.sleep(30)
    assert simulated.device_json("1-1") == {}
    await simulated.wait_until(lambda: simulated.state_of("1-1")[2] == "kiosk", 65)
    await simulated.kill()
