"""The reconciler's loop on a simulated host: the main job, reloads, what it reports, slow rounds."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from tests.simulated_agent import BOTH, DESK, KIOSK, MICE, WIN, SimulatedAgent, in_virtual_time, settle

from xenplug.core.model import GuestType
from xenplug.simulator.domain import GuestConfig

HERE, THERE = ("attached", "used", "kiosk"), ("attached", "used", "desk")


# the main job


@in_virtual_time
async def test_a_slow_round_delays_nothing():
    """The machine was stopped during it (a stopped process, a paused dom0)."""
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    await asyncio.sleep(1)
    bus = simulated.world.bus
    devices = bus.devices

    def slowly():
        asyncio.get_running_loop().stand_still(30.0)
        bus.devices = devices
        return devices()

    bus.devices = slowly
    simulated.agent.reconciler.wake()
    await asyncio.sleep(0.01)
    simulated.plug("1-1")
    assert await simulated.wait_until(lambda: simulated.devices_of("kiosk") == {"1-1"}) < 1.7
    await simulated.kill()


@in_virtual_time
async def test_a_mouse_goes_to_its_guest_and_back():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    await asyncio.sleep(1)
    simulated.plug("1-1")
    assert await simulated.wait_until(lambda: simulated.devices_of("kiosk") == {"1-1"}) < 1.5
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    simulated.pull("1-1")
    await asyncio.sleep(0.1)
    assert simulated.world.stale_ports() == []
    assert (simulated.device_json("1-1"), simulated.agent.reconciler.ledger.entries) == ({}, {})
    assert [c.argv[1:] for c in simulated.xl_calls("usbdev-attach")] == [
        ("usbdev-attach", "1", "hostbus=1", "hostaddr=2", "controller=0", "port=1")
    ]
    await simulated.kill()


@in_virtual_time
async def test_hvm_gets_its_controller_made_once():
    simulated = await SimulatedAgent(BOTH, WIN, KIOSK).start()
    for n in range(1, 5):
        simulated.plug(f"1-{n}", f"0781:000{n}", kind="storage", speed="high")
    await settle(simulated)
    assert simulated.devices_of("win") == {"1-1", "1-2", "1-3", "1-4"}
    assert len(simulated.xl_calls("usbctrl-attach")) == 1 and len(simulated.xl_calls("usbdev-attach")) == 4
    ports = [simulated.device_json(f"1-{n}")["guest_port"] for n in range(1, 5)]
    assert ports == [1, 2, 3, 4]
    await simulated.kill()


@in_virtual_time
async def test_one_step_follows_the_other_without_a_pause():
    """The round after a step must find the guest idle: the next event may be a minute away."""
    simulated = await SimulatedAgent(BOTH, WIN, KIOSK).start()
    await asyncio.sleep(1)
    for n in range(1, 5):
        simulated.plug(f"1-{n}", f"0781:000{n}", kind="storage", speed="high")
    await settle(simulated)
    mine = [c for c in simulated.world.commands.calls if c.command.startswith("usb")]
    assert [round(b.start - (a.end or 0), 2) for a, b in pairwise(mine)] == [0.0] * 4
    await simulated.kill()


@in_virtual_time
async def test_a_reenumeration_ends_attached_once():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.kernel.reenumerate("1-1")
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    assert simulated.devices_of("kiosk") == {"1-1"}
    assert len(simulated.xl_calls("usbdev-attach")) == 2
    assert simulated.device_json("1-1")["address"] == "1.3"
    await simulated.kill()


@pytest.mark.parametrize("kind, speed", [("mouse", "low"), ("storage", "high")])
@pytest.mark.parametrize("order", ["[kiosk, desk]", "[desk, kiosk]"])
@in_virtual_time
async def test_a_device_returns_to_its_guest_after_a_reboot(kind, speed, order):
    """A mouse follows the list, a stick stays with its guest; neither goes to another guest during a reboot."""
    simulated = await SimulatedAgent(
        f"version: 1\nrules: [{{match: {{kind: {kind}}}, attach: {order}}}]", KIOSK, stopped=[DESK]
    ).start()
    simulated.plug("1-1", kind=kind, speed=speed)
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    moves = order == "[desk, kiosk]" and kind == "mouse"
    simulated.world.guests.start("desk")
    await settle(simulated)
    assert simulated.state_of("1-1") == (THERE if moves else HERE)
    home, domid = (
        simulated.device_json("1-1")["guest"],
        simulated.world.guests.named(simulated.device_json("1-1")["guest"]).domid,
    )
    simulated.world.guests.reboot(home)
    await settle(simulated)
    assert simulated.device_json("1-1")["guest"] == home and simulated.devices_of(home) == {"1-1"}
    assert simulated.world.guests.named(home).domid != domid
    visited = {c.argv[2] for c in simulated.xl_calls("usbdev-attach")}
    assert len(visited) == (3 if moves else 2)
    await simulated.kill()


@in_virtual_time
async def test_the_next_guest_gets_the_devices_of_one_that_stays_away():
    simulated = await SimulatedAgent(
        "version: 1\nrules: [{match: {kind: mouse}, attach: [kiosk, desk]}]", KIOSK, DESK
    ).start()
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.guests.destroy("kiosk")
    assert 5 <= await simulated.wait_until(lambda: simulated.devices_of("desk") == {"1-1"}) < 7
    simulated.world.guests.start("kiosk")
    assert await simulated.wait_until(lambda: simulated.devices_of("kiosk") == {"1-1"}) < 8
    await simulated.kill()


@in_virtual_time
async def test_a_move_waits_for_the_new_guest_to_be_able_to():
    simulated = await SimulatedAgent(
        "version: 1\nrules: [{match: {kind: mouse}, attach: [desk, kiosk]}]", KIOSK, stopped=[DESK]
    ).start()
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.guests.start("desk")
    await asyncio.sleep(4)
    assert simulated.devices_of("kiosk") == {"1-1"}, "desk still boots"
    assert await simulated.wait_until(lambda: simulated.devices_of("desk") == {"1-1"}) < 4
    await simulated.kill()


@in_virtual_time
async def test_an_earlier_guest_of_the_list_gets_it_as_soon_as_it_can():
    """Only libxl's file shows that a guest can take devices: the agent polls for it."""
    simulated = await SimulatedAgent(
        "version: 1\nrules: [{match: {kind: mouse}, attach: [win, kiosk]}]", KIOSK, stopped=[WIN]
    ).start()
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.guests.start("win")
    assert await simulated.wait_until(lambda: simulated.device_json("1-1")["guest"] == "win") < 3
    await simulated.kill()


