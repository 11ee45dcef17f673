"""Orders to the agent: pauses, preferences, moves that fail and are undone, and their history."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.simulated_agent import DESK, KIOSK, MICE, WIN, RecordingHistory, SimulatedAgent, in_virtual_time, settle

from xenplug.adapters.history import HistoryFile
from xenplug.adapters.varlink import Refused
from xenplug.service.history import History

LISTS = """version: 1
rules:
  - {name: mice, match: {kind: mouse}, attach: [kiosk, desk]}
  - {name: sticks, match: {kind: storage}, attach: [kiosk, desk]}
"""
HERE, THERE = ("attached", "used", "kiosk"), ("attached", "used", "desk")


@pytest.mark.parametrize("scope", ["all", "1-1", "kiosk"])
@in_virtual_time
async def test_what_is_paused_is_not_attached(scope):
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1", kind="serial")
    await settle(simulated)
    await simulated.agent.service.pause(scope)
    simulated.pull("1-1")
    await asyncio.sleep(3)
    simulated.plug("1-1")
    await settle(simulated)
    assert simulated.state_of("1-1") == ("pending", "paused", None)
    assert simulated.agent.service.status()["paused"] == [scope]
    await simulated.kill()
    await simulated.start()
    await settle(simulated)
    assert simulated.state_of("1-1") == ("pending", "paused", None), "a pause outlives the agent"
    assert await simulated.agent.service.resume(scope) == "nothing is paused"
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    await simulated.kill()


@pytest.mark.parametrize("scope", ["all", "1-1", "kiosk", "desk"])
@in_virtual_time
async def test_what_is_paused_stays_where_it_is(scope):
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1")
    await settle(simulated)
    await simulated.agent.service.pause(scope)
    await simulated.reload(MICE.replace("attach: kiosk", "attach: desk"))
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "paused", "kiosk")
    await simulated.agent.service.resume("all")
    await settle(simulated)
    assert simulated.state_of("1-1") == THERE
    await simulated.kill()


@in_virtual_time
async def test_protection_and_stale_ports_ignore_a_pause():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    simulated.plug("1-2")
    await settle(simulated)
    await simulated.agent.service.pause("all")
    await simulated.reload(MICE + "protect: [{port: 1-1}]\n")
    simulated.pull("1-2")
    await settle(simulated)  # says that nothing is stale
    assert simulated.state_of("1-1") == ("protected", "protect", None)
    await simulated.kill()


@in_virtual_time
async def test_a_pause_of_nothing():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    await settle(simulated)
    with pytest.raises(Refused):
        await simulated.agent.service.pause("nobody")
    assert await simulated.agent.service.pause("kiosk") == "paused: kiosk; `xenplug resume kiosk` ends the pause"
    assert await simulated.agent.service.pause("all") == "paused: all, kiosk; `xenplug resume all` ends the pause"
    assert await simulated.agent.service.resume("kiosk") == "still paused: all"
    await simulated.kill()


@pytest.mark.parametrize("kind", ["mouse", "storage"])
@in_virtual_time
async def test_the_preferred_guest_comes_first(kind):
    simulated = await SimulatedAgent(LISTS, KIOSK, DESK, WIN).start()
    simulated.plug("1-1", kind=kind)
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    await simulated.agent.service.prefer("desk")
    await settle(simulated)
    assert (simulated.state_of("1-1"), simulated.agent.service.status()["preferred"]) == (THERE, "desk")
    simulated.world.guests.stop("desk")
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    simulated.world.guests.start("desk")
    await settle(simulated)
    assert simulated.state_of("1-1") == THERE, "moves always, sticks too"
    await simulated.agent.service.prefer(None)
    await settle(simulated)
    assert simulated.state_of("1-1") == (HERE if kind == "mouse" else THERE), "as its list is read without a preference"
    with pytest.raises(Refused):
        await simulated.agent.service.prefer("nobody")
    await simulated.kill()


@in_virtual_time
async def test_a_move_that_fails_is_undone():
    simulated = await SimulatedAgent(LISTS, KIOSK, DESK).start()
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.commands.failures.plan("usbdev-attach", 1, "refused")
    await simulated.agent.service.prefer("desk")
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    await asyncio.sleep(300)
    assert len(simulated.xl_calls("usbdev-attach")) == 3, "there, refused, and back; then it is left in peace"
    await simulated.agent.service.release("1-1")
    await settle(simulated)
    assert simulated.state_of("1-1") == THERE
    await simulated.kill()


@in_virtual_time
async def test_a_move_that_another_devices_stale_port_held_up_is_not_undone():
    simulated = await SimulatedAgent(LISTS, KIOSK, DESK).start()
    simulated.plug("1-1")
    simulated.plug("1-2", kind="serial")
    await settle(simulated)
    await simulated.agent.service.attach("1-2", "kiosk")
    await settle(simulated)
    simulated.world.bus.lose()
    simulated.pull("1-2")  # so no event arrives for a while
    await simulated.agent.service.prefer("desk")
    await settle(simulated, 120)
    assert simulated.state_of("1-1") == THERE
    assert [call.code for call in simulated.xl_calls("usbdev-attach")][2] == 1, "else nothing was shown"
    await simulated.kill()


@pytest.mark.parametrize(("seconds", "where"), [(1.0, "desk"), (60.0, "kiosk")])
@in_virtual_time
async def test_a_device_that_is_still_being_reset_is_tried_again_at_once(seconds, where):
    """The guest it comes from resets it; xl does not find it during the reset (T48)."""
    simulated = await SimulatedAgent(LISTS, KIOSK, DESK).start()
    simulated.world.kernel.times = replace(simulated.world.kernel.times, reset=0.0, unnumbered=seconds)
    simulated.plug("1-1")
    await settle(simulated)
    await simulated.agent.service.prefer("desk")
    await settle(simulated, 120)
    assert simulated.state_of("1-1")[2] == where, "one that never comes back is a move that failed, and undone"
    assert 1 in [call.code for call in simulated.xl_calls("usbdev-attach")], "else nothing was shown"
    await simulated.kill()


@in_virtual_time
async def test_a_manual_move_that_fails_is_undone():
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.commands.failures.plan("usbdev-attach", 1, "refused")
    with pytest.raises(Refused) as refused:
        await simulated.agent.service.attach("1-1", "desk")
    reason = refused.value.parameters["reason"]
    assert "attached to kiosk" in reason and "desk failed to take it" in reason
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    await simulated.kill()


@in_virtual_time
async def test_a_guest_for_which_it_was_given_up_is_skipped():
    simulated = await SimulatedAgent(LISTS, KIOSK, DESK).start()
    simulated.world.commands.failures.plan("usbdev-attach", 8, "refused")
    simulated.plug("1-1")
    await settle(simulated, 300)
    assert simulated.state_of("1-1") == THERE
    await simulated.kill()


@in_virtual_time
async def test_the_history_of_a_device_over_restarts(tmp_path):
    simulated = SimulatedAgent(MICE, KIOSK)
    record = HistoryFile(tmp_path / "history.jsonl")
    simulated.history = History(simulated.world.clock, record)
    await simulated.start()
    simulated.plug("1-1")
    simulated.plug("1-2", "03f0:0c17", kind="printer", speed="high")
    await settle(simulated)
    await simulated.kill()
    simulated.history = History(simulated.world.clock, record)
    await simulated.start()
    await settle(simulated)
    simulated.pull("1-1")
    await settle(simulated)
    in_virtual_time = [event async for event in simulated.agent.service.history("1-1", False)]
    assert [(e["state"], e["guest"], e["rule"]) for e in in_virtual_time] == [
        ("attached", "kiosk", "mice"),
        ("unplugged", None, "mice"),
    ]
    assert [e["device"] async for e in simulated.agent.service.history("03f0:0c17", False)] == ["03f0:0c17"]
    assert len([e async for e in simulated.agent.service.history(None, False)]) == 3
    await simulated.kill()


@in_virtual_time
async def test_a_history_that_is_followed():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    events = simulated.agent.service.history("1-1", True)
    assert (await anext(events))["state"] == "attached"
    simulated.plug("1-2", kind="serial")
    simulated.pull("1-1")
    assert (await anext(events))["state"] == "unplugged"
    await events.aclose()
    assert isinstance(simulated.history, RecordingHistory)
    await simulated.kill()
