"""Protection is checked right before each act: a device that was free for the plan may be in use by then."""

from __future__ import annotations

import pytest
from tests.simulated_agent import DESK, KIOSK, QUSB, SimulatedAgent, in_virtual_time, settle

from xenplug.core.model import Bdf, Device, GuestType, Speed, Use
from xenplug.scenario.simulated_floor import LedgerInMemory
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.sockets import Bus, HostController
from xenplug.simulator.world import World

RULES = "version: 1\nauto_protect: [storage, keyboard]\nrules: [{match: {device: '*:*'}, attach: kiosk}]\n"


def use(simulated: SimulatedAgent, port: str, used: Use) -> None:
    """dom0 begins to use the device; no event reports it."""
    simulated.world.kernel.use(port, frozenset({used}))


@pytest.mark.parametrize("kind, used", [("storage", Use.STORAGE), ("keyboard", Use.KEYBOARD)])
@in_virtual_time
async def test_used_while_the_attach_waits_for_its_turn(kind: str, used: Use) -> None:
    simulated = await SimulatedAgent(RULES, KIOSK).start()
    domid = simulated.world.guests.named("kiosk").domid
    async with simulated.agent.reconciler.context.domain_locks[domid]:
        simulated.plug("1-1", kind=kind)
        await simulated.wait_until(lambda: bool(simulated.agent.reconciler.ledger.entries))
        use(simulated, "1-1", used)
    await settle(simulated)
    assert simulated.state_of("1-1")[0] == "protected"
    assert simulated.xl_calls("usbdev-attach") == []
    assert not simulated.agent.reconciler.ledger.entries
    await simulated.kill()


@in_virtual_time
async def test_used_while_its_interfaces_are_opened() -> None:
    simulated = await SimulatedAgent(RULES, KIOSK).start()
    open_ = simulated.world.bus.interfaces

    async def slowly(device: Device, allowed: bool) -> bool:
        use(simulated, "1-1", Use.STORAGE)
        return await open_(device, allowed)

    simulated.world.bus.interfaces = slowly  # type: ignore[method-assign]
    simulated.plug("1-1", kind="storage")
    await settle(simulated)
    assert simulated.state_of("1-1")[0] == "protected"
    assert simulated.xl_calls("usbdev-attach") == []
    await simulated.kill()


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


async def two_controllers() -> SimulatedAgent:
    simulated = SimulatedAgent(WHOLE)
    simulated.world = World(CONTROLLERS)
    simulated.ledger_store = LedgerInMemory(simulated.world)
    for config in (OPEN, DESK):
        simulated.world.add_guest(config, running=True)
    return await simulated.start()


@pytest.mark.parametrize("kind, used", [("storage", Use.STORAGE), ("net", Use.NETWORK), ("keyboard", Use.KEYBOARD)])
@in_virtual_time
async def test_a_sibling_is_used_while_its_controller_waits_for_its_turn(kind: str, used: Use) -> None:
    simulated = await two_controllers()
    simulated.plug("3-1", "0781:5567", kind=kind)
    async with simulated.agent.reconciler.context.domain_locks[0]:
        simulated.plug("4-1", "2833:0182", kind="video", speed="super")
        await simulated.wait_until(lambda: bool(simulated.agent.reconciler.ledger.pci.passed))
        use(simulated, "3-1", used)
    await settle(simulated)
    assert simulated.state_of("4-1")[:2] == ("given_up", "sibling")
    assert simulated.state_of("3-1")[0] == "protected"
    assert simulated.xl_calls("pci-assignable-add") == []
    assert not simulated.agent.reconciler.ledger.pci.passed
    await simulated.kill()


@in_virtual_time
async def test_of_two_keyboards_on_a_controller_both_are_the_last_once_the_third_is_pulled() -> None:
    simulated = await two_controllers()
    for port in ("1-1", "3-1", "3-2"):
        simulated.plug(port, "046d:c31c", kind="keyboard", in_use="keyboard")
    async with simulated.agent.reconciler.context.domain_locks[0]:
        simulated.plug("4-1", "2833:0182", kind="video", speed="super")
        await simulated.wait_until(lambda: bool(simulated.agent.reconciler.ledger.pci.passed))
        simulated.pull("1-1")
    await settle(simulated)
    assert simulated.xl_calls("pci-assignable-add") == []
    assert simulated.state_of("4-1")[:2] == ("given_up", "sibling")
    await simulated.kill()


@in_virtual_time
async def test_a_keyboard_that_is_leaving_with_its_controller_is_not_one_that_remains() -> None:
    simulated = await two_controllers()
    for port in ("1-1", "3-1"):
        simulated.plug(port, "046d:c31c", kind="keyboard", in_use="keyboard")
    simulated.plug("4-1", "2833:0182", kind="video", speed="super")
    await simulated.wait_until(lambda: bool(simulated.xl_calls("pci-assignable-add")))
    simulated.pull("1-1")
    simulated.plug("1-2", "046d:c31d", kind="keyboard", in_use="keyboard")  # xl has not taken 3-1's controller yet
    await settle(simulated)
    assert simulated.state_of("4-1")[0] == "pci"
    assert simulated.state_of("1-2")[:2] == ("protected", "last_keyboard")
    assert simulated.xl_calls("usbdev-attach") == []
    await simulated.kill()
