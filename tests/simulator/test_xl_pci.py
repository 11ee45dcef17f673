"""xl's pci-* commands: with an IOMMU, without one, and their messages even on success (lab 10, xen-facts 1.7)."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulator.host import BDF, KIOSK, host, plugged, xl

from xenplug.adapters.xl import XlCause, read_outcome
from xenplug.core.model import GuestType
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.toolstack import HostFacts
from xenplug.simulator.world import World

OPEN = GuestConfig(name="win11", type=GuestType.HVM, passthrough=True)
PVH = GuestConfig(name="pvh", type=GuestType.PVH, passthrough=True)
RESET = "The kernel doesn't support reset from sysfs for PCI device 0000:00:14.0"


def driver(world: World) -> str | None:
    return world.bus.controllers()[0].driver


async def test_a_controller_goes_to_a_guest_and_back() -> None:
    world = host(OPEN)
    await plugged(world, "1-1")
    assert (await xl(world, "pci-assignable-add", "00:14.0")).ok
    assert (driver(world), dict(world.kernel.devices())) == ("pciback", {})
    assert (await xl(world, "pci-assignable-list")).stdout == f"{BDF} \n"  # T41: a trailing blank
    result = await xl(world, "pci-attach", "win11", BDF)
    assert (result.code, RESET in result.stderr) == (0, True), "stderr is no sign of failure"
    assert (await xl(world, "pci-list", "win11")).stdout == f"Vdev Device\n00.0 {BDF}\n"
    assert (await xl(world, "pci-assignable-list")).stdout == ""
    assert "failed to de-quarantine" in (await xl(world, "pci-assignable-remove", "-r", BDF)).stderr
    detached = await xl(world, "pci-detach", "win11", BDF)
    assert (detached.code, round(detached.seconds)) == (0, 7)
    assert (await xl(world, "pci-detach", "win11", BDF)).code == 1
    back = await xl(world, "pci-assignable-remove", "-r", BDF)
    assert (back.code, "Rebinding to driver at /sys/bus/pci/drivers/xhci_hcd" in back.stderr) == (0, True)
    await asyncio.sleep(0.1)
    assert (driver(world), list(world.kernel.devices())) == ("xhci_hcd", ["1-1"])


async def test_lab10_without_iommu_the_controller_is_stuck_in_pciback() -> None:
    world = host(OPEN, facts=HostFacts(iommu=False))
    assert "hvm_directio" not in (await xl(world, "info")).stdout
    added = await xl(world, "pci-assignable-add", BDF)
    assert (added.code, "failed to quarantine" in added.stderr, driver(world)) == (1, True, "pciback")
    removed = await xl(world, "pci-assignable-remove", "-r", BDF)
    assert (removed.code, driver(world)) == (1, "pciback")


@pytest.mark.parametrize(
    ("guest", "said"),
    [
        (GuestConfig(name="g", type=GuestType.HVM), "PCI device 0:0:14.0 cannot be assigned - no IOMMU?"),
        (KIOSK, "xc_assign_device failed: Operation not supported"),
        (PVH, "passthrough not yet supported for x86 PVH guests"),
    ],
)
async def test_t39_without_passthrough_the_message_names_the_iommu(guest: GuestConfig, said: str) -> None:
    world = host(guest)
    await xl(world, "pci-assignable-add", BDF)
    result = await xl(world, "pci-attach", guest.name, BDF)
    assert (result.code, said in result.stderr) == (1, True)


async def test_only_what_pciback_has_is_assignable() -> None:
    result = await xl(host(OPEN), "pci-attach", "win11", BDF)
    assert (result.code, "PCI device 0:0:14.0 is not assignable" in result.stderr) == (1, True)


@pytest.mark.parametrize("command", [["pci-attach", "win11"], ["pci-assignable-add"]])
async def test_t40_a_bdf_without_function_kills_xl(command: list[str]) -> None:
    assert (await xl(host(OPEN), *command, "0000:00:14")).signal == 11


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pci-attach", "win11", "00:zz"], 2, "malformed PCI_SPEC_STRING"),
        (["pci-assignable-add", "00:zz"], 2, 'pci-assignable-add: malformed BDF "00:zz"'),
        (["pci-assignable-add", "00:1b.0"], 1, "Couldn't lstat /sys/bus/pci/devices/0000:00:1b.0"),
        (["pci-detach", "win11", "00:14.0"], 1, "unable to remove device"),
        (["pci-list"], 2, "requires at least 1 argument"),
    ],
)
async def test_refusals(words: list[str], code: int, said: str) -> None:
    result = await xl(host(OPEN), *words)
    assert (result.code, said in result.stderr) == (code, True)


async def test_assigning_twice_only_warns_and_a_forgotten_driver_is_not_rebound() -> None:
    world = host(OPEN)
    await xl(world, "pci-assignable-add", BDF)
    again = await xl(world, "pci-assignable-add", BDF)
    assert (again.code, "already assigned to pciback" in again.stderr) == (0, True)
    world.tree.remove("/libxl/pci/0000-00-14-0")
    removed = await xl(world, "pci-assignable-remove", "-r", BDF)
    assert (removed.code, "not rebinding" in removed.stderr, driver(world)) == (0, True, None)


async def test_calls_for_a_domid_that_is_gone() -> None:
    world = host(OPEN)
    assert (await xl(world, "pci-assignable-add", BDF)).ok
    for words in (["pci-attach", 99, BDF], ["pci-detach", 99, BDF]):
        assert read_outcome(await xl(world, *words)).cause is XlCause.UNKNOWN_GUEST
    assert (await xl(world, "pci-detach", "-f", 99, BDF)).ok  # seen with 4.17: nothing is left to do
