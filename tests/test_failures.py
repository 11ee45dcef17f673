"""What xl refuses, what it does not say, and what it never ends: tried again, given up, and no burden to others."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from tests.rig import BOTH, KIOSK, MICE, WIN, Rig, killed_in_the_middle_of_a_pull, settled, told

from xenplug.core.model import Bdf, ControllerType, GuestType
from xenplug.core.policy.rules import ControllerSpec
from xenplug.reconciler import FAREWELL
from xenplug.sim.domain import GuestConfig
from xenplug.sim.sockets import Bus, HostController
from xenplug.sim.toolstack import Call
from xenplug.stage import KeptInMemory

HERE, THERE = ("attached", "used", "kiosk"), ("attached", "used", "desk")


@pytest.mark.parametrize("how", ["refused", "killed", "silent"])
@told
async def test_a_few_failures_are_overcome(how):
    rig = await Rig(MICE, KIOSK).start()
    rig.world.commands.failures.plan("usbdev-attach", 2, how)
    rig.plug("1-1")
    await rig.until(lambda: rig.stands("1-1") == HERE)
    assert len(rig.calls("usbdev-attach")) == 3
    await rig.kill()


@pytest.mark.parametrize("how", ["refused", "killed", "silent"])
@told
async def test_a_controller_that_was_not_made_does_not_count(how):
    rig = await Rig(BOTH, WIN, KIOSK).start()
    rig.world.commands.failures.plan("usbctrl-attach", 2, how)
    rig.plug("1-1", "0781:5567", kind="storage", speed="high")
    await settled(rig)
    assert rig.sees("win") == {"1-1"}
    assert rig.agent.reconciler.ledger.made == {1: {0}} and rig.agent.reconciler.ledger.troubles == {}
    await rig.kill()


@told
async def test_a_device_that_qemu_never_heard_of_is_taken_off_all_the_same():
    """xl cannot: qemu knows no such device, so xl writes the busid back (xen-facts T22)."""
    rig = await Rig(BOTH, WIN, KIOSK).start()
    rig.world.commands.failures.plan("usbdev-attach", 1, "silent")
    rig.plug("1-1", "0781:5567", kind="storage", speed="high")
    await rig.until(lambda: rig.sees("win") == {"1-1"})
    rig.world.commands.failures.plan("usbdev-attach", 1, "silent")
    rig.plug("1-2", "0781:5568", kind="storage", speed="high")
    await asyncio.sleep(2)
    await rig.agent.service.detach("1-2")
    assert rig.stands("1-2") == ("host", "by_hand", None)
    await rig.kill()


@told
async def test_a_port_that_qemu_still_holds_is_passed_over():
    """The agent was killed after it emptied a port, and its ledger with it: nobody knows what is left in qemu."""
    rig = await killed_in_the_middle_of_a_pull()
    rig.keeper = KeptInMemory(rig.world)
    await rig.start()
    rig.plug("1-2", "0781:5568", kind="storage", speed="high")
    await settled(rig)
    assert (rig.sees("win"), rig.at("1-2")["guest_port"]) == ({"1-2"}, 2)
    await rig.kill()


@told
async def test_giving_up_is_visible_and_ends_by_release():
    rig = await Rig(MICE, KIOSK).start()
    rig.world.commands.failures.plan("usbdev-attach", 8, "refused")
    rig.plug("1-1")
    await rig.until(lambda: rig.stands("1-1")[:2] == ("failing", "refused"))
    assert rig.at("1-1")["next_try"] and rig.at("1-1")["attempts"] == 1
    await settled(rig, 300)
    assert (rig.stands("1-1"), rig.at("1-1")["attempts"]) == (("given_up", "refused", None), 8)
    starts = [c.start for c in rig.calls("usbdev-attach")]
    assert [round(b - a - 0.3) for a, b in pairwise(starts)] == [1, 2, 4, 8, 16, 32, 60]
    await settled(rig, 300)
    assert len(rig.calls("usbdev-attach")) == 8
    await rig.agent.service.release("1-1")
    await settled(rig)
    assert rig.stands("1-1") == HERE
    await rig.kill()


@told
async def test_old_failures_do_not_count_for_ever():
    """Failures in a row: an attachment that held ends the row."""
    rig = await Rig(MICE, KIOSK).start()
    rig.world.commands.failures.plan("usbdev-attach", 5, "refused")
    rig.plug("1-1")
    await settled(rig, 200)
    assert rig.stands("1-1") == HERE
    assert rig.agent.reconciler.ledger.troubles == {}
    await rig.kill()


@pytest.mark.parametrize("works", [True, False], ids=["seen late", "refused by the kernel"])
@told
async def test_an_authorisation_that_does_not_show_is_no_reason_to_spin(works):
    rig = await Rig("version: 1\nrules: [{match: {kind: mouse}, action: block}]", KIOSK).start()
    await asyncio.sleep(1)
    tries: list[float] = []

    async def authorize(device: object, allowed: bool) -> bool:
        tries.append(asyncio.get_running_loop().time())
        return works

    rig.world.bus.authorize = authorize  # type: ignore[method-assign]
    rig.plug("1-1")
    before = rig.agent.reconciler.round
    await asyncio.sleep(100)
    assert [round(b - a) for a, b in pairwise(tries)][:6] == ([1] * 6 if works else [1, 2, 4, 8, 16, 32])
    assert rig.agent.reconciler.round - before < 300
    await rig.kill()


# slow tools


@told
async def test_a_hanging_xl_delays_nobody_else():
    rig = await Rig(BOTH, KIOSK, WIN).start()
    await asyncio.sleep(1)
    rig.world.commands.failures.plan("usbdev-attach", 1, "hang")
    rig.plug("1-1")
    await asyncio.sleep(0.2)
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    assert await rig.until(lambda: rig.sees("win") == {"1-2"}) < 2
    rig.pull("1-2")
    await asyncio.sleep(0.1)
    assert rig.world.stale_ports() == []
    await rig.until(lambda: rig.stands("1-1") == HERE, 70)
    await rig.kill()


@told
async def test_a_hanging_list_delays_nobody():
    rig = await Rig(MICE, KIOSK).start()
    rig.world.commands.failures.plan("list", 99, "hang")
    await asyncio.sleep(61)
    rig.plug("1-1")
    assert await rig.until(lambda: rig.stands("1-1") == HERE) < 2
    await asyncio.sleep(200)
    assert len(rig.calls("list")) < 8, "they do not pile up"
    await rig.kill()
    rig.pull("1-1")
    await rig.start()
    assert await rig.until(lambda: rig.world.stale_ports() == [], 5) < 4
    await rig.kill()


def meetings(calls: list[Call]) -> list[tuple[Call, Call]]:
    """Calls that ran at the same time."""
    return [
        (a, b)
        for i, a in enumerate(calls)
        for b in calls[i + 1 :]
        if a.start < (b.end or a.start) and b.start < (a.end or b.start + 1)
    ]


@told
async def test_one_call_at_a_time_for_a_guest_and_guests_side_by_side():
    rig = await Rig(BOTH, KIOSK, WIN).start()
    await asyncio.sleep(1)
    for n in range(1, 5):
        rig.plug(f"1-{n}", f"046d:c00{n}")
        rig.plug(f"1-{n + 4}", f"0781:000{n}", kind="storage", speed="high")
    await asyncio.sleep(1.2)
    rig.pull("1-1")
    rig.pull("1-5")
    rig.world.kernel.reenumerate("1-6")
    await settled(rig)
    await rig.reload(MICE.replace("kiosk", "win"))
    await settled(rig)
    calls = [c for c in rig.world.commands.calls if c.command != "list"]
    assert len(calls) > 14
    met = meetings(calls)
    assert [pair for pair in met if pair[0].argv[2] == pair[1].argv[2]] == []
    assert met, "different guests do not wait for each other"
    assert rig.sees("win") == {"1-2", "1-3", "1-4"}
    await rig.kill()


CROWD, CALL = 64, 0.3
"""Devices, and the seconds that a simulated call of xl takes."""


@told
async def test_four_guests_are_served_in_a_quarter_of_the_time():
    """64 devices come at once, each call takes 0.3 s, and one guest's calls never meet."""
    qusb = ControllerSpec(ControllerType.QUSB, 2, 31)
    guests = [GuestConfig(name=f"g{n}", type=GuestType.PV, controllers=(qusb,)) for n in range(4)]
    rules = "".join(f"  - {{match: {{device: '1234:000{n}'}}, attach: g{n}}}\n" for n in range(4))
    host = HostController(buses={1: Bus(CROWD)}, bdf=Bdf("0000:00:14.0"))
    rig = await Rig(f"version: 1\nrules:\n{rules}", *guests, controllers=[host]).start()
    await settled(rig)
    begun = asyncio.get_running_loop().time()
    for n in range(CROWD):
        rig.plug(f"1-{n + 1}", f"1234:000{n % 4}", kind="serial", speed="full")
    await rig.until(lambda: all(len(rig.sees(guest.name)) == CROWD // 4 for guest in guests))
    took = asyncio.get_running_loop().time() - begun
    assert took < CROWD * CALL / 4 * 1.2
    assert [pair for pair in meetings(rig.calls("usbdev-attach")) if pair[0].argv[2] == pair[1].argv[2]] == []
    assert len(rig.calls("usbdev-attach")) == CROWD, "none was tried twice"
    await rig.kill()


@told
async def test_a_device_over_which_the_kernel_hangs_is_not_attached_and_says_why():
    rig = await Rig(MICE, KIOSK).start()
    rig.world.bus.hanging = {"1-1"}
    rig.plug("1-1")
    rig.plug("1-2")
    await rig.until(lambda: rig.stands("1-2") == HERE)
    await rig.until(lambda: rig.stands("1-1")[:2] == ("failing", "refused"))
    assert "the kernel does not come back" in rig.at("1-1")["reason"]
    assert len(rig.calls("usbdev-attach")) == 1
    rig.world.bus.hanging = set()
    await rig.until(lambda: rig.stands("1-1") == HERE)
    await rig.kill()


@told
async def test_a_device_over_which_the_kernel_hangs_is_not_blocked_and_says_why():
    rig = await Rig("version: 1\nrules: [{match: {kind: mouse}, action: block}]\n", KIOSK).start()
    rig.world.bus.hanging = {"1-1"}
    rig.plug("1-1")
    await rig.until(lambda: "the kernel does not come back" in str(rig.at("1-1").get("reason")))
    await rig.kill()


@told
async def test_the_agent_stops_though_xenstore_is_lost_in_the_middle_of_an_act():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await rig.until(lambda: bool(rig.calls("usbdev-attach")))
    rig.world.store.refuses = True
    rig.world.store.lose()
    began = asyncio.get_running_loop().time()
    rig._task.cancel()
    await rig.agent.reconciler.stop()
    assert asyncio.get_running_loop().time() - began <= FAREWELL + 1