@in_virtual_time
async def test_a_controller_made_late_in_a_guests_life_has_its_time_to_connect():
    """No frontend after 120 s means no driver, but only 120 s after the controller was made."""
    bare = GuestConfig(name="kiosk", type=GuestType.PV, device_model=True)
    simulated = await SimulatedAgent(MICE, bare).start()
    await asyncio.sleep(300)
    simulated.plug("1-1")
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    states = [change.view()["state"] for change in simulated.history.changes]
    assert "given_up" not in states and states[-1] == "attached"
    await simulated.kill()


@in_virtual_time
async def test_what_dom0_uses_stays_until_unplug():
    simulated = await SimulatedAgent(BOTH, KIOSK, WIN).start()
    simulated.plug("1-1", "0781:5567", kind="storage", speed="high", in_use="storage")
    await settle(simulated)
    assert simulated.state_of("1-1") == ("protected", "in_use", None)
    assert not simulated.xl_calls("usbdev-attach")
    await simulated.kill()


# reload


@in_virtual_time
async def test_reload_moves_only_what_must_move():
    simulated = await SimulatedAgent(BOTH, KIOSK, DESK, WIN).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settle(simulated)
    said = await simulated.reload(BOTH.replace("attach: kiosk", "attach: desk"))
    await settle(simulated)
    assert said == "policy in force: 2 rules"
    assert (simulated.state_of("1-1"), simulated.device_json("1-2")["guest"]) == (THERE, "win")
    assert (len(simulated.xl_calls("usbdev-detach")), len(simulated.xl_calls("usbdev-attach"))) == (1, 3)
    said = await simulated.reload("version: 1\nrules: [{match: {kind: mouse}, attach: }]")
    await settle(simulated)
    assert said.endswith("the last good policy stays in force")
    assert simulated.state_of("1-1") == THERE
    assert simulated.device_json("1-1")["rule"] == "mice"
    assert len(simulated.xl_calls("usbdev-detach")) == 1
    await simulated.reload("version: 1\nprotect: [{kind: mouse}]")
    await settle(simulated)
    assert simulated.state_of("1-1") == ("protected", "protect", None)
    assert simulated.state_of("1-2") == ("host", "default", None)
    await simulated.kill()


@in_virtual_time
async def test_without_a_good_policy_only_stale_ports_are_cleared():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "046d:c017")
    await settle(simulated)
    await simulated.kill()
    simulated.policy = "version: 2"
    simulated.pull("1-2")
    await simulated.start()
    simulated.plug("1-3", "046d:c018")
    await settle(simulated)
    assert simulated.state_of("1-1") == ("pending", "no_policy", "kiosk")
    assert simulated.state_of("1-3") == ("pending", "no_policy", None)
    assert len(simulated.xl_calls("usbdev-attach")) == 2
    await simulated.reload(MICE)
    await settle(simulated)
    assert (simulated.state_of("1-1"), simulated.state_of("1-3")) == (HERE, HERE)
    await simulated.kill()


# reporting


@in_virtual_time
async def test_the_journal_has_one_line_for_each_change():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated, 200)
    simulated.pull("1-1")
    await settle(simulated)
    assert [change.view()["state"] for change in simulated.history.changes] == ["attached", "unplugged"]
    await simulated.kill()


@in_virtual_time
async def test_since_is_when_it_began():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    before = simulated.device_json("1-1")["since"]
    await settle(simulated, 100)
    assert simulated.device_json("1-1")["since"] == before
    await simulated.agent.service.detach("1-1")
    assert simulated.device_json("1-1")["since"] > before
    await simulated.kill()


@in_virtual_time
async def test_a_round_costs_nothing_when_nothing_happens():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    before = simulated.agent.reconciler.round
    await asyncio.sleep(600)
    assert simulated.agent.reconciler.round - before < 45
    await simulated.kill()
