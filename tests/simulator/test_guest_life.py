"""Domains: when libxl writes what, what a reboot restores and what not, how a domain ends."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulator.host import BDF, KIOSK, PORT, WIN11, attached, host, now, plugged, xl

from xenplug.adapters.xl import parse_list
from xenplug.core.guests import read_guests
from xenplug.core.model import Guest, GuestState, GuestType
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.store import INTRODUCE, RELEASE
from xenplug.simulator.world import World

DESK = GuestConfig(name="desk", type=GuestType.PV, controllers=KIOSK.controllers)


async def guest(world: World, name: str) -> Guest | None:
    """The guest as the agent's own reader has it from xenstore and `xl list`."""
    states = parse_list((await xl(world, "list")).stdout)
    assert isinstance(states, dict)
    return read_guests(world.tree.items("/"), world.tree.domains, world.domains.ready, states).get(name)


async def test_the_agent_s_reader_understands_what_libxl_writes() -> None:
    world = host()
    kiosk, win11 = await guest(world, "kiosk"), await guest(world, "win11")
    assert kiosk and win11
    assert (kiosk.domid, kiosk.type, kiosk.state, kiosk.device_model) == (1, "pv", "running", 4001)
    assert [(c.id, c.type, c.version, c.connected, len(c.ports)) for c in kiosk.controllers] == [
        (0, "qusb", 2, True, 4)
    ]
    assert (win11.domid, win11.type, win11.controllers, win11.device_model) == (2, "hvm", (), 4002)


async def test_a_start_in_libxl_s_order() -> None:  # xen-facts 2.8
    world = host(KIOSK)
    heard: list[str] = []
    for path in ("/local/domain/2/name", INTRODUCE, "/local/domain/2/image", "/libxl/2/device"):
        world.tree.watch(path, heard.append)
    world.guests.define(DESK)
    await asyncio.sleep(0)
    heard.clear()
    world.guests.start("desk")
    for _ in range(11):
        await asyncio.sleep(0.1)
        ready = world.domains.ready(2, world.guests.named("desk").uuid)
        heard += ["ready"] if ready else []
    short = list(dict.fromkeys(path.split("/device/")[0] for path in heard))
    assert short == [
        "/local/domain/2/name",
        "@introduceDomain",
        "/local/domain/2/image/device-model-pid",
        "/libxl/2",
        "ready",
    ]
    started = await guest(world, "desk")
    assert started and not started.controllers[0].connected
    await asyncio.sleep(4)
    started = await guest(world, "desk")
    assert started and started.controllers[0].connected


async def test_a_starting_guest_is_not_ready() -> None:
    world = host(KIOSK)
    world.guests.define(DESK)
    world.guests.start("desk")
    await asyncio.sleep(0.3)
    found = await guest(world, "desk")
    assert found and found.state is GuestState.STARTING
    await asyncio.sleep(1)
    found = await guest(world, "desk")
    assert found and found.state is GuestState.RUNNING


@pytest.mark.parametrize(
    ("config", "has"),
    [
        (GuestConfig(name="x", type=GuestType.PV), False),
        (GuestConfig(name="x", type=GuestType.PVH, controllers=KIOSK.controllers), True),
        (GuestConfig(name="x", type=GuestType.HVM), True),
        (GuestConfig(name="x", type=GuestType.PV, device_model=True), True),
    ],
)
async def test_t14_who_has_a_device_model(config: GuestConfig, has: bool) -> None:
    found = await guest(host(config), "x")
    assert found and (found.device_model is not None) is has


async def test_t11_a_reboot_takes_3_s_a_new_domid_and_the_devices() -> None:
    world = host()
    await attached(world, "1-1")
    await xl(world, "usbctrl-attach", "kiosk", "type=qusb", "ports=2")
    uuid = world.guests.named("kiosk").uuid
    world.guests.reboot("kiosk")
    await asyncio.sleep(0.5)
    found = await guest(world, "kiosk")
    assert found and found.state is GuestState.STOPPING
    assert any(port for controller in found.controllers for port in controller.ports.values())
    await asyncio.sleep(0.3)
    found = await guest(world, "kiosk")
    assert found and not any(port for c in found.controllers for port in c.ports.values()), "emptied first (2.7)"
    await asyncio.sleep(0.4)
    assert await guest(world, "kiosk") is None
    await asyncio.sleep(2.8)
    found = await guest(world, "kiosk")
    assert found and (found.domid, found.uuid, found.state) == (3, uuid, GuestState.RUNNING)
    assert [dict(c.ports) for c in found.controllers] == [dict.fromkeys(range(1, 5)), dict.fromkeys(range(1, 3))]
    assert now(world, "1-1").drivers == ("usbhid",)


