"""A simulated host to try traps on: two buses, a PV guest `kiosk` with a qusb controller, an HVM guest `win11`."""

from __future__ import annotations

import asyncio
from typing import Any

from xenplug.core.model import Bdf, BusId, ControllerType, Device, GuestType, Interface, Speed, Tag
from xenplug.core.policy.rules import ControllerSpec
from xenplug.core.protocols import Result
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.sockets import Bus, HostController
from xenplug.simulator.toolstack import HostFacts
from xenplug.simulator.world import World

BDF = Bdf("0000:00:14.0")
MOUSE = (Interface(3, 1, 2),)
XHCI = HostController(
    bdf=BDF, buses={1: Bus(8), 2: Bus(4, Speed.SUPER)}, peers={BusId("2-1"): BusId("1-5")}, driver="xhci_hcd"
)
QUSB = ControllerSpec(ControllerType.QUSB, 2, 4)
KIOSK = GuestConfig(name="kiosk", type=GuestType.PV, controllers=(QUSB,))
WIN11 = GuestConfig(name="win11", type=GuestType.HVM)
PORT = "/local/domain/0/backend/qusb/1/0/port/{}"


def device(port: str, speed: Speed = Speed.LOW, **more: Any) -> Device:
    """A mouse by default."""
    usual = {"tag": Tag("046d:c016"), "interfaces": MOUSE, "product": "Optical Wheel Mouse"} | more
    return Device(port=BusId(port), bus=0, number=0, speed=speed, **usual)


def host(*guests: GuestConfig, facts: HostFacts | None = None) -> World:
    """A host on which these guests run (default: kiosk as domain 1, win11 as domain 2)."""
    world = World([XHCI], facts)
    for guest in guests or (KIOSK, WIN11):
        world.add_guest(guest, running=True)
    return world


async def xl(world: World, *words: object, timeout: float = 60) -> Result:
    """xl's answer to the agent."""
    return await world.commands.run(["/usr/sbin/xl", *map(str, words)], timeout)


async def plugged(world: World, port: str, speed: Speed = Speed.LOW, **more: Any) -> Device:
    """Plug a device in and wait until dom0 has it."""
    world.kernel.plug(device(port, speed, **more))
    await asyncio.sleep(0.1)
    return now(world, port)


async def attached(
    world: World, port: str, guest_port: tuple[object, int, int] = ("kiosk", 0, 1), **more: Any
) -> Device:
    """Plug a device in, attach it to a guest port and wait until the guest uses it."""
    here = await plugged(world, port, **more)
    assert (await attach(world, here, guest_port)).ok
    await asyncio.sleep(1)
    assert now(world, port) in world.guest_sees(str(guest_port[0]))
    return now(world, port)


async def attach(world: World, here: Device, guest_port: tuple[object, int, int] = ("kiosk", 0, 1)) -> Result:
    guest, controller, port = guest_port
    where = (f"controller={controller}", f"port={port}")
    return await xl(world, "usbdev-attach", guest, f"hostbus={here.bus}", f"hostaddr={here.number}", *where)


def now(world: World, port: str) -> Device:
    """The device as dom0 has it at this moment."""
    found = world.kernel.device(port)
    assert found is not None
    return found
