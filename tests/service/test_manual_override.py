"""Manual overrides on a simulated host: orders to the agent, and direct use of xl."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulated_agent import DESK, KIOSK, MICE, SimulatedAgent, device_at, in_virtual_time, settle

from xenplug.adapters.varlink import Refused
from xenplug.core.ledger.records import OrderAction, Override
from xenplug.core.model import DeviceKey, GuestType
from xenplug.simulator.domain import GuestConfig

HERE = ("attached", "used", "kiosk")


@in_virtual_time
async def test_attach_detach_and_release():
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1")
    await settle(simulated)
    service = simulated.agent.service
    assert "attached to desk" in await service.attach("1-1", "desk")
    assert (
        simulated.devices_of("desk") == {"1-1"}
        or await simulated.wait_until(lambda: simulated.devices_of("desk") == {"1-1"}) < 1
    )
    assert "manually detached" in await service.detach("1-1")
    await settle(simulated)
    assert simulated.devices_of("desk") == simulated.devices_of("kiosk") == set()
    await service.release("1-1")
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    await simulated.kill()


@in_virtual_time
async def test_a_manual_attach_to_another_guest_than_the_one_that_failed():
    """A failure before the order is not the result of the order."""
    simulated = await SimulatedAgent(
        "version: 1\nguests: {win: {controller: {type: qusb}}}\nrules: [{match: {kind: storage}, attach: win}]",
        KIOSK,
        GuestConfig(name="win", type=GuestType.HVM, frontend=False),
    ).start()
    simulated.plug("1-1", "0781:5567", kind="storage", speed="high")
    await settle(simulated, 150)
    assert simulated.state_of("1-1") == ("given_up", "no_frontend", None)
    assert "attached to kiosk" in await simulated.agent.service.attach("1-1", "kiosk")
    await simulated.kill()


@in_virtual_time
async def test_someone_at_the_console_is_respected():
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settle(simulated)
    await simulated.world.commands.console(["usbdev-detach", "kiosk", "0", "1"])
    stick = device_at(simulated, "1-2")
    await simulated.world.commands.console(
        ["usbdev-attach", "desk", f"hostbus={stick.bus}", f"hostaddr={stick.number}"]
    )
    await settle(simulated, 100)
    assert simulated.state_of("1-1") == ("host", "by_hand", None)
    assert simulated.state_of("1-2") == ("foreign", "foreign", "desk")
    assert simulated.devices_of("desk") == {"1-2"}
    for order in (simulated.agent.service.detach("1-2"), simulated.agent.service.attach("1-2", "kiosk")):
        with pytest.raises(Refused) as refused:
            await order
        assert "xl usbdev-detach desk 0 1" in refused.value.parameters["reason"]
    simulated.pull("1-1")
    simulated.plug("1-1")
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    await simulated.kill()


@in_virtual_time
async def test_a_domain_that_empties_its_ports_before_it_ends_is_no_manual_detach():
    """libxl detaches every device before it destroys the domain; a round may fall in between."""
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.tree.write("/local/domain/0/backend/qusb/1/0/port/1", "")
    await asyncio.sleep(0.5)
    simulated.world.guests.destroy("kiosk")
    await asyncio.sleep(3)
    simulated.world.guests.start("kiosk")
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
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
    await settle(simulated)
    verb, *words = order
    with pytest.raises(Refused) as refused:
        await getattr(simulated.agent.service, verb)(*words)
    assert reason in refused.value.parameters["reason"]
    assert refused.value.parameters["cause"] == kind
    await simulated.kill()


@in_virtual_time
async def test_an_order_for_a_device_unplugged_meanwhile_reports_that():
    simulated = await SimulatedAgent("version: 1", KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    order = asyncio.create_task(simulated.agent.service.attach("1-1", "kiosk"))
    await asyncio.sleep(0.1)
    simulated.pull("1-1")
    simulated.plug("1-1", "046d:c017")
    with pytest.raises(Refused, match="no_device"):
        await order
    await settle(simulated)
    assert simulated.state_of("1-1") == ("host", "default", None)
    await simulated.kill()


@in_virtual_time
async def test_orders_go_through_the_ledger_and_are_kept():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    await simulated.agent.service.detach("1-1")
    assert simulated.ledger_store.load().orders.overrides == {DeviceKey.parse("1-1@2"): Override(OrderAction.DETACH)}
    await simulated.kill()
