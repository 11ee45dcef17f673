"""The one loop on a simulated host: the main job, crashes at every moment, losses, reloads, orders, slow tools."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from tests.simulated_agent import BOTH, DESK, KIOSK, MICE, QUSB, WIN, SimulatedAgent, in_virtual_time, present, settled

from xenplug.adapters.varlink import Refused
from xenplug.core.ledger.records import OrderAction, Override
from xenplug.core.model import DeviceKey, GuestType
from xenplug.simulator.domain import GuestConfig

HERE, THERE = ("attached", "used", "kiosk"), ("attached", "used", "desk")


# the main job


@in_virtual_time
async def test_a_look_that_took_long_holds_nothing_up():
    """The machine stood still in the middle of it (a stopped process, a paused dom0)."""
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    await asyncio.sleep(1)
    eyes = simulated.agent.reconciler._observer
    observe = eyes.observe

    def slowly():
        asyncio.get_running_loop()._jumper.now += 30.0
        eyes.observe = observe
        return observe()

    eyes.observe = slowly
    simulated.agent.reconciler.wake()
    await asyncio.sleep(0.01)
    simulated.plug("1-1")
    assert await simulated.until(lambda: simulated.sees("kiosk") == {"1-1"}) < 1.7
    await simulated.kill()


@in_virtual_time
async def test_a_mouse_goes_to_its_guest_and_back():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    await asyncio.sleep(1)
    simulated.plug("1-1")
    assert await simulated.until(lambda: simulated.sees("kiosk") == {"1-1"}) < 1.5
    await settled(simulated)
    assert simulated.stands("1-1") == HERE
    simulated.pull("1-1")
    await asyncio.sleep(0.1)
    assert simulated.world.stale_ports() == []
    assert (simulated.at("1-1"), simulated.agent.reconciler.ledger.entries) == ({}, {})
    assert [c.argv[1:] for c in simulated.calls("usbdev-attach")] == [
        ("usbdev-attach", "1", "hostbus=1", "hostaddr=2", "controller=0", "port=1")
    ]
    await simulated.kill()


@in_virtual_time
async def test_hvm_gets_its_controller_made_once():
    simulated = await SimulatedAgent(BOTH, WIN, KIOSK).start()
    for n in range(1, 5):
        simulated.plug(f"1-{n}", f"0781:000{n}", kind="storage", speed="high")
    await settled(simulated)
    assert simulated.sees("win") == {"1-1", "1-2", "1-3", "1-4"}
    assert len(simulated.calls("usbctrl-attach")) == 1 and len(simulated.calls("usbdev-attach")) == 4
    ports = [simulated.at(f"1-{n}")["guest_port"] for n in range(1, 5)]
    assert ports == [1, 2, 3, 4]
    await simulated.kill()


@in_virtual_time
async def test_one_step_follows_the_other_without_a_pause():
    """The round that the end of an act brings must find its guest idle: nothing else may come for a minute."""
    simulated = await SimulatedAgent(BOTH, WIN, KIOSK).start()
    await asyncio.sleep(1)
    for n in range(1, 5):
        simulated.plug(f"1-{n}", f"0781:000{n}", kind="storage", speed="high")
    await settled(simulated)
    mine = [c for c in simulated.world.commands.calls if c.command.startswith("usb")]
    assert [round(b.start - (a.end or 0), 2) for a, b in pairwise(mine)] == [0.0] * 4
    await simulated.kill()


@in_virtual_time
async def test_a_reenumeration_ends_attached_once():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settled(simulated)
    simulated.world.kernel.reenumerate("1-1")
    await settled(simulated)
    assert (simulated.stands("1-1"), simulated.sees("kiosk"), len(simulated.calls("usbdev-attach"))) == (
        HERE,
        {"1-1"},
        2,
    )
    assert simulated.at("1-1")["address"] == "1.3"
    await simulated.kill()


@pytest.mark.parametrize("kind, speed", [("mouse", "low"), ("storage", "high")])
@pytest.mark.parametrize("order", ["[kiosk, desk]", "[desk, kiosk]"])
@in_virtual_time
async def test_what_a_reboot_takes_it_gives_back(kind, speed, order):
    """A mouse follows the list, a stick goes home; neither visits another guest while its own is only rebooting."""
    simulated = await SimulatedAgent(
        f"version: 1\nrules: [{{match: {{kind: {kind}}}, attach: {order}}}]", KIOSK, stopped=[DESK]
    ).start()
    simulated.plug("1-1", kind=kind, speed=speed)
    await settled(simulated)
    assert simulated.stands("1-1") == HERE
    moves = order == "[desk, kiosk]" and kind == "mouse"
    simulated.world.guests.start("desk")
    await settled(simulated)
    assert simulated.stands("1-1") == (THERE if moves else HERE)
    home, domid = simulated.at("1-1")["guest"], simulated.world.guests.named(simulated.at("1-1")["guest"]).domid
    simulated.world.guests.reboot(home)
    await settled(simulated)
    assert simulated.at("1-1")["guest"] == home and simulated.sees(home) == {"1-1"}
    assert simulated.world.guests.named(home).domid != domid
    visited = {c.argv[2] for c in simulated.calls("usbdev-attach")}
    assert len(visited) == (3 if moves else 2)
    await simulated.kill()


@in_virtual_time
async def test_a_guest_that_stays_away_gives_up_its_devices_to_the_next():
    simulated = await SimulatedAgent(
        "version: 1\nrules: [{match: {kind: mouse}, attach: [kiosk, desk]}]", KIOSK, DESK
    ).start()
    simulated.plug("1-1")
    await settled(simulated)
    simulated.world.guests.destroy("kiosk")
    assert 5 <= await simulated.until(lambda: simulated.sees("desk") == {"1-1"}) < 7
    simulated.world.guests.start("kiosk")
    assert await simulated.until(lambda: simulated.sees("kiosk") == {"1-1"}) < 8
    await simulated.kill()


@in_virtual_time
async def test_a_move_waits_for_the_new_guest_to_be_able_to():
    simulated = await SimulatedAgent(
        "version: 1\nrules: [{match: {kind: mouse}, attach: [desk, kiosk]}]", KIOSK, stopped=[DESK]
    ).start()
    simulated.plug("1-1")
    await settled(simulated)
    simulated.world.guests.start("desk")
    await asyncio.sleep(4)
    assert simulated.sees("kiosk") == {"1-1"}, "desk still boots"
    assert await simulated.until(lambda: simulated.sees("desk") == {"1-1"}) < 4
    await simulated.kill()


@in_virtual_time
async def test_an_earlier_guest_of_the_list_gets_it_as_soon_as_it_can():
    """Nothing but libxl's file tells that a guest can take devices: it is looked for, not waited for."""
    simulated = await SimulatedAgent(
        "version: 1\nrules: [{match: {kind: mouse}, attach: [win, kiosk]}]", KIOSK, stopped=[WIN]
    ).start()
    simulated.plug("1-1")
    await settled(simulated)
    simulated.world.guests.start("win")
    assert await simulated.until(lambda: simulated.at("1-1")["guest"] == "win") < 3
    await simulated.kill()


