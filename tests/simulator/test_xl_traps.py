"""xl's traps, one by one: T-numbers are xen-facts 9's, "lab" the numbers of the lab's list.

tests/bench compares the texts with the real xl.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

import pytest
from tests.simulator.host import KIOSK, PORT, QUSB, WIN11, attach, attached, device, host, now, plugged, xl

from xenplug.adapters.xl import XlCause, read_outcome
from xenplug.core.model import ControllerType, Device, GuestType, Interface, Speed
from xenplug.core.policy.rules import ControllerSpec
from xenplug.core.protocols import Result
from xenplug.simulator import vusb
from xenplug.simulator.answers import strtoul
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.sockets import Bus, HostController
from xenplug.simulator.toolstack import HostFacts
from xenplug.simulator.world import World

BARE = GuestConfig(name="bare", type=GuestType.PV)
DM3 = ("usbctrl-attach", "win11", "type=devicemodel", "version=3", "ports=15")


@pytest.mark.parametrize(("text", "read"), [("010", 8), ("0x10", 16), ("09", 0), ("300", 44), ("x", 0), ("12", 12)])
def test_t7_t8_addresses_are_c_numbers_cut_to_8_bits(text: str, read: int) -> None:
    assert strtoul(text) == read


async def test_t7_a_leading_zero_names_another_device() -> None:
    world = host()
    for number in range(1, 8):
        await plugged(world, f"1-{number}")
    assert now(world, "1-7").number == 8
    assert (await xl(world, "usbdev-attach", "kiosk", "hostbus=1", "hostaddr=010")).ok
    assert world.tree.read(PORT.format(1)) == "1-7"


async def test_t1_one_stale_port_blocks_every_attach_until_it_is_cleared() -> None:
    world = host()
    await attached(world, "1-1")
    other = await plugged(world, "1-4")
    world.kernel.unplug("1-1")
    assert world.stale_ports() == ["1-1"]
    result = await xl(world, "usbdev-attach", "win11", f"hostbus={other.bus}", f"hostaddr={other.number}")
    assert (result.code, read_outcome(result).cause) == (1, XlCause.STALE_PORT)
    assert await world.store.replace(PORT.format(1), "1-1", "")
    assert (await attach(world, other)).ok


async def test_t48_a_device_that_is_being_reset_is_not_found() -> None:
    world = host()
    mouse = await attached(world, "1-1")
    assert (await xl(world, "usbdev-detach", "kiosk", 0, 1)).ok
    await asyncio.sleep(world.kernel.times.reset + 0.01)
    result = await attach(world, mouse)
    assert (result.code, read_outcome(result).cause) == (1, XlCause.NOT_ASSIGNABLE)
    assert (await attach(world, mouse)).ok


async def test_t2_xl_cannot_clear_a_stale_port() -> None:
    world = host()
    await attached(world, "1-1")
    world.kernel.unplug("1-1")
    assert (await xl(world, "usbdev-detach", "kiosk", 0, 1)).stderr == "Unknown device at controller 0 port 1.\n"
    result = await xl(world, "usbctrl-detach", "kiosk", 0)
    assert (result.code, "Unable to remove vusb with id 0" in result.stderr) == (1, True)
    assert world.stale_ports() == ["1-1"]


async def test_t3_t4_usb_list_is_hex_and_shows_a_stale_port_as_empty() -> None:
    world = host()
    for _ in range(10):
        world.kernel.plug(device("1-8"))
        world.kernel.unplug("1-8")
    await attached(world, "1-1")
    shown = (await xl(world, "usb-list", "kiosk")).stdout
    assert shown.splitlines()[1:3] == ["0      qusb         0   4     2       4    ", "  Port 1: Bus 001 Device 00c"]
    world.kernel.unplug("1-1")
    assert "  Port 1:\n" in (await xl(world, "usb-list", "kiosk")).stdout


async def test_t4_bus_numbers_are_hex_too() -> None:
    world = World([HostController(buses={18: Bus(2)})])
    world.add_guest(KIOSK, running=True)
    await attached(world, "18-1")
    assert "  Port 1: Bus 012 Device 002\n" in (await xl(world, "usb-list", "kiosk")).stdout


async def test_t5_an_implicit_controller_of_hvm_is_a_phantom() -> None:
    world = host()
    here = await plugged(world, "1-1", Speed.HIGH)
    words = ("usbdev-attach", "win11", f"hostbus={here.bus}", f"hostaddr={here.number}")
    for _ in range(2):
        result = await xl(world, *words)
        assert (result.code, read_outcome(result).cause) == (1, XlCause.PHANTOM_CONTROLLER)
    assert [found.type for found in vusb.all_of(world.tree, 2)] == [ControllerType.DEVICEMODEL]
    assert "Device 'xenusb-0' not found" in (await xl(world, "usbctrl-detach", "win11", 0)).stderr
    repair = await xl(world, "qemu-monitor-command", "win11", "device_add usb-ehci,id=xenusb-0")
    assert (repair.code, repair.stdout) == (0, "\n")
    assert (await xl(world, *words)).ok


async def test_lab9_an_implicit_controller_of_pv_works_and_has_8_ports() -> None:
    world = host(GuestConfig(name="kiosk", type=GuestType.PV, controllers=(ControllerSpec(ControllerType.QUSB, 2, 1),)))
    await attached(world, "1-1")
    here = await plugged(world, "1-4")
    assert (await xl(world, "usbdev-attach", "kiosk", f"hostbus={here.bus}", f"hostaddr={here.number}")).ok
    assert vusb.all_of(world.tree, 1)[1].ports == 8
    assert world.tree.read("/local/domain/0/backend/qusb/1/1/port/1") == "1-4"


async def test_t9_a_port_beyond_the_controller_is_written_and_lost() -> None:
    world = host()
    here = await plugged(world, "1-1")
    assert (await attach(world, here, ("kiosk", 0, 9))).ok
    await asyncio.sleep(2)
    assert world.tree.read(PORT.format(9)) == "1-1"
    assert now(world, "1-1").drivers == ("usbhid",)
    assert (await attach(world, here)).ok, "not even seen as assigned"


async def test_t10_two_overlapping_attaches_lose_one_device() -> None:
    world = host()
    one, two = await plugged(world, "1-1"), await plugged(world, "1-4")
    results = await asyncio.gather(attach(world, one, ("kiosk", 0, 1)), _later(attach(world, two, ("kiosk", 0, 2))))
    assert [result.code for result in results] == [0, 0]
    assert [world.tree.read(PORT.format(port)) for port in (1, 2)] == ["", "1-4"]
    assert (await attach(world, one, ("kiosk", 0, 1))).ok
    assert [world.tree.read(PORT.format(port)) for port in (1, 2)] == ["1-1", "1-4"]


async def test_t10_one_device_can_go_to_two_guests_at_once() -> None:
    world = host(KIOSK, GuestConfig(name="desk", type=GuestType.PV, controllers=(QUSB,)))
    here = await plugged(world, "1-1")
    results = await asyncio.gather(attach(world, here), attach(world, here, ("desk", 0, 2)))
    assert [result.code for result in results] == [0, 0]
    await asyncio.sleep(1)
    assert world.holders(now(world, "1-1")) == {"kiosk", "desk"}
    assert len(world.guest_sees("kiosk") + world.guest_sees("desk")) == 1, "only one can claim it"


@pytest.mark.parametrize("name", ["win11", "bare"])
async def test_t15_without_a_qusb_controller_in_its_config_pv_never_gets_one(name: str) -> None:
    world = host(BARE, WIN11)
    result = await xl(world, "usbctrl-attach", name, "type=qusb")
    assert read_outcome(result).cause == (XlCause.NO_DEVICE_MODEL if name == "bare" else XlCause.NONE)


async def test_t15_nor_by_attaching_a_device() -> None:
    world = host(BARE)
    here = await plugged(world, "1-1")
    result = await xl(world, "usbdev-attach", "bare", f"hostbus={here.bus}", f"hostaddr={here.number}")
    assert "device model required but not running" in result.stderr
    assert vusb.all_of(world.tree, 1) == []


async def test_t24_a_starting_domain_refuses_without_a_reason() -> None:
    world = host(BARE)
    world.guests.define(KIOSK)
    world.guests.start("kiosk")
    here = await plugged(world, "1-1")
    for words in (["usbctrl-attach", 2], ["usbdev-attach", 2, f"hostbus={here.bus}", f"hostaddr={here.number}"]):
        assert read_outcome(await xl(world, *words)).cause is XlCause.STARTING


async def test_t26_a_dead_domid_is_not_noticed() -> None:
    world = host()
    result = await xl(world, "usb-list", 99)
    assert (result.code, result.stdout, result.stderr) == (0, "", "")
    result = await xl(world, "usbctrl-attach", 99, "type=qusb")
    assert (result.code, read_outcome(result).cause) == (1, XlCause.UNKNOWN_GUEST)


async def test_t27_a_guest_called_by_digits_cannot_be_named() -> None:
    world = host(GuestConfig(name="42", type=GuestType.PV, controllers=(QUSB,)))
    assert (await xl(world, "usb-list", "42")).stdout == ""
    assert "qusb" in (await xl(world, "usb-list", 1)).stdout


@pytest.mark.parametrize("words", [["usbctrl-detach", "kiosk", "zero"], ["usbctrl-detach", "kiosk", "0"]])
async def test_t28_what_is_no_number_is_controller_0(words: list[str]) -> None:
    world = host()
    assert (await xl(world, *words)).ok
    assert vusb.all_of(world.tree, 1) == []


async def test_t29_the_man_page_s_form_of_detach_is_wrong() -> None:
    result = await xl(host(), "usbdev-detach", "kiosk", "controller=0", "port=1")
    assert (result.code, result.stderr) == (1, "Unknown device at controller 0 port 0.\n")


async def test_t30_detaching_a_controller_without_frontend_takes_21_s_and_fails_though_it_worked() -> None:
    world = host()
    world.guests.frontend("kiosk", False)
    result = await xl(world, "usbctrl-detach", "kiosk", 0)
    assert (result.code, round(result.seconds)) == (1, 21)
    assert vusb.all_of(world.tree, 1) == []


async def test_a_paused_guest_s_controller_goes_in_2_s() -> None:
    world = host()
    world.guests.pause("kiosk")
    result = await xl(world, "usbctrl-detach", "kiosk", 0)
    assert (result.code, round(result.seconds)) == (0, 2)


async def test_t31_monitor_errors_are_text_with_exit_0() -> None:
    for command, said in [
        ("device_del xenusb-3-31", "Error: Device 'xenusb-3-31' not found\n"),
        ("device_add usb-host,id=x,bus=nosuch.0,hostbus=1,hostaddr=2", "Error: Bus 'nosuch.0' not found\n"),
        ("usb_add host:1.2", "unknown command: 'usb_add'\n"),
    ]:
        result = await xl(host(), "qemu-monitor-command", "win11", command)
        assert (result.code, result.stdout) == (0, said)


async def test_t34_a_busid_written_over_another_is_ignored() -> None:
    world = host()
    await attached(world, "1-1")
    await plugged(world, "1-4")
    world.tree.write(PORT.format(1), "1-4")
    await asyncio.sleep(3)
    assert now(world, "1-4").drivers == ("usbhid",)
    assert world.guest_sees("kiosk") == (now(world, "1-1"),)


async def test_t37_only_hubs_are_refused() -> None:
    world = host()
    hub = await plugged(world, "1-1", Speed.HIGH, hub=True, interfaces=(Interface(9, 0, 0),))
    assert read_outcome(await attach(world, hub)).cause is XlCause.NOT_ASSIGNABLE
    keyboard = await plugged(world, "1-4", interfaces=(Interface(3, 1, 1),))
    assert (await attach(world, keyboard)).ok


async def test_t43_type_pv_without_usbback_takes_11_s_and_leaves_a_dead_controller() -> None:
    world = host()
    result = await xl(world, "usbctrl-attach", "kiosk", "type=pv")
    assert (result.code, round(result.seconds), read_outcome(result).cause) == (1, 11, XlCause.NO_BACKEND)
    dead = vusb.all_of(world.tree, 1)[1]
    assert (dead.id, dead.type) == (1, ControllerType.PV)
    result = await xl(world, "usbctrl-detach", "kiosk", 1)
    assert (result.code, round(result.seconds), len(vusb.all_of(world.tree, 1))) == (1, 21, 1)


async def test_lab8_an_unknown_controller_kills_xl() -> None:
    result = await xl(host(), "usbdev-detach", "kiosk", 7, 1)
    assert (result.code, result.signal) == (None, 11)


async def test_t22_a_devicemodel_detach_after_readdressing_fails_and_writes_the_busid_back() -> None:
    world = host()
    await xl(world, *DM3)
    await attached(world, "1-1", ("win11", 0, 1))
    world.kernel.reenumerate("1-1")
    result = await xl(world, "usbdev-detach", "win11", 0, 1)
    assert (result.code, "Device 'xenusb-1-3' not found" in result.stderr) == (1, True)
    assert world.tree.read("/libxl/2/device/vusb/0/port/1") == "1-1"


async def test_t21_a_devicemodel_object_outlives_its_device_and_blocks_its_address_and_port() -> None:
    world = host()
    await xl(world, *DM3)
    here = await attached(world, "1-1", ("win11", 0, 1))
    world.kernel.unplug("1-1")
    world.tree.write("/libxl/2/device/vusb/0/port/1", "")
    other = await plugged(world, "1-4")
    assert "not found (in use?)" in (await attach(world, other, ("win11", 0, 1))).stderr
    world.kernel.unplug("1-4")
    world.kernel.plug(_spare(here.number))
    again = now(world, "1-8")
    assert again.address == here.address
    assert read_outcome(await attach(world, again, ("win11", 0, 2))).cause is XlCause.DUPLICATE_DEVICE
    assert (await xl(world, "qemu-monitor-command", "win11", "device_del xenusb-1-2")).stdout == "\n"
    assert (await attach(world, again, ("win11", 0, 2))).ok


@pytest.mark.parametrize(
    ("version", "ports", "speed", "carried"),
    [(1, 2, Speed.LOW, True), (1, 2, Speed.HIGH, False), (2, 6, Speed.LOW, False), (2, 6, Speed.HIGH, True)]
    + [(3, 15, speed, True) for speed in (Speed.LOW, Speed.FULL, Speed.HIGH)],
)
async def test_t18_emulated_controllers_refuse_speeds(version: int, ports: int, speed: Speed, carried: bool) -> None:
    world = host()
    await xl(world, "usbctrl-attach", "win11", "type=devicemodel", f"version={version}", f"ports={ports}")
    result = await attach(world, await plugged(world, "1-1", speed), ("win11", 0, 1))
    assert read_outcome(result).cause is (XlCause.NONE if carried else XlCause.SPEED_MISMATCH)
    assert world.tree.read("/libxl/2/device/vusb/0/port/1") == ("1-1" if carried else "")


@pytest.mark.parametrize(("xen", "works"), [("4.17.7", False), ("4.19.4", False), ("4.19.5", True), ("4.22.0", True)])
async def test_t23_an_old_xl_cannot_speak_to_a_new_qemu(xen: str, works: bool) -> None:
    world = host(facts=HostFacts(xen=xen, qemu="9.2.0"))
    await xl(world, *DM3)
    assert (await attach(world, await plugged(world, "1-1"), ("win11", 0, 1))).ok is works


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["type=qusb", "version=3"], "USB version for paravirtualized devices must be 1 or 2"),
        (["type=qusb", "ports=32"], "Number of ports for USB controller is limited to 31"),
        (["type=devicemodel", "version=1", "ports=3"], "Number of ports for USB controller of version 1 is always 2"),
        (["type=devicemodel", "ports=4"], "Number of ports for USB controller of version 2 is always 6"),
        (["type=devicemodel", "version=3", "ports=16"], "version 3 is limited to 15"),
        (["type=devicemodel", "version=4"], "Illegal USB version"),
        (["type=bogus"], "Invalid usb controller type 'bogus'"),
        (["controller=1"], "Unknown string `controller=1' in usbctrl spec"),
        (["type=qusb,version=2"], "Invalid usb controller type 'qusb,version=2'"),
    ],
)
async def test_usbctrl_attach_refuses(words: list[str], said: str) -> None:
    result = await xl(host(), "usbctrl-attach", "win11", *words)
    assert (result.code, said in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hostbus=1", "hostaddr=77"], "USB device is not assignable."),
        (["hostbus=x", "hostaddr=y"], "USB device is not assignable."),
        (["hostbus=1,hostaddr=2", "type=hostdev"], "USB device is not assignable."),
        (["hostbus=1", "hostaddr=2"], "USB device already attached to a domain"),
        (["hostbus=1", "hostaddr=3", "controller=7"], "xenstore read failed: `/libxl/1/device/vusb/7'"),
        (["hostbus=1", "hostaddr=3", "port=2"], "USB controller must be specified if you specify port"),
        (["hostbus=1", "hostaddr=3", "controller=0", "port=1"], "The controller port isn't available"),
        (["bus=1", "hostaddr=3"], "Unknown string `bus=1' in usbdev spec"),
        (["hostbus=1", "type=pci"], "Invalid usb device type: (null)"),
    ],
)
async def test_usbdev_attach_refuses(words: list[str], said: str) -> None:
    world = host()
    await attached(world, "1-1")
    await plugged(world, "1-4")
    result = await xl(world, "usbdev-attach", "kiosk", *words)
    assert (result.code, said in result.stderr) == (1, True)
    assert result.seconds == pytest.approx(0.3)


async def test_a_full_controller_refuses() -> None:
    world = host()
    for port in range(1, 5):
        assert (await attach(world, await plugged(world, f"1-{port}"), ("kiosk", 0, port))).ok
    here = await plugged(world, "1-5")
    words = (f"hostbus={here.bus}", f"hostaddr={here.number}", "controller=0")
    assert "No available port under" in (await xl(world, "usbdev-attach", "kiosk", *words)).stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["usb-list"], 2, "'xl usb-list' requires at least 1 argument."),
        (["usbdev-detach", "kiosk", "0"], 2, "'xl usbdev-detach' requires at least 3 arguments."),
        (["usb-list", "kiosk", "0"], 255, "Invalid arguments."),
        (["usbdev-detach", "kiosk", "0", "1", "2"], 1, "Invalid arguments."),
        (["usb-list", "nosuch"], 1, "nosuch is an invalid domain identifier (rc=-6)"),
        (["usbctrl-detach", "kiosk", "9"], 1, "Unknown device 9."),
        (["bogus"], 1, "command not implemented"),
        (["-Z", "list"], 1, "unknown global option"),
        (["domid", "nosuch"], 1, "Can't get domid of domain name 'nosuch', maybe this domain does not exist."),
        (["domname", "99"], 1, "Can't get domain name of domain id '99', maybe this domain does not exist."),
        (["list", "99"], 1, "Error: Domain '99' does not exist."),
    ],
)
async def test_general_behaviour_of_xl(words: list[str], code: int, said: str) -> None:
    result = await xl(host(), *words)
    assert (result.code, said in result.stderr) == (code, True)


async def _later(call: Awaitable[Result]) -> Result:
    await asyncio.sleep(0.1)
    return await call


def _spare(number: int) -> Device:
    """A device at the host's last port with its own address."""
    return replace(device("1-8"), number=number)
