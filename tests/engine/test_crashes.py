"""The agent killed at every moment, and xenstore and udev lost: afterwards all is as if nothing had been."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from tests.simulated_agent import BOTH, DESK, KIOSK, MICE, WIN, Rig, moved, run, settled, told

HERE, THERE = ("attached", "used", "kiosk"), ("attached", "used", "desk")


async def crash_story(moment: float) -> list[str]:
    """A mouse is plugged, the agent killed so much later and started again; what is wrong in the end."""
    rig = await Rig(BOTH, KIOSK, WIN).start()
    await asyncio.sleep(1)
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    await asyncio.sleep(moment)
    await rig.kill()
    await rig.start()
    await settled(rig)
    wrong = []
    for port, guest in (("1-1", "kiosk"), ("1-2", "win")):
        if rig.stands(port) != ("attached", "used", guest) or port not in rig.sees(guest):
            wrong.append(f"killed {moment:.3f} s after the plug: {port} {rig.stands(port)}, {rig.sees(guest)}")
    if rig.agent.reconciler.ledger.overrides:
        wrong.append(f"killed {moment:.3f} s after the plug: {rig.agent.reconciler.ledger.overrides}")
    if len(rig.world.guests.named("win").saved) != 1:
        wrong.append(f"killed {moment:.3f} s after the plug: {rig.world.guests.named('win').saved}")
    await rig.kill()
    return wrong


@pytest.mark.parametrize("part", range(4))
def test_killed_at_any_moment_of_an_attach(part):
    wrong = [line for step in range(part, 100, 4) for line in run(crash_story(step * 0.02))]
    assert wrong == []


class Killer:
    """Kills the agent once it has done so many turns of the loop since something began."""

    def __init__(self, rig: Rig, turns: int) -> None:
        self.rig, self.turns, self.done = rig, turns, asyncio.Event()
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.turns -= 1
        if self.turns <= 0:
            self.task = asyncio.create_task(self._kill())
            return
        asyncio.get_running_loop().call_soon(self._turn)

    async def _kill(self) -> None:
        await self.rig.kill()
        self.done.set()


async def killed_in_turn(turns: int, after: float, act: Callable[[Rig], object]) -> list[str]:
    """As crash_story, at the k-th turn of the loop after the time at which calls of xl end."""
    rig = await Rig(MICE, KIOSK, DESK).start()
    await asyncio.sleep(1)
    rig.plug("1-1")
    await asyncio.sleep(3)
    act(rig)
    await asyncio.sleep(after)
    await Killer(rig, turns).done.wait()
    await rig.start()
    await settled(rig, 70)
    guest = "kiosk" if "attach: kiosk" in rig.policy else "desk"
    wrong = []
    if rig.stands("1-1") != ("attached", "used", guest) or rig.sees(guest) != {"1-1"}:
        wrong.append(f"turn {turns} after {after}: {rig.stands('1-1')} {rig.sees('kiosk')} {rig.sees('desk')}")
    if rig.agent.reconciler.ledger.overrides:
        wrong.append(f"turn {turns} after {after}: {rig.agent.reconciler.ledger.overrides}")
    await rig.kill()
    return wrong


def reenumerated(rig: Rig) -> None:
    rig.world.kernel.reenumerate("1-1")


@pytest.mark.parametrize("act", [moved, reenumerated])
@pytest.mark.parametrize("after", [0.0, 0.3, 0.6, 0.9])
def test_killed_at_any_turn_of_a_move(act, after):
    """Between any two awaits around the moments at which something ends."""
    wrong = [line for turns in range(1, 40, 3) for line in run(killed_in_turn(turns, after, act))]
    assert wrong == []


@told
async def test_a_restart_does_nothing_twice():
    rig = await Rig(BOTH, KIOSK, WIN).start()
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settled(rig)
    before = len(rig.calls("usbdev-attach") + rig.calls("usbdev-detach") + rig.calls("usbctrl-attach"))
    for _ in range(3):
        await rig.kill()
        await rig.start()
        await settled(rig)
        assert (rig.stands("1-1"), rig.at("1-2")["guest"]) == (HERE, "win")
    assert len(rig.calls("usbdev-attach") + rig.calls("usbdev-detach") + rig.calls("usbctrl-attach")) == before
    await rig.kill()


@told
async def test_what_changed_while_nobody_looked_is_put_right():
    rig = await Rig(BOTH, KIOSK, DESK, WIN).start()
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settled(rig)
    await rig.kill()
    rig.pull("1-1")
    rig.plug("1-1", "046d:c017")
    rig.pull("1-2")
    rig.plug("1-3", "046d:c018")
    rig.world.guests.reboot("kiosk")
    await asyncio.sleep(10)
    await rig.start()
    await settled(rig)
    assert rig.sees("kiosk") == {"1-1", "1-3"} and rig.sees("win") == set()
    assert rig.at("1-1")["device"] == "046d:c017"
    await rig.kill()


@told
async def test_a_bystander_lost_while_nobody_looked_is_healed():
    """A port not cleared in time costs the guest what was attached later; only what was known to be used tells."""
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    rig.plug("1-2", "046d:c017")
    await settled(rig)
    await rig.kill()
    rig.pull("1-1")
    await asyncio.sleep(20)
    assert rig.sees("kiosk") == set()
    await rig.start()
    await settled(rig)
    assert (rig.sees("kiosk"), rig.stands("1-2")) == ({"1-2"}, HERE)
    await rig.kill()


@told
async def test_orders_by_hand_survive_a_crash():
    rig = await Rig(MICE, KIOSK, DESK).start()
    rig.plug("1-1")
    rig.plug("1-2", "046d:c017")
    await settled(rig)
    await rig.agent.service.detach("1-1")
    await rig.agent.service.attach("1-2", "desk")
    await rig.kill()
    await rig.start()
    await settled(rig)
    assert (rig.stands("1-1"), rig.stands("1-2")) == (("host", "by_hand", None), THERE)
    await rig.kill()


# losses


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.2, 0.3, 0.32, 0.34, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("act", ["attach", "move", "pull"])
@told
async def test_xenstore_lost_and_back(act, moment):
    """Whatever was under way: afterwards all is as it should be, and nobody is thought to have meddled."""
    rig = await Rig(MICE, KIOSK, DESK).start()
    await asyncio.sleep(1)
    goal = HERE
    if act != "attach":
        rig.plug("1-1")
        await asyncio.sleep(3)
    if act == "attach":
        rig.plug("1-1")
    elif act == "pull":
        rig.pull("1-1")
        rig.plug("1-1", "046d:c017")
    else:
        moved(rig)
        goal = THERE
    await asyncio.sleep(moment)
    rig.world.store.lose()
    await settled(rig)
    assert rig.stands("1-1") == goal
    assert rig.sees(goal[2]) == {"1-1"}
    assert rig.agent.reconciler.ledger.overrides == {}
    await rig.kill()


@told
async def test_xenstore_away_for_long(caplog):
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    store, connect = rig.world.store, rig.world.store.connect

    async def refused() -> None:
        raise ConnectionRefusedError("no xenstored")

    store.connect = refused  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO, "xenplug"):
        store.lose()
        rig.plug("1-2", "046d:c017")
        rig.pull("1-1")
        await asyncio.sleep(200)
        store.connect = connect  # type: ignore[method-assign]
        await settled(rig)
    assert (rig.sees("kiosk"), rig.stands("1-2"), rig.at("1-1")) == ({"1-2"}, HERE, {})
    assert [r.getMessage() for r in caplog.records].count("xenstore: connection lost; reconnecting") == 1
    await rig.kill()


@told
async def test_udev_events_lost():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    rig.world.bus.lose(5.0)
    rig.pull("1-1")
    rig.plug("1-2", "046d:c017")
    rig.plug("1-3", "046d:c018")
    rig.pull("1-3")
    await settled(rig)
    assert (rig.sees("kiosk"), rig.stands("1-2"), rig.at("1-1"), rig.at("1-3")) == ({"1-2"}, HERE, {}, {})
    await rig.kill()


@told
async def test_what_no_event_tells_the_rescan_finds():
    rig = await Rig(MICE, KIOSK).start()
    await asyncio.sleep(1)
    rig.world.kernel.listeners.clear()
    rig.plug("1-1")
    await asyncio.sleep(30)
    assert rig.at("1-1") == {}
    await rig.until(lambda: rig.stands("1-1")[2] == "kiosk", 65)
    await rig.kill()