@in_virtual_time
async def test_a_controller_made_late_in_a_guests_life_has_its_time_to_connect():
    """No frontend after 120 s means no driver; a controller that was made a moment ago proves nothing."""
    bare = GuestConfig(name="kiosk", type=GuestType.PV, device_model=True)
    simulated = await SimulatedAgent(MICE, bare).start()
    await asyncio.sleep(300)
    simulated.plug("1-1")
    await settled(simulated)
    assert simulated.stands("1-1") == HERE
    states = [change.view()["state"] for change in simulated.journal.changes]
    assert "given_up" not in states and states[-1] == "attached"
    await simulated.kill()


@in_virtual_time
async def test_what_dom0_uses_stays_until_unplug():
    simulated = await SimulatedAgent(BOTH, KIOSK, WIN).start()
    simulated.plug("1-1", "0781:5567", kind="storage", speed="high", in_use="storage")
    await settled(simulated)
    assert simulated.stands("1-1") == ("protected", "in_use", None)
    assert not simulated.calls("usbdev-attach")
    await simulated.kill()


# reload


@in_virtual_time
async def test_reload_moves_only_what_must_move():
    simulated = await SimulatedAgent(BOTH, KIOSK, DESK, WIN).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settled(simulated)
    said = await simulated.reload(BOTH.replace("attach: kiosk", "attach: desk"))
    await settled(simulated)
    assert said == "policy in force: 2 rules"
    assert (simulated.stands("1-1"), simulated.at("1-2")["guest"]) == (THERE, "win")
    assert (len(simulated.calls("usbdev-detach")), len(simulated.calls("usbdev-attach"))) == (1, 3)
    said = await simulated.reload("version: 1\nrules: [{match: {kind: mouse}, attach: }]")
    await settled(simulated)
    assert said.endswith("the last good policy stays in force")
    assert (simulated.stands("1-1"), simulated.at("1-1")["rule"], len(simulated.calls("usbdev-detach"))) == (
        THERE,
        "mice",
        1,
    )
    await simulated.reload("version: 1\nprotect: [{kind: mouse}]")
    await settled(simulated)
    assert (simulated.stands("1-1"), simulated.stands("1-2")) == (
        ("protected", "protect", None),
        ("host", "default", None),
    )
    await simulated.kill()


