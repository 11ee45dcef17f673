"""The life of a device and of a guest: what ends a giving up, what is told, what a crash or a sleep leaves behind."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from tests.simulated_agent import DESK, KIOSK, MICE, Rig, killed_in_the_middle_of_a_pull, settled, told

from xenplug.core.model import ControllerType, Device, GuestType
from xenplug.core.policy.rules import ControllerSpec
from xenplug.adapters.varlink import Refused
from xenplug.simulator.domain import GuestConfig

SMALL = GuestConfig(name="kiosk", type=GuestType.PV, controllers=(ControllerSpec(ControllerType.QUSB, 2, 2),))
TRIES = 8
HERE = ("attached", "used", "kiosk")


async def given_up(rig: Rig, port: str) -> None:
    rig.world.commands.failures.plan("usbdev-attach", TRIES, "refused")
    rig.plug(port)
    await rig.until(lambda: rig.stands(port)[0] == "given_up", within=400)


@told
async def test_a_port_that_comes_free_ends_giving_up():
    rig = await Rig(MICE, SMALL).start()
    rig.plug("1-1")
    await settled(rig)
    await given_up(rig, "1-2")
    rig.pull("1-1")
    await settled(rig)
    assert rig.stands("1-2") == ("attached", "used", "kiosk")
    await rig.kill()


@told
async def test_a_port_that_someone_else_frees_ends_giving_up():
    rig = await Rig(MICE, SMALL).start()
    rig.plug("1-1")
    await settled(rig)
    await given_up(rig, "1-2")
    await rig.world.commands.console(["usbdev-detach", "kiosk", "0", "1"])
    await settled(rig)
    assert rig.stands("1-2") == ("attached", "used", "kiosk")
    await rig.kill()


@told
async def test_a_driver_that_connects_ends_giving_up():
    rig = await Rig(MICE, KIOSK).start()
    await given_up(rig, "1-2")
    rig.world.guests.frontend("kiosk", False)
    await asyncio.sleep(1)
    assert rig.stands("1-2")[0] != "attached"
    rig.world.guests.frontend("kiosk", True)
    await settled(rig)
    assert rig.stands("1-2") == ("attached", "used", "kiosk")
    await rig.kill()


@told
async def test_two_that_fail_do_not_set_each_other_going():
    """The port a failed device leaves is no news."""
    rig = await Rig(MICE, KIOSK).start()
    rig.world.commands.failures.plan("usbdev-attach", 10_000, "silent")
    rig.plug("1-1")
    rig.plug("1-2")
    await rig.until(lambda: rig.stands("1-1")[0] == rig.stands("1-2")[0] == "given_up", within=900)
    calls = len(rig.calls("usbdev-attach"))
    await asyncio.sleep(3600)
    assert len(rig.calls("usbdev-attach")) == calls
    await rig.kill()


@told
async def test_a_detach_that_keeps_failing_is_shown():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    rig.world.commands.failures.plan("usbdev-detach", 3, "refused")
    try:
        await rig.agent.service.detach("1-1")
        raise AssertionError("a detach that failed was said to be done")
    except Refused as refused:
        assert refused.parameters["cause"] == "refused"
        assert "xl did not take it off kiosk" in refused.parameters["reason"]
    view = rig.at("1-1")
    assert (view["state"], view["guest"], view["attempts"]) == ("failing", "kiosk", 1)
    await settled(rig)
    assert rig.stands("1-1") == ("host", "by_hand", None)
    await rig.kill()


@told
async def test_a_block_that_cannot_be_written_is_not_called_blocked():
    rig = await Rig("version: 1\nrules: [{match: {kind: mouse}, action: block}]\n").start()
    writes = rig.world.bus.authorize

    async def refuses(_device: Device, _allowed: bool) -> bool:
        return False

    rig.world.bus.authorize = refuses
    rig.plug("1-1")
    await asyncio.sleep(2)
    assert rig.stands("1-1")[:2] == ("failing", "refused")
    assert "not blocked" in rig.at("1-1")["reason"]
    rig.world.bus.authorize = writes
    await settled(rig, 100)
    assert rig.stands("1-1")[:2] == ("blocked", "rule")
    assert rig.at("1-1")["authorized"] is False
    await rig.kill()


@told
async def test_by_hand_is_the_reason_not_the_rule():
    rig = await Rig(MICE, KIOSK, DESK).start()
    rig.plug("1-1")
    await settled(rig)
    assert "by hand" in await rig.agent.service.attach("1-1", "desk")
    await settled(rig)
    view = rig.at("1-1")
    assert (view["guest"], view["rule"], view["by_hand"]) == ("desk", None, True)
    assert "by hand" in view["reason"]
    await rig.kill()


@told
async def test_a_foreign_device_is_foreign_whatever_was_ordered():
    rig = await Rig(MICE, KIOSK, DESK).start()
    rig.plug("1-1", kind="serial")
    await settled(rig)
    await rig.agent.service.detach("1-1")
    await rig.world.commands.console(["usbdev-attach", "desk", "hostbus=1", "hostaddr=2"])
    await settled(rig)
    assert rig.stands("1-1") == ("foreign", "foreign", "desk")
    await rig.kill()


@told
async def test_a_block_that_ends_gives_the_device_back_though_its_guest_is_stopped():
    rig = await Rig("version: 1\nrules: [{match: {kind: mouse}, action: block}]\n", stopped=[KIOSK]).start()
    rig.plug("1-1")
    await settled(rig)
    assert rig.at("1-1")["authorized"] is False
    await rig.reload(MICE)
    await settled(rig)
    assert (rig.stands("1-1")[0], rig.at("1-1")["authorized"]) == ("pending", True)
    await rig.kill()


@told
async def test_no_further_controller_while_the_last_one_connects():
    slow = GuestConfig(name="kiosk", type=GuestType.PV, controllers=(ControllerSpec(ControllerType.QUSB, 2, 1),))
    more = "guests: {kiosk: {controller: {type: qusb, version: 2, ports: 4}, max_controllers: 3}}\n"
    rig = await Rig(MICE + more, slow).start()
    rig.world.guests.times = replace(rig.world.guests.times, connect=5.0)
    for port in ("1-1", "1-2", "1-3"):
        rig.plug(port)
    await settled(rig, 60)
    assert (rig.sees("kiosk"), len(rig.calls("usbctrl-attach"))) == ({"1-1", "1-2", "1-3"}, 1)
    await rig.kill()


@told
async def test_a_kill_between_emptying_a_port_and_telling_qemu_leaves_nothing_behind():
    rig = await killed_in_the_middle_of_a_pull()
    assert [c.end for c in rig.calls("qemu-monitor-command")] == [None]
    await rig.start()
    await settled(rig)
    assert rig.calls("qemu-monitor-command")[-1].argv[-1] == "device_del xenusb-1-2"
    assert rig.calls("qemu-monitor-command")[-1].code == 0
    await rig.kill()


@told
async def test_one_line_for_a_detach_by_hand(caplog):
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    with caplog.at_level(logging.INFO, "xenplug"):
        await rig.agent.service.detach("1-1")
        await settled(rig)
    assert [r.getMessage() for r in caplog.records] == [
        "1-1 046d:c016 (mouse): stays with the host: detached by hand until it is unplugged; "
        "`xenplug release` ends that"
    ]
    await rig.kill()


@told
async def test_everything_is_read_anew_after_a_sleep():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    rescans = []
    reads = rig.world.bus.rescan

    async def counted() -> None:
        rescans.append(asyncio.get_running_loop().time())
        await reads()

    rig.world.bus.rescan = counted
    rig.world.suspend(3600)
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "used", "kiosk")
    assert len(rescans) == 1
    await rig.kill()


@told
async def test_a_guest_that_is_renamed_is_another_guest():
    """xl rename: the domain stays, the name it goes by in the policy does not."""
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    assert rig.stands("1-1") == HERE
    rig.world.tree.write("/local/domain/1/name", "cafe")
    await settled(rig)
    assert (rig.stands("1-1"), rig.sees("kiosk")) == (("pending", "guest_stopped", None), set())
    await rig.reload(MICE.replace("kiosk", "cafe"))
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "used", "cafe")
    rig.world.tree.write("/local/domain/1/name", "kiosk")
    await rig.reload(MICE)
    await settled(rig)
    assert rig.stands("1-1") == HERE
    assert rig.agent.reconciler.ledger.overrides == {}
    await rig.kill()
