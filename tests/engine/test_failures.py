"""Refusals of xl, its silent failures and its hangs: retried, given up, and harmless to other guests."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from tests.simulated_agent import (
    BOTH,
    KIOSK,
    MICE,
    WIN,
    SimulatedAgent,
    in_virtual_time,
    killed_in_the_middle_of_a_pull,
    settle,
)

from xenplug.core.model import Bdf, ControllerType, GuestType
from xenplug.core.policy.rules import ControllerSpec
from xenplug.engine.context import STOP_TIMEOUT
from xenplug.scenario.simulated_floor import LedgerInMemory
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.sockets import Bus, HostController
from xenplug.simulator.toolstack import XlCall

HERE, THERE = ("attached", "used", "kiosk"), ("attached", "used", "desk")


@pytest.mark.parametrize("how", ["refused", "killed", "silent"])
@in_virtual_time
async def test_a_few_failures_are_retried(how):
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.world.commands.failures.plan("usbdev-attach", 2, how)
    simulated.plug("1-1")
    await simulated.wait_until(lambda: simulated.state_of("1-1") == HERE)
    assert len(simulated.xl_calls("usbdev-attach")) == 3
    await simulated.kill()


@pytest.mark.parametrize("how", ["refused", "killed", "silent"])
@in_virtual_time
async def test_a_controller_that_was_not_made_does_not_count(how):
    simulated = await SimulatedAgent(BOTH, WIN, KIOSK).start()
    simulated.world.commands.failures.plan("usbctrl-attach", 2, how)
    simulated.plug("1-1", "0781:5567", kind="storage", speed="high")
    await settle(simulated)
    assert simulated.devices_of("win") == {"1-1"}
    ledger = simulated.agent.reconciler.ledger
    assert (ledger.domain(1).controllers_made, ledger.troubles) == ({0}, {})
    await simulated.kill()


@in_virtual_time
async def test_a_device_that_qemu_does_not_know_is_still_detached():
    """xl cannot: qemu knows no such device, so xl writes the busid back (xen-facts T22)."""
    simulated = await SimulatedAgent(BOTH, WIN, KIOSK).start()
    simulated.world.commands.failures.plan("usbdev-attach", 1, "silent")
    simulated.plug("1-1", "0781:5567", kind="storage", speed="high")
    await simulated.wait_until(lambda: simulated.devices_of("win") == {"1-1"})
    simulated.world.commands.failures.plan("usbdev-attach", 1, "silent")
    simulated.plug("1-2", "0781:5568", kind="storage", speed="high")
    await asyncio.sleep(2)
    await simulated.agent.service.detach("1-2")
    assert simulated.state_of("1-2") == ("host", "by_hand", None)
    await simulated.kill()


@in_virtual_time
async def test_a_port_that_qemu_still_holds_is_skipped():
    """The agent was killed after it emptied a port, and the ledger is lost: nothing shows what is left in qemu."""
    simulated = await killed_in_the_middle_of_a_pull()
    simulated.ledger_store = LedgerInMemory(simulated.world)
    await simulated.start()
    simulated.plug("1-2", "0781:5568", kind="storage", speed="high")
    await settle(simulated)
    assert (simulated.devices_of("win"), simulated.device_json("1-2")["guest_port"]) == ({"1-2"}, 2)
    await simulated.kill()


@in_virtual_time
async def test_giving_up_is_visible_and_ends_by_release():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.world.commands.failures.plan("usbdev-attach", 8, "refused")
    simulated.plug("1-1")
    await simulated.wait_until(lambda: simulated.state_of("1-1")[:2] == ("failing", "refused"))
    assert simulated.device_json("1-1")["next_try"] and simulated.device_json("1-1")["attempts"] == 1
    await settle(simulated, 300)
    assert (simulated.state_of("1-1"), simulated.device_json("1-1")["attempts"]) == (("given_up", "refused", None), 8)
    starts = [c.start for c in simulated.xl_calls("usbdev-attach")]
    assert [round(b - a - 0.3) for a, b in pairwise(starts)] == [1, 2, 4, 8, 16, 32, 60]
    await settle(simulated, 300)
    assert len(simulated.xl_calls("usbdev-attach")) == 8
    await simulated.agent.service.release("1-1")
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    await simulated.kill()


@in_virtual_time
async def test_old_failures_do_not_count_for_ever():
    """Failures in a row: an attachment that lasts ends the row."""
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.world.commands.failures.plan("usbdev-attach", 5, "refused")
    simulated.plug("1-1")
    await settle(simulated, 200)
    assert simulated.state_of("1-1") == HERE
    assert simulated.agent.reconciler.ledger.troubles == {}
    await simulated.kill()


@pytest.mark.parametrize("works", [True, False], ids=["seen late", "refused by the kernel"])
@in_virtual_time
async def test_an_authorisation_that_does_not_show_is_no_reason_to_spin(works):
    simulated = await SimulatedAgent("version: 1\nrules: [{match: {kind: mouse}, action: block}]", KIOSK).start()
    await asyncio.sleep(1)
    tries: list[float] = []

    async def authorize(device: object, allowed: bool) -> bool:
        tries.append(asyncio.get_running_loop().time())
        return works

    simulated.world.bus.authorize = authorize  # type: ignore[method-assign]
    simulated.plug("1-1")
    before = simulated.agent.reconciler.round
    await asyncio.sleep(100)
    assert [round(b - a) for a, b in pairwise(tries)][:6] == ([1] * 6 if works else [1, 2, 4, 8, 16, 32])
    assert simulated.agent.reconciler.round - before < 300
    await simulated.kill()


# slow tools


@in_virtual_time
async def test_a_hanging_xl_does_not_delay_other_guests():
    simulated = await SimulatedAgent(BOTH, KIOSK, WIN).start()
    await asyncio.sleep(1)
    simulated.world.commands.failures.plan("usbdev-attach", 1, "hang")
    simulated.plug("1-1")
    await asyncio.sleep(0.2)
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    assert await simulated.wait_until(lambda: simulated.devices_of("win") == {"1-2"}) < 2
    simulated.pull("1-2")
    await asyncio.sleep(0.1)
    assert simulated.world.stale_ports() == []
    await simulated.wait_until(lambda: simulated.state_of("1-1") == HERE, 70)
    await simulated.kill()


@in_virtual_time
async def test_a_hanging_xl_list_delays_nothing():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.world.commands.failures.plan("list", 99, "hang")
    await asyncio.sleep(61)
    simulated.plug("1-1")
    assert await simulated.wait_until(lambda: simulated.state_of("1-1") == HERE) < 2
    await asyncio.sleep(200)
    assert len(simulated.xl_calls("list")) < 8, "they do not pile up"
    await simulated.kill()
    simulated.pull("1-1")
    await simulated.start()
    assert await simulated.wait_until(lambda: simulated.world.stale_ports() == [], 5) < 4
    await simulated.kill()


def meetings(calls: list[XlCall]) -> list[tuple[XlCall, XlCall]]:
    """Calls that ran at the same time."""
    return [
        (a, b)
        for i, a in enumerate(calls)
        for b in calls[i + 1 :]
        if a.start < (b.end or a.start) and b.start < (a.end or b.start + 1)
    ]


@in_virtual_time
async def test_one_call_at_a_time_for_a_guest_and_guests_side_by_side():
    simulated = await SimulatedAgent(BOTH, KIOSK, WIN).start()
    await asyncio.sleep(1)
    for n in range(1, 5):
        simulated.plug(f"1-{n}", f"046d:c00{n}")
        simulated.plug(f"1-{n + 4}", f"0781:000{n}", kind="storage", speed="high")
    await asyncio.sleep(1.2)
    simulated.pull("1-1")
    simulated.pull("1-5")
    simulated.world.kernel.reenumerate("1-6")
    await settle(simulated)
    await simulated.reload(MICE.replace("kiosk", "win"))
    await settle(simulated)
    calls = [c for c in simulated.world.commands.calls if c.command != "list"]
    assert len(calls) > 14
    met = meetings(calls)
    assert [pair for pair in met if pair[0].argv[2] == pair[1].argv[2]] == []
    assert met, "different guests do not wait for each other"
    assert simulated.devices_of("win") == {"1-2", "1-3", "1-4"}
    await simulated.kill()


CROWD, CALL = 64, 0.3
"""Devices, and the seconds that a simulated call of xl takes."""


@in_virtual_time
async def test_four_guests_are_served_in_a_quarter_of_the_time():
    """64 devices come at once, each call takes 0.3 s, and one guest's calls never overlap."""
    qusb = ControllerSpec(ControllerType.QUSB, 2, 31)
    guests = [GuestConfig(name=f"g{n}", type=GuestType.PV, controllers=(qusb,)) for n in range(4)]
    rules = "".join(f"  - {{match: {{device: '1234:000{n}'}}, attach: g{n}}}\n" for n in range(4))
    host = HostController(buses={1: Bus(CROWD)}, bdf=Bdf("0000:00:14.0"))
    simulated = await SimulatedAgent(f"version: 1\nrules:\n{rules}", *guests, controllers=[host]).start()
    await settle(simulated)
    begun = asyncio.get_running_loop().time()
    for n in range(CROWD):
        simulated.plug(f"1-{n + 1}", f"1234:000{n % 4}", kind="serial", speed="full")
    await simulated.wait_until(lambda: all(len(simulated.devices_of(guest.name)) == CROWD // 4 for guest in guests))
    took = asyncio.get_running_loop().time() - begun
    assert took < CROWD * CALL / 4 * 1.2
    assert [pair for pair in meetings(simulated.xl_calls("usbdev-attach")) if pair[0].argv[2] == pair[1].argv[2]] == []
    assert len(simulated.xl_calls("usbdev-attach")) == CROWD, "none was tried twice"
    await simulated.kill()


@in_virtual_time
async def test_a_device_that_hangs_in_the_kernel_is_not_attached_and_the_reason_is_shown():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.world.bus.hanging = {"1-1"}
    simulated.plug("1-1")
    simulated.plug("1-2")
    await simulated.wait_until(lambda: simulated.state_of("1-2") == HERE)
    await simulated.wait_until(lambda: simulated.state_of("1-1")[:2] == ("failing", "refused"))
    assert "hangs in the kernel" in simulated.device_json("1-1")["reason"]
    assert len(simulated.xl_calls("usbdev-attach")) == 1
    simulated.world.bus.hanging = set()
    await simulated.wait_until(lambda: simulated.state_of("1-1") == HERE)
    await simulated.kill()


@in_virtual_time
async def test_a_device_that_hangs_in_the_kernel_is_not_blocked_and_the_reason_is_shown():
    simulated = await SimulatedAgent("version: 1\nrules: [{match: {kind: mouse}, action: block}]\n", KIOSK).start()
    simulated.world.bus.hanging = {"1-1"}
    simulated.plug("1-1")
    await simulated.wait_until(lambda: "hangs in the kernel" in str(simulated.device_json("1-1").get("reason")))
    await simulated.kill()


@in_virtual_time
async def test_the_agent_stops_though_xenstore_is_lost_in_the_middle_of_an_act():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await simulated.wait_until(lambda: bool(simulated.xl_calls("usbdev-attach")))
    simulated.world.store.refuses = True
    simulated.world.store.lose()
    began = asyncio.get_running_loop().time()
    await simulated.stop()
    assert asyncio.get_running_loop().time() - began <= STOP_TIMEOUT + 1
