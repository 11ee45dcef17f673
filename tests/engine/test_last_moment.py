"""Protection is asked at the moment of the act: what was free for the plan may be in use when its turn comes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.simulated_agent import DESK, KIOSK, QUSB, Rig, present, settled, told

from xenplug.core.model import Bdf, Device, GuestType, Speed, Use
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.sockets import Bus, HostController
from xenplug.simulator.world import World
from xenplug.scenario.simulated_floor import KeptInMemory

RULES = "version: 1\nauto_protect: [storage, keyboard]\nrules: [{match: {device: '*:*'}, attach: kiosk}]\n"


def use(rig: Rig, port: str, used: Use) -> None:
    """dom0 begins to use it, of which no event tells."""
    plugged = rig.world.kernel._present[present(rig, port).port]
    plugged.device = replace(plugged.device, in_use=frozenset({used}))
    rig.world.bus._seen[plugged.device.port] = plugged.device


@pytest.mark.parametrize("kind, used", [("storage", Use.STORAGE), ("keyboard", Use.KEYBOARD)])
@told
async def test_used_while_the_attach_waits_for_its_turn(kind: str, used: Use) -> None:
    rig = await Rig(RULES, KIOSK).start()
    domid = rig.world.guests.named("kiosk").domid
    turn = rig.agent.reconciler._acts._turns[domid]
    async with turn:
        rig.plug("1-1", kind=kind)
        await rig.until(lambda: bool(rig.agent.reconciler.ledger.entries))
        use(rig, "1-1", used)
    await settled(rig)
    assert rig.stands("1-1")[0] == "protected"
    assert rig.calls("usbdev-attach") == []
    assert not rig.agent.reconciler.ledger.entries
    await rig.kill()


@told
async def test_used_while_its_interfaces_are_opened() -> None:
    rig = await Rig(RULES, KIOSK).start()
    open_ = rig.world.bus.interfaces

    async def slowly(device: Device, allowed: bool) -> bool:
        use(rig, "1-1", Use.STORAGE)
        return await open_(device, allowed)

    rig.world.bus.interfaces = slowly  # type: ignore[method-assign]
    rig.plug("1-1", kind="storage")
    await settled(rig)
    assert rig.stands("1-1")[0] == "protected"
    assert rig.calls("usbdev-attach") == []
    await rig.kill()


CONTROLLERS = (
    HostController(bdf=Bdf("0000:00:14.0"), buses={1: Bus(8)}),
    HostController(bdf=Bdf("0000:03:00.0"), buses={3: Bus(4), 4: Bus(2, Speed.SUPER)}),
)
OPEN = GuestConfig(name="kiosk", type=GuestType.PV, controllers=(QUSB,), passthrough=True)
WHOLE = """version: 1
auto_protect: [storage, network, keyboard]
rules:
  - {match: {kind: video}, attach: kiosk, via: pci, siblings: take}
  - {match: {kind: keyboard, port: 1-2}, attach: desk}
"""


async def two_controllers() -> Rig:
    rig = Rig(WHOLE)
    rig.world = World(CONTROLLERS)
    rig.keeper = KeptInMemory(rig.world)
    for config in (OPEN, DESK):
        rig.world.add_guest(config, running=True)
    return await rig.start()


@pytest.mark.parametrize("kind, used", [("storage", Use.STORAGE), ("net", Use.NETWORK), ("keyboard", Use.KEYBOARD)])
@told
async def test_a_sibling_is_used_while_its_controller_waits_for_its_turn(kind: str, used: Use) -> None:
    rig = await two_controllers()
    rig.plug("3-1", "0781:5567", kind=kind)
    async with rig.agent.reconciler._acts._turns[0]:
        rig.plug("4-1", "2833:0182", kind="video", speed="super")
        await rig.until(lambda: bool(rig.agent.reconciler.ledger.pci.given))
        use(rig, "3-1", used)
    await settled(rig)
    assert rig.stands("4-1")[:2] == ("given_up", "sibling")
    assert rig.stands("3-1")[0] == "protected"
    assert rig.calls("pci-assignable-add") == []
    assert not rig.agent.reconciler.ledger.pci.given
    await rig.kill()


@told
async def test_of_two_keyboards_on_a_controller_both_are_the_last_once_the_third_is_pulled() -> None:
    rig = await two_controllers()
    for port in ("1-1", "3-1", "3-2"):
        rig.plug(port, "046d:c31c", kind="keyboard", in_use="keyboard")
    async with rig.agent.reconciler._acts._turns[0]:
        rig.plug("4-1", "2833:0182", kind="video", speed="super")
        await rig.until(lambda: bool(rig.agent.reconciler.ledger.pci.given))
        rig.pull("1-1")
    await settled(rig)
    assert rig.calls("pci-assignable-add") == []
    assert rig.stands("4-1")[:2] == ("given_up", "sibling")
    await rig.kill()


@told
async def test_a_keyboard_that_is_leaving_with_its_controller_is_not_one_that_remains() -> None:
    rig = await two_controllers()
    for port in ("1-1", "3-1"):
        rig.plug(port, "046d:c31c", kind="keyboard", in_use="keyboard")
    rig.plug("4-1", "2833:0182", kind="video", speed="super")
    await rig.until(lambda: bool(rig.calls("pci-assignable-add")))
    rig.pull("1-1")
    rig.plug("1-2", "046d:c31d", kind="keyboard", in_use="keyboard")  # xl has not taken 3-1's controller yet
    await settled(rig)
    assert rig.stands("4-1")[0] == "pci"
    assert rig.stands("1-2")[:2] == ("protected", "last_keyboard")
    assert rig.calls("usbdev-attach") == []
    await rig.kill()