@in_virtual_time
async def test_without_a_good_policy_only_stale_ports_are_cleared():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "046d:c017")
    await settled(simulated)
    await simulated.kill()
    simulated.policy = "version: 2"
    simulated.pull("1-2")
    await simulated.start()
    simulated.plug("1-3", "046d:c018")
    await settled(simulated)
    assert simulated.stands("1-1") == ("pending", "no_policy", "kiosk")
    assert simulated.stands("1-3") == ("pending", "no_policy", None)
    assert len(simulated.calls("usbdev-attach")) == 2
    await simulated.reload(MICE)
    await settled(simulated)
    assert (simulated.stands("1-1"), simulated.stands("1-3")) == (HERE, HERE)
    await simulated.kill()


# by hand


@in_virtual_time
async def test_by_hand():
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1")
    await settled(simulated)
    service = simulated.agent.service
    assert "attached to desk" in await service.attach("1-1", "desk")
    assert simulated.sees("desk") == {"1-1"} or await simulated.until(lambda: simulated.sees("desk") == {"1-1"}) < 1
    assert "by hand" in await service.detach("1-1")
    await settled(simulated)
    assert simulated.sees("desk") == simulated.sees("kiosk") == set()
    await service.release("1-1")
    await settled(simulated)
    assert simulated.stands("1-1") == HERE
    await simulated.kill()


@in_virtual_time
async def test_by_hand_elsewhere_than_where_it_failed():
    """What went wrong before the order is no answer to the order."""
    simulated = await SimulatedAgent(
        "version: 1\nguests: {win: {controller: {type: qusb}}}\nrules: [{match: {kind: storage}, attach: win}]",
        KIOSK,
        GuestConfig(name="win", type=GuestType.HVM, frontend=False),
    ).start()
    simulated.plug("1-1", "0781:5567", kind="storage", speed="high")
    await settled(simulated, 150)
    assert simulated.stands("1-1") == ("given_up", "no_frontend", None)
    assert "attached to kiosk" in await simulated.agent.service.attach("1-1", "kiosk")
    await simulated.kill()


@in_virtual_time
async def test_someone_at_the_console_is_respected():
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settled(simulated)
    await simulated.world.commands.console(["usbdev-detach", "kiosk", "0", "1"])
    stick = present(simulated, "1-2")
    await simulated.world.commands.console(
        ["usbdev-attach", "desk", f"hostbus={stick.bus}", f"hostaddr={stick.number}"]
    )
    await settled(simulated, 100)
    assert simulated.stands("1-1") == ("host", "by_hand", None)
    assert simulated.stands("1-2") == ("foreign", "foreign", "desk")
    assert simulated.sees("desk") == {"1-2"}
    for order in (simulated.agent.service.detach("1-2"), simulated.agent.service.attach("1-2", "kiosk")):
        with pytest.raises(Refused) as refused:
            await order
        assert "xl usbdev-detach desk 0 1" in refused.value.parameters["reason"]
    simulated.pull("1-1")
    simulated.plug("1-1")
    await settled(simulated)
    assert simulated.stands("1-1") == HERE
    await simulated.kill()


