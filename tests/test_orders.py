"""A person's wishes: what is paused is left alone, what is preferred comes first, a move that fails is undone, and the
history tells it all.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.simulated_agent import DESK, KIOSK, MICE, WIN, Journal, Rig, settled, told

from xenplug.service.history import Chronicle
from xenplug.adapters.history import History
from xenplug.adapters.varlink import Refused

LISTS = """version: 1
rules:
  - {name: mice, match: {kind: mouse}, attach: [kiosk, desk]}
  - {name: sticks, match: {kind: storage}, attach: [kiosk, desk]}
"""
HERE, THERE = ("attached", "used", "kiosk"), ("attached", "used", "desk")


@pytest.mark.parametrize("scope", ["all", "1-1", "kiosk"])
@told
async def test_what_is_paused_is_not_attached(scope):
    rig = await Rig(MICE, KIOSK, DESK).start()
    rig.plug("1-1", kind="serial")
    await settled(rig)
    await rig.agent.service.pause(scope)
    rig.pull("1-1")
    await asyncio.sleep(3)
    rig.plug("1-1")
    await settled(rig)
    assert rig.stands("1-1") == ("pending", "paused", None)
    assert rig.agent.service.status()["paused"] == [scope]
    await rig.kill()
    await rig.start()
    await settled(rig)
    assert rig.stands("1-1") == ("pending", "paused", None), "a pause outlives the agent"
    assert await rig.agent.service.resume(scope) == "nothing is paused"
    await settled(rig)
    assert rig.stands("1-1") == HERE
    await rig.kill()


@pytest.mark.parametrize("scope", ["all", "1-1", "kiosk", "desk"])
@told
async def test_what_is_paused_stays_where_it_is(scope):
    rig = await Rig(MICE, KIOSK, DESK).start()
    rig.plug("1-1")
    await settled(rig)
    await rig.agent.service.pause(scope)
    await rig.reload(MICE.replace("attach: kiosk", "attach: desk"))
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "paused", "kiosk")
    await rig.agent.service.resume("all")
    await settled(rig)
    assert rig.stands("1-1") == THERE
    await rig.kill()


@told
async def test_protection_and_stale_ports_know_no_pause():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    rig.plug("1-2")
    await settled(rig)
    await rig.agent.service.pause("all")
    await rig.reload(MICE + "protect: [{port: 1-1}]\n")
    rig.pull("1-2")
    await settled(rig)  # says that nothing is stale
    assert rig.stands("1-1") == ("protected", "protect", None)
    await rig.kill()


@told
async def test_a_pause_of_nothing():
    rig = await Rig(MICE, KIOSK).start()
    await settled(rig)
    with pytest.raises(Refused):
        await rig.agent.service.pause("nobody")
    assert await rig.agent.service.pause("kiosk") == "paused: kiosk; `xenplug resume kiosk` ends that"
    assert await rig.agent.service.pause("all") == "paused: all, kiosk; `xenplug resume all` ends that"
    assert await rig.agent.service.resume("kiosk") == "still paused: all"
    await rig.kill()


@pytest.mark.parametrize("kind", ["mouse", "storage"])
@told
async def test_the_preferred_guest_comes_first(kind):
    rig = await Rig(LISTS, KIOSK, DESK, WIN).start()
    rig.plug("1-1", kind=kind)
    await settled(rig)
    assert rig.stands("1-1") == HERE
    await rig.agent.service.prefer("desk")
    await settled(rig)
    assert (rig.stands("1-1"), rig.agent.service.status()["preferred"]) == (THERE, "desk")
    rig.world.guests.stop("desk")
    await settled(rig)
    assert rig.stands("1-1") == HERE
    rig.world.guests.start("desk")
    await settled(rig)
    assert rig.stands("1-1") == THERE, "moves always, sticks too"
    await rig.agent.service.prefer(None)
    await settled(rig)
    assert rig.stands("1-1") == (HERE if kind == "mouse" else THERE), "as its list is read without a wish"
    with pytest.raises(Refused):
        await rig.agent.service.prefer("nobody")
    await rig.kill()


@told
async def test_a_move_that_fails_is_undone():
    rig = await Rig(LISTS, KIOSK, DESK).start()
    rig.plug("1-1")
    await settled(rig)
    rig.world.commands.failures.plan("usbdev-attach", 1, "refused")
    await rig.agent.service.prefer("desk")
    await settled(rig)
    assert rig.stands("1-1") == HERE
    await asyncio.sleep(300)
    assert len(rig.calls("usbdev-attach")) == 3, "there, refused, and back; then it is left in peace"
    await rig.agent.service.release("1-1")
    await settled(rig)
    assert rig.stands("1-1") == THERE
    await rig.kill()


@told
async def test_a_move_that_another_devices_stale_port_held_up_is_not_undone():
    rig = await Rig(LISTS, KIOSK, DESK).start()
    rig.plug("1-1")
    rig.plug("1-2", kind="serial")
    await settled(rig)
    await rig.agent.service.attach("1-2", "kiosk")
    await settled(rig)
    rig.world.bus.lose()
    rig.pull("1-2")  # so nobody hears of it for a while
    await rig.agent.service.prefer("desk")
    await settled(rig, 120)
    assert rig.stands("1-1") == THERE
    assert [call.code for call in rig.calls("usbdev-attach")][2] == 1, "else nothing was shown"
    await rig.kill()


@pytest.mark.parametrize(("seconds", "where"), [(1.0, "desk"), (60.0, "kiosk")])
@told
async def test_a_device_that_is_still_being_reset_is_tried_again_at_once(seconds, where):
    """The guest it comes from has it reset; xl does not find it meanwhile (T48)."""
    rig = await Rig(LISTS, KIOSK, DESK).start()
    rig.world.kernel.times = replace(rig.world.kernel.times, reset=0.0, unnumbered=seconds)
    rig.plug("1-1")
    await settled(rig)
    await rig.agent.service.prefer("desk")
    await settled(rig, 120)
    assert rig.stands("1-1")[2] == where, "one that never comes back is a move that failed, and undone"
    assert 1 in [call.code for call in rig.calls("usbdev-attach")], "else nothing was shown"
    await rig.kill()


@told
async def test_a_move_by_hand_that_fails_is_undone():
    rig = await Rig(MICE, KIOSK, DESK).start()
    rig.plug("1-1")
    await settled(rig)
    rig.world.commands.failures.plan("usbdev-attach", 1, "refused")
    with pytest.raises(Refused) as refused:
        await rig.agent.service.attach("1-1", "desk")
    reason = refused.value.parameters["reason"]
    assert "attached to kiosk" in reason and "desk failed to take it" in reason
    await settled(rig)
    assert rig.stands("1-1") == HERE
    await rig.kill()


@told
async def test_a_guest_for_which_it_was_given_up_is_passed_over():
    rig = await Rig(LISTS, KIOSK, DESK).start()
    rig.world.commands.failures.plan("usbdev-attach", 8, "refused")
    rig.plug("1-1")
    await settled(rig, 300)
    assert rig.stands("1-1") == THERE
    await rig.kill()


@told
async def test_the_history_of_a_device_over_restarts(tmp_path):
    rig = Rig(MICE, KIOSK)
    record = History(tmp_path / "history.jsonl")
    rig.journal = Chronicle(rig.world.clock, record)
    await rig.start()
    rig.plug("1-1")
    rig.plug("1-2", "03f0:0c17", kind="printer", speed="high")
    await settled(rig)
    await rig.kill()
    rig.journal = Chronicle(rig.world.clock, record)
    await rig.start()
    await settled(rig)
    rig.pull("1-1")
    await settled(rig)
    told = [event async for event in rig.agent.service.history("1-1", False)]
    assert [(e["state"], e["guest"], e["rule"]) for e in told] == [
        ("attached", "kiosk", "mice"),
        ("unplugged", None, "mice"),
    ]
    assert [e["device"] async for e in rig.agent.service.history("03f0:0c17", False)] == ["03f0:0c17"]
    assert len([e async for e in rig.agent.service.history(None, False)]) == 3
    await rig.kill()


@told
async def test_a_history_that_is_followed():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    events = rig.agent.service.history("1-1", True)
    assert (await anext(events))["state"] == "attached"
    rig.plug("1-2", kind="serial")
    rig.pull("1-1")
    assert (await anext(events))["state"] == "unplugged"
    await events.aclose()
    assert isinstance(rig.journal, Journal)
    await rig.kill()