async def test_t25_a_shutdown_sounds_like_an_end() -> None:
    world = host()
    heard: list[str] = []
    world.tree.watch(RELEASE, heard.append)
    await asyncio.sleep(0)
    world.guests.stop("kiosk")
    await asyncio.sleep(0.5)
    assert heard == [RELEASE] * 2
    assert await world.store.introduced(1)
    await asyncio.sleep(1.5)
    assert heard == [RELEASE] * 3
    assert not await world.store.introduced(1)
    assert world.tree.directory("/local/domain") == ["0", "2"]


async def test_lab11_a_destroyed_guests_devices_return_a_moment_later() -> None:
    world = host()
    await attached(world, "1-1")
    world.guests.destroy("kiosk")
    assert now(world, "1-1").drivers == ("usbfs",), "qemu ends asynchronously (xen-facts 2.7)"
    await asyncio.sleep(0.5)
    assert now(world, "1-1").drivers == ("usbhid",)
    assert not world.tree.items("/libxl/1")
    assert not world.tree.items("/local/domain/0/backend/qusb/1/0")


async def test_a_stale_port_keeps_the_backend_s_folder_of_a_dead_domain() -> None:  # xen-facts 2.7
    world = host()
    await attached(world, "1-1")
    world.kernel.unplug("1-1")
    world.guests.destroy("kiosk")
    assert world.tree.read(PORT.format(1)) == "1-1"
    assert world.stale_ports() == []
    here = await plugged(world, "1-4")
    await xl(world, "usbctrl-attach", "win11", "version=3")
    assert (await xl(world, "usbdev-attach", "win11", "hostbus=1", f"hostaddr={here.number}", "controller=0")).ok


async def test_t26_domids_are_never_used_again() -> None:
    world = host()
    for expected in (3, 4, 5):
        world.guests.destroy("kiosk")
        world.guests.start("kiosk")
        assert world.guests.named("kiosk").domid == expected
        await asyncio.sleep(1.5)


async def test_a_domain_destroyed_while_it_starts_leaves_nothing_behind() -> None:
    world = host(KIOSK)
    world.guests.define(DESK)
    world.guests.start("desk")
    await asyncio.sleep(0.3)
    world.guests.destroy("desk")
    await asyncio.sleep(10)
    assert world.tree.directory("/local/domain") == ["0", "1"]
    assert world.tree.domains == {0, 1}


async def test_states_in_xl_list() -> None:
    world = host()
    world.guests.pause("kiosk")
    world.guests.reboot("win11")
    rows = (await xl(world, "list")).stdout.splitlines()
    assert rows[0] == "Name                                        ID   Mem VCPUs\tState\tTime(s)"
    assert rows[2] == "kiosk                                        1   256     1     --p---       0.0"
    assert "---sr-" in rows[3]


async def test_a_persons_acts_at_the_console() -> None:
    world = host()
    await world.commands.console(["pause", "kiosk"])
    assert world.guests.named("kiosk").paused
    await world.commands.console(["unpause", "kiosk"])
    await world.commands.console(["destroy", "kiosk"])
    assert world.guests.named("kiosk").domid is None
    assert (await world.commands.console(["destroy", "kiosk"])).code == 1
    assert {call.by for call in world.commands.calls} == {"console"}


@pytest.mark.parametrize(
    ("verb", "name", "complaint"),
    [("start", "kiosk", "already running"), ("stop", "desk", "not running"), ("start", "nosuch", "no such guest")],
)
async def test_impossible_acts_raise(verb: str, name: str, complaint: str) -> None:
    world = host(KIOSK)
    world.guests.define(DESK)
    with pytest.raises(ValueError, match=complaint):
        getattr(world.guests, verb)(name)


async def test_a_reboot_brings_pci_devices_back() -> None:  # xen-facts 5
    world = host(GuestConfig(name="win11", type=GuestType.HVM, passthrough=True))
    await xl(world, "pci-assignable-add", BDF)
    assert (await xl(world, "pci-attach", "win11", BDF)).ok
    world.guests.reboot("win11")
    await asyncio.sleep(5)
    found = await guest(world, "win11")
    assert found and (found.domid, found.pci) == (2, (BDF,))


def test_only_a_pv_guest_has_a_frontend_by_default() -> None:
    assert not WIN11.has_frontend
    assert KIOSK.has_frontend
    assert GuestConfig(name="x", type=GuestType.HVM, frontend=True).has_frontend
