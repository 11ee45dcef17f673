"""The life of a device and of a guest: retries after giving up, reports, and the state after a crash or a suspend."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from tests.simulated_agent import (
    DESK,
    KIOSK,
    MICE,
    SimulatedAgent,
    in_virtual_time,
    killed_in_the_middle_of_a_pull,
    settle,
)

from xenplug.adapters.varlink import Refused
from xenplug.core.model import ControllerType, Device, GuestType
from xenplug.core.policy.rules import ControllerSpec
from xenplug.simulator.domain import GuestConfig

SMALL = GuestConfig(name="kiosk", type=GuestType.PV, controllers=(ControllerSpec(ControllerType.QUSB, 2, 2),))
TRIES = 8
HERE = ("attached", "used", "kiosk")


async def given_up(simulated: SimulatedAgent, port: str) -> None:
    simulated.world.commands.failures.plan("usbdev-attach", TRIES, "refused")
    simulated.plug(port)
    await simulated.wait_until(lambda: simulated.state_of(port)[0] == "given_up", within=400)


@in_virtual_time
async def test_a_port_that_comes_free_ends_giving_up():
    simulated = await SimulatedAgent(MICE, SMALL).start()
    simulated.plug("1-1")
    await settle(simulated)
    await given_up(simulated, "1-2")
    simulated.pull("1-1")
    await settle(simulated)
    assert simulated.state_of("1-2") == ("attached", "used", "kiosk")
    await simulated.kill()


@in_virtual_time
async def test_a_port_that_someone_else_frees_ends_giving_up():
    simulated = await SimulatedAgent(MICE, SMALL).start()
    simulated.plug("1-1")
    await settle(simulated)
    await given_up(simulated, "1-2")
    await simulated.world.commands.console(["usbdev-detach", "kiosk", "0", "1"])
    await settle(simulated)
    assert simulated.state_of("1-2") == ("attached", "used", "kiosk")
    await simulated.kill()


@in_virtual_time
async def test_a_driver_that_connects_ends_giving_up():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    await given_up(simulated, "1-2")
    simulated.world.guests.frontend("kiosk", False)
    await asyncio.sleep(1)
    assert simulated.state_of("1-2")[0] != "attached"
    simulated.world.guests.frontend("kiosk", True)
    await settle(simulated)
    assert simulated.state_of("1-2") == ("attached", "used", "kiosk")
    await simulated.kill()


@in_virtual_time
async def test_two_devices_that_fail_do_not_restart_each_other():
    """The port that a failed device leaves causes no retry."""
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.world.commands.failures.plan("usbdev-attach", 10_000, "silent")
    simulated.plug("1-1")
    simulated.plug("1-2")
    await simulated.wait_until(
        lambda: simulated.state_of("1-1")[0] == simulated.state_of("1-2")[0] == "given_up", within=900
    )
    calls = len(simulated.xl_calls("usbdev-attach"))
    await asyncio.sleep(3600)
    assert len(simulated.xl_calls("usbdev-attach")) == calls
    await simulated.kill()


@in_virtual_time
async def test_a_detach_that_keeps_failing_is_shown():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.commands.failures.plan("usbdev-detach", 3, "refused")
    try:
        await simulated.agent.service.detach("1-1")
        raise AssertionError("a detach that failed was said to be done")
    except Refused as refused:
        assert refused.parameters["cause"] == "refused"
        assert "xl did not detach it from kiosk" in refused.parameters["reason"]
    view = simulated.device_json("1-1")
    assert (view["state"], view["guest"], view["attempts"]) == ("failing", "kiosk", 1)
    await settle(simulated)
    assert simulated.state_of("1-1") == ("host", "by_hand", None)
    await simulated.kill()


@in_virtual_time
async def test_a_block_that_cannot_be_written_is_not_called_blocked():
    simulated = await SimulatedAgent("version: 1\nrules: [{match: {kind: mouse}, action: block}]\n").start()
    writes = simulated.world.bus.authorize

    async def refuses(_device: Device, _allowed: bool) -> bool:
        return False

    simulated.world.bus.authorize = refuses
    simulated.plug("1-1")
    await asyncio.sleep(2)
    assert simulated.state_of("1-1")[:2] == ("failing", "refused")
    assert "not blocked" in simulated.device_json("1-1")["reason"]
    simulated.world.bus.authorize = writes
    await settle(simulated, 100)
    assert simulated.state_of("1-1")[:2] == ("blocked", "rule")
    assert simulated.device_json("1-1")["authorized"] is False
    await simulated.kill()


@in_virtual_time
async def test_a_manual_attach_is_the_reason_not_the_rule():
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1")
    await settle(simulated)
    assert "manual override" in await simulated.agent.service.attach("1-1", "desk")
    await settle(simulated)
    view = simulated.device_json("1-1")
    assert (view["guest"], view["rule"], view["by_hand"]) == ("desk", None, True)
    assert "manual override" in view["reason"]
    await simulated.kill()


@in_virtual_time
async def test_a_foreign_device_is_foreign_whatever_was_ordered():
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1", kind="serial")
    await settle(simulated)
    await simulated.agent.service.detach("1-1")
    await simulated.world.commands.console(["usbdev-attach", "desk", "hostbus=1", "hostaddr=2"])
    await settle(simulated)
    assert simulated.state_of("1-1") == ("foreign", "foreign", "desk")
    await simulated.kill()


@in_virtual_time
async def test_a_block_that_ends_returns_the_device_though_its_guest_is_stopped():
    simulated = await SimulatedAgent(
        "version: 1\nrules: [{match: {kind: mouse}, action: block}]\n", stopped=[KIOSK]
    ).start()
    simulated.plug("1-1")
    await settle(simulated)
    assert simulated.device_json("1-1")["authorized"] is False
    await simulated.reload(MICE)
    await settle(simulated)
    assert (simulated.state_of("1-1")[0], simulated.device_json("1-1")["authorized"]) == ("pending", True)
    await simulated.kill()


@in_virtual_time
async def test_no_further_controller_while_the_last_one_connects():
    slow = GuestConfig(name="kiosk", type=GuestType.PV, controllers=(ControllerSpec(ControllerType.QUSB, 2, 1),))
    more = "guests: {kiosk: {controller: {type: qusb, version: 2, ports: 4}, max_controllers: 3}}\n"
    simulated = await SimulatedAgent(MICE + more, slow).start()
    simulated.world.guests.times = replace(simulated.world.guests.times, connect=5.0)
    for port in ("1-1", "1-2", "1-3"):
        simulated.plug(port)
    await settle(simulated, 60)
    assert (simulated.devices_of("kiosk"), len(simulated.xl_calls("usbctrl-attach"))) == ({"1-1", "1-2", "1-3"}, 1)
    await simulated.kill()


@in_virtual_time
async def test_a_kill_between_emptying_a_port_and_telling_qemu_leaves_nothing_behind():
    simulated = await killed_in_the_middle_of_a_pull()
    assert [c.end for c in simulated.xl_calls("qemu-monitor-command")] == [None]
    await simulated.start()
    await settle(simulated)
    assert simulated.xl_calls("qemu-monitor-command")[-1].argv[-1] == "device_del xenusb-1-2"
    assert simulated.xl_calls("qemu-monitor-command")[-1].code == 0
    await simulated.kill()


@in_virtual_time
async def test_one_line_for_a_manual_detach(caplog):
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    with caplog.at_level(logging.INFO, "xenplug"):
        await simulated.agent.service.detach("1-1")
        await settle(simulated)
    assert [r.getMessage() for r in caplog.records] == [
        "1-1 046d:c016 (mouse): stays with the host: manually detached until it is unplugged; "
        "`xenplug release` ends the override"
    ]
    await simulated.kill()


@in_virtual_time
async def test_everything_is_read_again_after_a_suspend():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    rescans = []
    reads = simulated.world.bus.rescan

    async def counted() -> None:
        rescans.append(asyncio.get_running_loop().time())
        await reads()

    simulated.world.bus.rescan = counted
    simulated.world.suspend(3600)
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "used", "kiosk")
    assert len(rescans) == 1
    await simulated.kill()


@in_virtual_time
async def test_a_guest_that_is_renamed_is_another_guest():
    """xl rename: the domain stays, but its name, which the policy uses, changes."""
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    simulated.world.tree.write("/local/domain/1/name", "cafe")
    await settle(simulated)
    assert (simulated.state_of("1-1"), simulated.devices_of("kiosk")) == (("pending", "guest_stopped", None), set())
    await simulated.reload(MICE.replace("kiosk", "cafe"))
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "used", "cafe")
    simulated.world.tree.write("/local/domain/1/name", "kiosk")
    await simulated.reload(MICE)
    await settle(simulated)
    assert simulated.state_of("1-1") == HERE
    assert simulated.agent.reconciler.ledger.orders.overrides == {}
    await simulated.kill()
