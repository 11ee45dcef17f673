"""What device models do with devices, and to whom: T-numbers are xen-facts 9's, "lab" the numbers of the lab's list."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulator.host import BDF, KIOSK, PORT, QUSB, attach, attached, device, host, now, plugged, xl

from xenplug.core.model import ControllerType, GuestType, Interface, Speed
from xenplug.core.policy.rules import ControllerSpec
from xenplug.simulator import vusb
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.qusb import UNCLAIMED
from xenplug.simulator.world import World

AUDIO = {"interfaces": (Interface(1, 1, 0), Interface(1, 2, 0)), "isochronous": True}


async def two_attached(world: World) -> None:
    """1-1 first, 1-4 after it, on one controller."""
    await attached(world, "1-1", ("kiosk", 0, 1))
    await attached(world, "1-4", ("kiosk", 0, 2))


async def pull_and_clear(world: World, pulled: str, port: int, after: float | None) -> None:
    world.kernel.unplug(pulled)
    if after is not None:
        await asyncio.sleep(after)
        assert await world.store.replace(PORT.format(port), pulled, "")
    await asyncio.sleep(3)


async def test_t6_exit_0_comes_before_anything_is_taken_and_taken_before_used() -> None:
    world = host()
    here = await plugged(world, "1-1")
    assert (await attach(world, here)).ok
    assert now(world, "1-1").drivers == ("usbhid",)
    await asyncio.sleep(0.55)
    assert (now(world, "1-1").drivers, world.holders(here), world.guest_sees("kiosk")) == ((None,), {"kiosk"}, ())
    await asyncio.sleep(0.1)
    assert (now(world, "1-1").drivers, world.guest_sees("kiosk")) == (("usbfs",), (now(world, "1-1"),))


async def test_a_detach_returns_the_device_and_spares_the_neighbours() -> None:  # lab 3
    world = host()
    await two_attached(world)
    assert (await xl(world, "usbdev-detach", "kiosk", 0, 1)).ok
    await asyncio.sleep(3)
    assert now(world, "1-1").drivers == ("usbhid",)
    assert world.guest_sees("kiosk") == (now(world, "1-4"),)


@pytest.mark.parametrize(
    ("port", "version", "speed", "taken"),
    [
        ("1-1", 2, Speed.LOW, True),
        ("1-1", 2, Speed.HIGH, True),
        ("1-1", 1, Speed.FULL, True),
        ("1-1", 1, Speed.HIGH, False),
        ("2-1", 2, Speed.SUPER, False),
        ("2-1", 2, Speed.SUPER_PLUS, False),
    ],
)
async def test_t16_t17_wrong_speeds_are_not_taken_and_keep_the_port(
    port: str, version: int, speed: Speed, taken: bool
) -> None:
    spec = ControllerSpec(ControllerType.QUSB, version, 4)
    world = host(GuestConfig(name="kiosk", type=GuestType.PV, controllers=(spec,)))
    here = await plugged(world, port, speed)
    assert (await attach(world, here)).ok
    await asyncio.sleep(2)
    assert now(world, port).drivers == (("usbfs",) if taken else ("usbhid",))
    assert world.tree.read(PORT.format(1)) == port
    model = world.guests.named("kiosk").model
    assert model and (f"xen be: qusb-0: device {port} wrong speed" in model.log) is not taken


async def test_t33_any_change_below_the_controller_tries_a_failed_port_again() -> None:
    world = host()
    await attach(world, await plugged(world, "2-1", Speed.SUPER))
    await asyncio.sleep(1)
    model = world.guests.named("kiosk").model
    assert model
    tries = len(model.log)
    world.tree.write(PORT.format(4), "")
    await asyncio.sleep(1)
    assert len(model.log) == tries + 1


async def test_t19_isochronous_devices_are_taken() -> None:
    world = host()
    here = await attached(world, "1-1", speed=Speed.FULL, **AUDIO)
    assert here.drivers == ("usbfs", "usbfs")


async def test_a_garbled_busid_is_only_logged() -> None:
    world = host()
    world.tree.write(PORT.format(1), "bogus")
    await asyncio.sleep(1)
    model = world.guests.named("kiosk").model
    assert model and set(model.log) == {"xen be: qusb-0: device bogus illegal specification"}


async def test_t20_lab2_qemu_grabs_back_what_is_replugged_and_the_guest_does_not_see_it() -> None:
    world = host()
    await attached(world, "1-1")
    world.kernel.unplug("1-1")
    again = await plugged(world, "1-1")
    await asyncio.sleep(1.5)
    assert now(world, "1-1").drivers == ("usbhid",)
    await asyncio.sleep(1)
    assert (now(world, "1-1").drivers, world.holders(again), world.guest_sees("kiosk")) == ((None,), {"kiosk"}, ())
    assert "already attached" in (await attach(world, again)).stderr
    assert (await xl(world, "usbdev-detach", "kiosk", 0, 1)).ok
    assert (await attach(world, again)).ok
    await asyncio.sleep(1)
    assert world.guest_sees("kiosk") == (now(world, "1-1"),)


async def test_t20_a_port_cleared_in_time_is_not_grabbed() -> None:
    world = host()
    await attached(world, "1-1")
    world.kernel.unplug("1-1")
    world.tree.write(PORT.format(1), "")
    await plugged(world, "1-1")
    await asyncio.sleep(5)
    assert now(world, "1-1").drivers == ("usbhid",)


@pytest.mark.parametrize(("after", "kept"), [(0.0, True), (0.2, True), (0.5, True), (1.0, False), (None, False)])
async def test_lab13_neighbours_attached_later_are_lost_unless_the_port_is_cleared_in_half_a_second(
    after: float | None, kept: bool
) -> None:
    world = host()
    await two_attached(world)
    await pull_and_clear(world, "1-1", 1, after)
    assert world.guest_sees("kiosk") == ((now(world, "1-4"),) if kept else ())
    assert world.holders(now(world, "1-4")) == {"kiosk"}, "qemu holds its node all the same"
    assert now(world, "1-4").drivers == (("usbfs",) if kept else (None,))
    assert "Port 2: Bus 001" in (await xl(world, "usb-list", "kiosk")).stdout


async def test_lab13_the_loss_comes_0_9_s_after_the_pull() -> None:
    world = host()
    await two_attached(world)
    world.kernel.unplug("1-1")
    await asyncio.sleep(0.85)
    assert world.guest_sees("kiosk")
    await asyncio.sleep(0.1)
    assert not world.guest_sees("kiosk")


async def test_lab13_neighbours_attached_before_are_kept_whatever_is_done() -> None:
    world = host()
    await two_attached(world)
    await pull_and_clear(world, "1-4", 2, None)
    assert world.guest_sees("kiosk") == (now(world, "1-1"),)


async def test_lab3_dom0_s_driver_may_take_the_lost_bystander() -> None:
    world = host()
    await two_attached(world)
    world.kernel.bystanders_rebind = True
    await pull_and_clear(world, "1-1", 1, None)
    assert (now(world, "1-4").drivers, world.holders(now(world, "1-4"))) == (("usbhid",), {"kiosk"})


async def test_lab13_detach_and_attach_heal_a_bystander_clearing_does_not() -> None:
    world = host()
    await two_attached(world)
    await pull_and_clear(world, "1-1", 1, 1.5)
    assert not world.guest_sees("kiosk")
    assert (await xl(world, "usbdev-detach", "kiosk", 0, 2)).ok
    assert (await attach(world, now(world, "1-4"), ("kiosk", 0, 2))).ok
    await asyncio.sleep(1)
    assert world.guest_sees("kiosk") == (now(world, "1-4"),)


@pytest.mark.parametrize(("port", "alive"), [(1, False), (2, True)])
async def test_lab4_one_port_number_on_two_controllers_kills_the_device_model(port: int, alive: bool) -> None:
    world = host(GuestConfig(name="kiosk", type=GuestType.PV, controllers=(QUSB, QUSB)))
    await attached(world, "1-1", ("kiosk", 0, 1))
    assert (await attach(world, await plugged(world, "1-4"), ("kiosk", 1, port))).ok
    await asyncio.sleep(1)
    assert (world.guests.named("kiosk").serving is not None) is alive
    assert now(world, "1-1").drivers == (("usbfs",) if alive else (None,)), "an abort gives nothing back"


async def test_lab4_an_emulated_controller_does_not_clash() -> None:
    world = host(GuestConfig(name="desk", type=GuestType.HVM, controllers=(QUSB,), frontend=True))
    await xl(world, "usbctrl-attach", "desk", "version=3")
    await attached(world, "1-1", ("desk", 1, 1))
    await attached(world, "1-4", ("desk", 0, 1))
    assert len(world.guest_sees("desk")) == 2


async def test_lab5_a_dead_device_model_reports_success() -> None:
    world = host()
    first = await attached(world, "1-1")
    world.guests.device_model("kiosk", alive=False)
    assert (now(world, "1-1").drivers, world.holders(first)) == ((None,), frozenset())  # T36
    assert (await attach(world, await plugged(world, "1-4"), ("kiosk", 0, 2))).ok
    assert (await xl(world, "usbctrl-attach", "kiosk", "type=qusb")).ok
    await asyncio.sleep(3)
    assert now(world, "1-4").drivers == ("usbhid",)
    assert "Port 2: Bus 001 Device 003" in (await xl(world, "usb-list", "kiosk")).stdout
    assert (await xl(world, "usbdev-detach", "kiosk", 0, 1)).ok
    assert now(world, "1-1").drivers == (None,)
    result = await xl(world, "usbctrl-detach", "kiosk", 0)
    assert (result.code, round(result.seconds), len(vusb.all_of(world.tree, 1))) == (1, 21, 1)


async def test_a_dead_device_model_cannot_be_asked() -> None:
    world = host()
    await xl(world, "usbctrl-attach", "win11", "version=3")
    world.guests.device_model("win11", alive=False)
    here = await plugged(world, "1-1")
    for words in (["qemu-monitor-command", "win11", "info usb"], ["usbctrl-attach", "win11", "version=3"]):
        result = await xl(world, *words)
        assert (result.code, "Failed to connect to QMP socket" in result.stderr) == (1, True)
    assert "Failed to connect" in (await attach(world, here, ("win11", 0, 1))).stderr
    assert world.tree.read("/libxl/2/device/vusb/0/port/1") == ""


async def test_a_restarted_device_model_serves_what_xenstore_says() -> None:
    world = host()
    await attached(world, "1-1")
    world.guests.device_model("kiosk", alive=False)
    world.guests.device_model("kiosk", alive=True)
    await asyncio.sleep(1)
    assert world.guest_sees("kiosk") == (now(world, "1-1"),)


async def test_t45_without_a_frontend_the_device_is_taken_and_no_guest_has_it() -> None:
    world = host(GuestConfig(name="kiosk", type=GuestType.PV, controllers=(QUSB,), frontend=False))
    here = await plugged(world, "1-1")
    await attach(world, here)
    await asyncio.sleep(5)
    assert (now(world, "1-1").drivers, world.holders(here), world.guest_sees("kiosk")) == ((None,), {"kiosk"}, ())
    assert "qusb         0   1 " in (await xl(world, "usb-list", "kiosk")).stdout
    world.guests.frontend("kiosk", True)
    await asyncio.sleep(0.5)
    assert world.guest_sees("kiosk") == (now(world, "1-1"),)


async def test_a_paused_guest_configures_nothing() -> None:
    world = host()
    here = await plugged(world, "1-1")
    world.guests.pause("kiosk")
    await attach(world, here)
    await asyncio.sleep(5)
    assert (world.holders(here), now(world, "1-1").drivers) == ({"kiosk"}, (None,))
    world.guests.unpause("kiosk")
    await asyncio.sleep(0.5)
    assert now(world, "1-1").drivers == ("usbfs",)


async def test_lab14_an_unauthorised_device_is_taken_and_never_used() -> None:
    world = host()
    world.kernel.authorize_new = False
    here = await plugged(world, "1-1")
    assert (await attach(world, here)).ok
    await asyncio.sleep(5)
    assert (world.holders(here), now(world, "1-1").drivers, world.guest_sees("kiosk")) == ({"kiosk"}, (), ())


async def test_emulated_devices_are_taken_at_once_and_used_once_the_guest_is_up() -> None:
    world = host(KIOSK)
    world.guests.define(GuestConfig(name="win11", type=GuestType.HVM, boots_in=8))
    world.guests.start("win11")
    await asyncio.sleep(2)
    await xl(world, "usbctrl-attach", "win11", "version=3")
    here = await plugged(world, "1-1")
    assert (await attach(world, here, ("win11", 0, 1))).ok
    assert (world.holders(here), world.guest_sees("win11")) == ({"win11"}, ())
    await asyncio.sleep(7)
    assert world.guest_sees("win11") == (now(world, "1-1"),)
    output = (await xl(world, "qemu-monitor-command", "win11", "info usb")).stdout
    assert output == "  Device 0.0, Port 1, Speed 1.5 Mb/s, Product Optical Wheel Mouse, ID: xenusb-1-2\n"


async def test_t21_an_emulated_device_is_not_taken_back_after_a_replug() -> None:
    world = host()
    await xl(world, "usbctrl-attach", "win11", "version=3")
    await attached(world, "1-1", ("win11", 0, 1))
    world.kernel.unplug("1-1")
    await plugged(world, "1-1")
    await asyncio.sleep(10)
    assert (now(world, "1-1").drivers, world.guest_sees("win11")) == (("usbhid",), ())


async def test_a_phantom_on_a_port_comes_to_life_unseen() -> None:  # xen-facts 3.1: absent device
    world = host()
    world.tree.write(PORT.format(1), "1-1")
    await asyncio.sleep(1)
    world.kernel.plug(device("1-1"))
    await asyncio.sleep(3)
    assert (now(world, "1-1").drivers, world.guest_sees("kiosk")) == ((None,), ())


@pytest.mark.parametrize("how", ["left", "cleared", "guest paused"])
async def test_a_busid_that_names_no_device_ends_qemu_once_the_guest_asks(how: str) -> None:  # lab 16
    world = host()
    guest = world.guests.named("kiosk")
    await attached(world, "1-2")
    guest.paused = how == "guest paused"
    world.tree.write(PORT.format(2), "1-1")
    await asyncio.sleep(1)
    if how == "cleared":
        world.tree.write(PORT.format(2), "")
    await asyncio.sleep(3)
    assert guest.model.alive is (how != "left")
    assert (guest.model.log[-1:] == [UNCLAIMED]) is (how == "left")
    assert (world.guest_sees("kiosk") == ()) is (how == "left")


async def test_a_device_that_leaves_with_its_controller_leaves_the_port_stale() -> None:  # xen-facts 5
    world = host()
    await attached(world, "1-1")
    assert (await xl(world, "pci-assignable-add", BDF)).ok
    assert world.stale_ports() == ["1-1"]