@in_virtual_time
async def test_a_domain_that_empties_its_ports_before_it_goes_is_no_console():
    """libxl takes every device off before it takes the domain away; a look may fall in between."""
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settled(simulated)
    simulated.world.tree.write("/local/domain/0/backend/qusb/1/0/port/1", "")
    await asyncio.sleep(0.5)
    simulated.world.guests.destroy("kiosk")
    await asyncio.sleep(3)
    simulated.world.guests.start("kiosk")
    await settled(simulated)
    assert simulated.stands("1-1") == HERE
    await simulated.kill()


@pytest.mark.parametrize(
    "order, kind, reason",
    [
        (("attach", "1-9", "kiosk"), "no_device", "no device '1-9'"),
        (("attach", "1-1", "nobody"), "guest_stopped", "`xl list`"),
        (("attach", "1-2", "kiosk"), "protected", "the policy's `protect`"),
        (("attach", "1-3", "desk"), "unfit_isochronous", "isochronous"),
        (("detach", "1-9"), "no_device", "no device '1-9'"),
        (("release", "x"), "no_device", "`xenplug devices`"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
@in_virtual_time
async def test_refusals(order, kind, reason):
    simulated = await SimulatedAgent(MICE + "protect: [{kind: storage}]\n", KIOSK, DESK).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    simulated.plug("1-3", "046d:0825", kind="video", speed="high")
    await settled(simulated)
    verb, *words = order
    with pytest.raises(Refused) as refused:
        await getattr(simulated.agent.service, verb)(*words)
    assert reason in refused.value.parameters["reason"]
    assert refused.value.parameters["cause"] == kind
    await simulated.kill()


@in_virtual_time
async def test_an_order_for_what_is_pulled_meanwhile_says_so():
    simulated = await SimulatedAgent("version: 1", KIOSK).start()
    simulated.plug("1-1")
    await settled(simulated)
    order = asyncio.create_task(simulated.agent.service.attach("1-1", "kiosk"))
    await asyncio.sleep(0.1)
    simulated.pull("1-1")
    simulated.plug("1-1", "046d:c017")
    with pytest.raises(Refused, match="no_device"):
        await order
    await settled(simulated)
    assert simulated.stands("1-1") == ("host", "default", None)
    await simulated.kill()


# telling


@in_virtual_time
async def test_the_journal_has_one_line_for_each_change():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settled(simulated, 200)
    simulated.pull("1-1")
    await settled(simulated)
    assert [change.view()["state"] for change in simulated.journal.changes] == ["attached", "unplugged"]
    await simulated.kill()


@in_virtual_time
async def test_since_is_when_it_began():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settled(simulated)
    before = simulated.at("1-1")["since"]
    await settled(simulated, 100)
    assert simulated.at("1-1")["since"] == before
    await simulated.agent.service.detach("1-1")
    assert simulated.at("1-1")["since"] > before
    await simulated.kill()


@in_virtual_time
async def test_looking_costs_nothing_when_nothing_happens():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settled(simulated)
    before = simulated.agent.reconciler.round
    await asyncio.sleep(600)
    assert simulated.agent.reconciler.round - before < 45
    await simulated.kill()


@in_virtual_time
async def test_orders_go_through_the_ledger_and_are_kept():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settled(simulated)
    await simulated.agent.service.detach("1-1")
    assert simulated.ledger_store.load().orders.overrides == {DeviceKey.parse("1-1@2"): Override(OrderAction.DETACH)}
    await simulated.kill()


def test_the_guests_of_these_stories_are_what_they_seem():
    assert KIOSK.controllers == (QUSB,) and WIN.type is GuestType.HVM
