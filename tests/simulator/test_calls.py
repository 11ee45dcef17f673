"""Calls: how long they take, how they are logged, and the failures a scenario plans."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulator.host import KIOSK, PORT, XHCI, attach, attached, device, host, now, plugged, xl

from xenplug.adapters.xl import Xl, XlCause, read_outcome
from xenplug.simulator.failures import Failures, How
from xenplug.simulator.times import SimulatedTimes
from xenplug.simulator.world import World


async def test_a_call_takes_0_3_s_and_its_effect_comes_at_the_end() -> None:
    world = host()
    here = await plugged(world, "1-1")
    calling = asyncio.ensure_future(attach(world, here))
    await asyncio.sleep(0.29)
    assert world.tree.read(PORT.format(1)) == ""
    result = await calling
    assert (result.seconds, world.tree.read(PORT.format(1))) == (pytest.approx(0.3), "1-1")


async def test_calls_are_logged_while_they_run_and_after() -> None:
    world = host()
    calling = asyncio.ensure_future(xl(world, "-v", "usb-list", "kiosk"))
    await asyncio.sleep(0.1)
    (call,) = world.commands.calls
    assert (call.command, call.start, call.end, call.by) == ("usb-list", 0, None, "agent")
    await calling
    assert (call.end, call.code, call.argv) == (pytest.approx(0.3), 0, ("/usr/sbin/xl", "-v", "usb-list", "kiosk"))


async def test_a_call_that_outlasts_its_timeout_is_killed() -> None:
    world = host()
    world.guests.frontend("kiosk", False)
    result = await xl(world, "usbctrl-detach", "kiosk", 0, timeout=5)
    assert (result.code, result.timed_out, result.seconds) == (None, True, pytest.approx(5))
    assert world.tree.read("/libxl/1/device/vusb/0/type") == "qusb"


async def test_a_cancelled_caller_kills_its_xl() -> None:
    world = host()
    calling = asyncio.ensure_future(attach(world, await plugged(world, "1-1")))
    await asyncio.sleep(0.1)
    calling.cancel()
    await asyncio.sleep(1)
    assert world.tree.read(PORT.format(1)) == ""


async def test_only_xl_is_installed_and_not_always() -> None:
    world = host()
    result = await world.commands.run(["/usr/bin/lsusb"], 5)
    assert (result.code, result.error) == (None, "/usr/bin/lsusb: No such file or directory")
    world.commands.missing = True
    assert read_outcome(await xl(world, "list")).cause is XlCause.XL_MISSING


@pytest.mark.parametrize(
    ("how", "cause"),
    [(How.REFUSED, XlCause.REFUSED), (How.KILLED, XlCause.KILLED), (How.HANG, XlCause.TIMED_OUT)],
)
async def test_failures_that_keep_xl_from_acting(how: How, cause: XlCause) -> None:
    world = host()
    here = await plugged(world, "1-1")
    world.commands.failures.plan("usbdev-attach", 1, how)
    assert read_outcome(await attach(world, here)).cause is cause
    assert world.tree.read(PORT.format(1)) == ""
    assert (await attach(world, here)).ok, "only as often as planned"
    assert [call.how for call in world.commands.calls] == [how, ""]


async def test_silent_is_a_busid_that_no_qemu_serves_until_the_port_is_cleared() -> None:
    world = host()
    here = await plugged(world, "1-1")
    world.commands.failures.plan("usbdev-attach", 1, "silent")
    assert (await attach(world, here)).ok
    await asyncio.sleep(10)
    assert (world.tree.read(PORT.format(1)), now(world, "1-1").drivers) == ("1-1", ("usbhid",))
    assert (await xl(world, "usbdev-detach", "kiosk", 0, 1)).ok
    assert (await attach(world, here)).ok
    await asyncio.sleep(1)
    assert world.guest_sees("kiosk") == (now(world, "1-1"),)


async def test_silent_over_an_emulated_controller() -> None:
    world = host()
    await xl(world, "usbctrl-attach", "win11", "version=3")
    world.commands.failures.plan("usbdev-attach", 1, "silent")
    here = await plugged(world, "1-1")
    assert (await attach(world, here, ("win11", 0, 1))).ok
    assert (world.tree.read("/libxl/2/device/vusb/0/port/1"), world.holders(here)) == ("1-1", frozenset())


async def test_silent_of_another_command_does_nothing() -> None:
    world = host()
    await attached(world, "1-1")
    world.commands.failures.plan("usbdev-detach", 1, "silent")
    assert (await xl(world, "usbdev-detach", "kiosk", 0, 1)).ok
    assert world.tree.read(PORT.format(1)) == "1-1"


async def test_grab_takes_what_is_replugged_at_once() -> None:
    world = host()
    world.commands.failures.plan("usbdev-attach", 1, "grab")
    await attached(world, "1-1")
    world.kernel.unplug("1-1")
    world.kernel.plug(device("1-1", tag="046d:c31c"))
    await asyncio.sleep(0.1)
    assert (world.holders(now(world, "1-1")), now(world, "1-1").drivers) == ({"kiosk"}, (None,))
    world.tree.write(PORT.format(1), "")
    await asyncio.sleep(0.1)
    assert (world.holders(now(world, "1-1")), now(world, "1-1").drivers) == (frozenset(), ("usbhid",))


async def test_planned_failures_do_not_hit_a_person_at_the_console() -> None:
    world = host()
    world.commands.failures.plan("usb-list", 1, "refused")
    assert (await world.commands.console(["usb-list", "kiosk"])).ok
    assert not (await xl(world, "usb-list", "kiosk")).ok


def test_an_unknown_failure_raises() -> None:
    with pytest.raises(ValueError, match="sulk"):
        Failures().plan("usb-list", 1, "sulk")


async def test_the_agents_xl_adapter_works_with_it() -> None:
    world = host()
    tool = Xl(world.commands)
    here = await plugged(world, "1-1")
    assert (await tool.usbdev_attach(1, here.bus, here.number, 0, 1)).ok
    states = await tool.list()
    assert isinstance(states, dict) and set(states) == {0, 1, 2}
    facts = await tool.info()
    assert isinstance(facts, dict) and "hvm_directio" in facts["virt_caps"].split()
    assert (await tool.monitor(2, "device_del xenusb-1-2")).cause is XlCause.PHANTOM_DEVICE
    assert (await tool.usbdev_detach(1, 0, 1)).ok


def test_on_an_ordinary_loop_it_runs_in_real_time() -> None:
    async def main() -> None:
        world = World([XHCI], times=SimulatedTimes(call=0.01, claim=0.01, configure=0.01, interfaces=0.001, bind=0.002))
        world.add_guest(KIOSK, running=True)
        here = world.kernel.plug(device("1-1"), settled=True)
        assert (await attach(world, here)).ok
        await asyncio.sleep(0.2)
        assert world.guest_sees("kiosk") == (now(world, "1-1"),)

    asyncio.run(main())
