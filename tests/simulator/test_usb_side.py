"""Plugging, pulling and re-enumerating: addresses, uevents, drivers, places, and a bus view that can go deaf."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulator.host import BDF, device, host, now, plugged

from xenplug.core.model import BusId, Interface, PciController, Speed, Use
from xenplug.core.protocols import UsbEvent
from xenplug.simulator.overlay import OverlayBus
from xenplug.simulator.world import World

HUB = {"hub": True, "interfaces": (Interface(9, 0, 0),), "speed": Speed.HIGH}


async def listening(world: World) -> list[tuple[str, str | None, int | None]]:
    heard: list[tuple[str, str | None, int | None]] = []

    def hear(event: UsbEvent) -> None:
        heard.append((event.action, event.port, event.number))

    await world.bus.start(hear)
    return heard


async def test_a_plug_is_add_then_configured_then_bound() -> None:  # lab 12
    world = host()
    heard = await listening(world)
    world.kernel.plug(device("1-4"))
    await asyncio.sleep(0.01)
    assert heard == [("add", "1-4", 2)]
    assert not world.bus.devices()[BusId("1-4")].configured
    await asyncio.sleep(0.05)
    assert [action for action, _, _ in heard][-1] == "bind"
    assert now(world, "1-4").drivers == ("usbhid",)
    assert now(world, "1-4").kinds == {"mouse"}


async def test_an_unauthorised_device_has_no_configuration_until_it_is_allowed() -> None:  # xen-facts 5
    world = host()
    world.kernel.authorize_new = False
    here = await plugged(world, "1-4")
    assert (here.configured, here.drivers, here.interfaces) == (False, (), (Interface(3, 1, 2),))
    assert await world.bus.authorize(here, True)
    await asyncio.sleep(0.1)
    assert now(world, "1-4").drivers == ("usbhid",)
    assert await world.bus.authorize(now(world, "1-4"), False)
    assert now(world, "1-4").drivers == ()


async def test_a_device_refused_right_after_its_add_is_never_configured() -> None:
    world = host()
    world.kernel.plug(device("1-4"))
    assert await world.bus.authorize(now(world, "1-4"), False)
    await asyncio.sleep(1)
    assert (now(world, "1-4").configured, now(world, "1-4").drivers) == (False, ())


async def test_what_has_long_stood_there_is_configured_and_bound_at_once() -> None:
    assert host().kernel.plug(device("1-4"), settled=True).drivers == ("usbhid",)


async def test_authorising_a_device_that_was_replaced_fails() -> None:
    world = host()
    here = await plugged(world, "1-4")
    world.kernel.reenumerate("1-4")
    assert not await world.bus.authorize(here, False)
    assert now(world, "1-4").authorized


async def test_every_plug_takes_the_next_address_and_wraps_at_127() -> None:  # design 6
    world = host()
    standing = await plugged(world, "1-1")
    assert standing.number == 2
    for expected in [*range(3, 128), 3]:
        assert world.kernel.plug(device("1-2")).number == expected
        world.kernel.unplug("1-2")


async def test_reenumeration_is_the_same_place_with_a_new_address() -> None:
    world = host()
    await plugged(world, "1-4")
    heard = await listening(world)
    world.kernel.reenumerate("1-4", device("1-9", tag="0483:df11"))
    await asyncio.sleep(0)
    assert heard == [("unbind", "1-4", 2), ("remove", "1-4", 2), ("add", "1-4", 3)]
    assert (now(world, "1-4").tag, now(world, "1-4").number) == ("0483:df11", 3)


async def test_a_hub_takes_what_hangs_on_it_along() -> None:
    world = host()
    await plugged(world, "1-4", **HUB)
    await plugged(world, "1-4.2")
    heard = await listening(world)
    world.kernel.unplug("1-4")
    await asyncio.sleep(0)
    assert [port for action, port, _ in heard if action == "remove"] == ["1-4.2", "1-4"]
    assert not world.bus.devices()


@pytest.mark.parametrize(
    ("port", "path", "plain"),
    [
        ("1-4", "pci-0000:00:14.0-usb-0:4", "pci-0000:00:14.0-usb-0:4"),
        ("2-1", "pci-0000:00:14.0-usb-0:5", "pci-0000:00:14.0-usb-0:1"),
        ("2-2", None, "pci-0000:00:14.0-usb-0:2"),
    ],
)
async def test_a_place_names_the_usb_2_side(port: str, path: str | None, plain: str) -> None:
    world = host()
    here = await plugged(world, port, Speed.SUPER if port.startswith("2") else Speed.LOW)
    assert (here.path, here.plain_path, here.controller) == (path, plain, BDF)


@pytest.mark.parametrize(
    ("port", "speed", "complaint"),
    [
        ("7-1", Speed.LOW, "no bus 7"),
        ("1-9", Speed.LOW, "8 ports"),
        ("1-1", Speed.LOW, "already"),
        ("1-1.2", Speed.LOW, "no hub at 1-1"),
        ("1-2", Speed.SUPER, "does not link"),
        ("front", Speed.LOW, "not a port path"),
    ],
)
async def test_impossible_plugs_are_complaints(port: str, speed: Speed, complaint: str) -> None:
    world = host()
    await plugged(world, "1-1")
    with pytest.raises(ValueError, match=complaint):
        world.kernel.plug(device(port, speed))


async def test_pulling_nothing_is_a_complaint() -> None:
    with pytest.raises(ValueError, match="nothing is plugged in"):
        host().kernel.unplug("1-4")


async def test_an_overflow_loses_events_and_then_says_so() -> None:
    world = host()
    await plugged(world, "1-1")
    heard = await listening(world)
    world.bus.lose(1)
    world.kernel.unplug("1-1")
    world.kernel.plug(device("1-4"))
    await asyncio.sleep(0.5)
    assert (heard, set(world.bus.devices())) == ([], {"1-1"})
    await asyncio.sleep(1)
    assert (heard, set(world.bus.devices())) == ([("lost", None, None)], {"1-4"})


async def test_a_rescan_finds_what_was_missed() -> None:
    world = host()
    await listening(world)
    world.bus.lose(100)
    world.kernel.plug(device("1-4"))
    await world.bus.rescan()
    assert set(world.bus.devices()) == {"1-4"}


async def test_unchanged_devices_stay_the_same_objects() -> None:
    world = host()
    await plugged(world, "1-1")
    await listening(world)
    before = world.bus.devices()[BusId("1-1")]
    await plugged(world, "1-4")
    await world.bus.rescan()
    assert world.bus.devices()[BusId("1-1")] is before


async def test_probing_binds_driverless_interfaces_only() -> None:  # T36
    world = host()
    here = await plugged(world, "1-4")
    world.kernel.open(9, here)
    world.kernel.close(9, here, give_back=False)
    assert now(world, "1-4").drivers == (None,)
    await world.bus.probe(now(world, "1-4"))
    assert now(world, "1-4").drivers == ("usbhid",)


async def test_claims_and_releases_through_usbfs_are_silent_but_seen_soon() -> None:  # devio.c: claimintf, releaseintf
    world = host()
    here = await plugged(world, "1-4")
    heard = await listening(world)
    world.kernel.open(9, here)
    await asyncio.sleep(0.01)
    assert heard == [("unbind", "1-4", 2)]
    world.kernel.claim(9, here)
    await asyncio.sleep(0.01)
    assert (heard, world.bus.devices()[BusId("1-4")].drivers) == ([("unbind", "1-4", 2)], (None,))
    await asyncio.sleep(0.3)
    assert world.bus.devices()[BusId("1-4")].drivers == ("usbfs",)
    assert heard[1:] == [("change", "1-4", 2)]


async def test_a_controller_without_driver_hides_its_devices_and_brings_them_back() -> None:  # xen-facts 5
    world = host()
    await plugged(world, "1-4")
    await plugged(world, "1-5")
    await listening(world)
    controller = world.kernel.sockets.by_bdf(BDF)
    assert controller
    world.kernel.drive(controller, "pciback")
    await asyncio.sleep(0)
    assert not world.bus.devices()
    world.kernel.unplug("1-5")
    world.kernel.plug(device("1-6"))
    assert world.bus.controllers() == (PciController(BDF, "pciback"),)
    world.kernel.drive(controller, "xhci_hcd")
    await asyncio.sleep(0.1)
    assert {p: d.number for p, d in world.bus.devices().items()} == {"1-4": 2, "1-6": 3}


async def test_over_a_real_bus_nothing_real_is_written() -> None:
    real, world = host(), World()
    await plugged(real, "1-4")
    bus = OverlayBus(world.kernel, real.bus)
    heard: list[str] = []
    await bus.start(lambda event: heard.append(event.action))
    await asyncio.sleep(0.1)
    here = bus.devices()[BusId("1-4")]
    assert (here.key, here.path) == (now(real, "1-4").key, now(real, "1-4").path)
    await bus.authorize(here, False)
    assert now(real, "1-4").authorized
    real.kernel.unplug("1-4")
    real.kernel.plug(device("1-5", in_use=frozenset({Use.STORAGE})))
    await asyncio.sleep(0.2)
    assert {p: d.in_use for p, d in bus.devices().items()} == {"1-5": {Use.STORAGE}}
    assert "remove" in heard
    assert bus.controllers() == real.bus.controllers()


async def test_interfaces_belong_to_one_process_at_a_time() -> None:
    world = host()
    here = await plugged(world, "1-4")
    assert world.kernel.open(1, here) and world.kernel.open(2, here)
    assert world.kernel.claim(1, here)
    assert not world.kernel.claim(2, here)
    world.kernel.close(1, here)
    assert now(world, "1-4").drivers == (None,), "the other still holds the node"
    world.kernel.close(2, here)
    assert now(world, "1-4").drivers == ("usbhid",)
