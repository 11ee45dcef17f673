"""dom0's drivers never bind to a device that is meant for a guest; a device that stays with the host works as usual."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulated_agent import DESK, KIOSK, MICE, WIN, SimulatedAgent, device_at, in_virtual_time, settle

from xenplug.core.model import BusId

LISTS = "version: 1\nrules: [{match: {kind: mouse}, attach: [desk, kiosk]}]\n"
EMULATED = "version: 1\nrules: [{match: {kind: mouse}, attach: win}]\n"


class Drivers:
    """Every dom0 driver that was ever bound, by port."""

    def __init__(self, simulated: SimulatedAgent) -> None:
        self.met: dict[str, set[str]] = {}
        self._rig = simulated
        simulated.world.kernel.listeners.append(self._uevent)

    def _uevent(self, action: str, port: BusId, number: int) -> None:
        device = self._rig.world.kernel.device(port)
        found = {driver for driver in device.drivers if driver not in (None, "usbfs")} if device else set()
        self.met.setdefault(port, set()).update(filter(None, found))

    def of(self, port: str) -> set[str]:
        return self.met.get(port, set())


async def started(policy: str, *guests: object, **more: object) -> tuple[SimulatedAgent, Drivers]:
    simulated = await SimulatedAgent(policy, *guests, **more).start()  # type: ignore[arg-type]
    await asyncio.sleep(1)
    return simulated, Drivers(simulated)


@pytest.mark.parametrize("policy, guest", [(MICE, "kiosk"), (EMULATED, "win")], ids=["qusb", "devicemodel"])
@in_virtual_time
async def test_from_plug_to_pull(policy: str, guest: str) -> None:
    simulated, drivers = await started(policy, KIOSK, WIN)
    simulated.plug("1-1")
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "used", guest)
    assert simulated.devices_of(guest) == {"1-1"}
    simulated.pull("1-1")
    await settle(simulated)
    assert drivers.of("1-1") == set()
    await simulated.kill()


@in_virtual_time
async def test_a_move_and_a_heal() -> None:
    simulated, drivers = await started(LISTS, KIOSK, stopped=[DESK])
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.guests.start("desk")
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "used", "desk")
    simulated.world.kernel.reset(device_at(simulated, "1-1"))  # lost as when another device is unplugged
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "used", "desk")
    assert drivers.of("1-1") == set()
    await simulated.kill()


@in_virtual_time
async def test_devices_of_the_host_have_drivers_and_hubs_work() -> None:
    simulated, drivers = await started(MICE, KIOSK)
    simulated.plug("1-1", "046d:c31c", kind="keyboard")
    simulated.plug("1-2", "0409:55aa", kind="hub", speed="high")
    await settle(simulated, 2)
    assert (drivers.of("1-1"), drivers.of("1-2")) == ({"usbhid"}, {"hub"})
    assert simulated.world.kernel.device("1-1").drivers == ("usbhid",)  # type: ignore[union-attr]
    await simulated.kill()


@in_virtual_time
async def test_a_manual_detach_returns_the_device_to_dom0() -> None:
    simulated, drivers = await started(MICE, KIOSK)
    simulated.plug("1-1")
    await settle(simulated)
    await simulated.agent.service.detach("1-1")
    await settle(simulated, 3)
    assert drivers.of("1-1") == {"usbhid"}
    await simulated.agent.service.attach("1-1", "kiosk")
    await settle(simulated, 3)
    await simulated.agent.service.detach("1-1")
    await settle(simulated, 3)
    assert simulated.world.kernel.device("1-1").drivers == ("usbhid",)  # type: ignore[union-attr]
    await simulated.kill()


@in_virtual_time
async def test_dom0_has_it_while_its_guest_is_stopped_and_not_during_a_reboot() -> None:
    simulated, drivers = await started(MICE, stopped=[KIOSK])
    simulated.plug("1-1")
    await settle(simulated, 2)
    assert drivers.of("1-1") == {"usbhid"}
    simulated.world.guests.start("kiosk")
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "used", "kiosk")
    simulated.world.guests.reboot("kiosk")
    await simulated.wait_until(lambda: simulated.state_of("1-1")[0] == "pending")
    assert (
        await simulated.wait_until(
            lambda: device_at(simulated, "1-1").shut or simulated.state_of("1-1")[1] != "guest_starting", 5
        )
        < 5
    )
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "used", "kiosk")
    await simulated.kill()


@in_virtual_time
async def test_a_refused_attach_leaves_it_deauthorised() -> None:
    simulated, drivers = await started(MICE, KIOSK)
    simulated.world.commands.failures.plan("usbdev-attach", 3, "refused")
    simulated.plug("1-1")
    await asyncio.sleep(3)
    assert simulated.state_of("1-1")[0] == "failing"
    assert device_at(simulated, "1-1").shut
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "used", "kiosk")
    assert drivers.of("1-1") == set()
    await simulated.kill()


@in_virtual_time
async def test_killed_while_it_detaches() -> None:
    simulated, drivers = await started(MICE, KIOSK)
    simulated.plug("1-1")
    await settle(simulated)
    move = asyncio.create_task(simulated.reload(MICE.replace("attach: kiosk", "action: host")))
    await simulated.wait_until(lambda: device_at(simulated, "1-1").shut)
    await simulated.kill()
    move.cancel()
    simulated.policy = MICE
    await simulated.start()
    await settle(simulated, 30)
    assert simulated.state_of("1-1") == ("attached", "used", "kiosk")
    assert drivers.of("1-1") == set()
    await simulated.kill()


@in_virtual_time
async def test_a_guest_that_chooses_another_configuration_keeps_the_device() -> None:
    """Its interfaces are then new ones, and start unauthorised."""
    simulated, _ = await started(MICE, KIOSK)
    simulated.plug("1-1")
    await settle(simulated)
    simulated.world.kernel.interfaces(device_at(simulated, "1-1"), False)
    simulated.agent.reconciler.wake()
    simulated.world.kernel.emit("change", device_at(simulated, "1-1"))
    await settle(simulated)
    assert not device_at(simulated, "1-1").shut
    assert simulated.state_of("1-1") == ("attached", "used", "kiosk")
    await simulated.kill()


@in_virtual_time
async def test_interfaces_that_someone_deauthorised_stay_so() -> None:
    simulated, _ = await started(MICE, KIOSK)
    simulated.plug("1-1", "046d:c31c", kind="keyboard")
    await settle(simulated, 2)
    simulated.world.kernel.interfaces(device_at(simulated, "1-1"), False)
    await settle(simulated, 60)
    assert device_at(simulated, "1-1").shut
    await simulated.kill()


@pytest.mark.parametrize(
    "policy, devices, interfaces, after",
    [
        ("rules: []", True, True, (True, True)),
        ("rules: [{match: {kind: mouse}, attach: kiosk}]", True, False, (True, True)),
        ("rules: [{match: {kind: mouse}, attach: kiosk}]\ndefault: block", False, False, (False, False)),
        ("default: block", False, False, (False, False)),
        ("rules: [{match: {kind: mouse}, action: block}]", True, False, (True, True)),
        ("rules: [", True, True, (True, True)),
    ],
    ids=["nothing for guests", "for guests", "for guests, closed", "closed", "for nobody", "no policy"],
)
@in_virtual_time
async def test_the_root_hubs_while_the_agent_runs_and_after(
    policy: str, devices: bool, interfaces: bool, after: tuple[bool, bool]
) -> None:
    simulated = await SimulatedAgent(f"version: 1\n{policy}", KIOSK).start()
    kernel = simulated.world.kernel
    assert (kernel.authorize_new, kernel.open_new) == (devices, interfaces)
    await simulated.kill()
    assert (kernel.authorize_new, kernel.open_new) == (devices, interfaces), "a crash opens nothing"
    await simulated.start()
    await simulated.agent.reconciler.stop()
    assert (kernel.authorize_new, kernel.open_new) == after
    await simulated.kill()


@in_virtual_time
async def test_closed_by_default_admits_what_the_policy_names() -> None:
    simulated, drivers = await started(MICE + "protect: [{port: 1-4}]\ndefault: block\n", KIOSK)
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    simulated.plug("1-3", "0409:55aa", kind="hub", speed="high")
    simulated.plug("1-4", "046d:c31c", kind="keyboard")
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "used", "kiosk")
    assert simulated.state_of("1-2")[0] == "blocked"
    assert not device_at(simulated, "1-2").authorized
    assert drivers.met == {"1-1": set(), "1-2": set(), "1-3": {"hub"}, "1-4": {"usbhid"}}
    await simulated.kill()


@pytest.mark.parametrize(
    ("policy", "met", "authorized"),
    [
        ("rules: [{match: {kind: mouse}, attach: kiosk}]", {"usbhid"}, True),
        ("rules: [{match: {kind: mouse}, attach: kiosk, idle: block}]", set(), False),
        ("rules: [{match: {kind: mouse}, attach: kiosk, idle: block}]\ndefault: block", set(), False),
        ("default: block", set(), False),
    ],
    ids=["dom0's meanwhile", "nobody's meanwhile", "nobody's, closed", "by hand against the policy"],
)
@in_virtual_time
async def test_a_stop_that_detaches_returns_what_dom0_may_have(policy: str, met: set[str], authorized: bool) -> None:
    simulated, drivers = await started(f"version: 1\n{policy}\n", KIOSK)
    simulated.plug("1-1")
    await settle(simulated)
    if not simulated.devices_of("kiosk"):
        await simulated.agent.service.attach("1-1", "kiosk")
        await settle(simulated)
    assert simulated.devices_of("kiosk") == {"1-1"}
    await simulated.agent.reconciler.detach_all()
    await simulated.agent.reconciler.stop()
    assert simulated.devices_of("kiosk") == set()
    assert drivers.met["1-1"] == met
    assert device_at(simulated, "1-1").authorized is authorized
    await simulated.kill()


@in_virtual_time
async def test_a_stop_that_detaches_waits_until_a_guest_has_set_up_its_device() -> None:
    simulated, _ = await started(MICE, KIOSK)
    simulated.plug("1-1")
    await simulated.wait_until(lambda: simulated.state_of("1-1") == ("attached", "used", "kiosk"))
    await simulated.agent.reconciler.detach_all()
    assert simulated.devices_of("kiosk") == set()
    assert simulated.world.guests.named("kiosk").serving, "its device model runs"
    await simulated.kill()


@pytest.mark.parametrize("by_hand", [False, True], ids=["its guest ends", "taken off by hand"])
@pytest.mark.parametrize("policy", ["rules: [{match: {kind: mouse}, action: block}]", "default: block"])
@in_virtual_time
async def test_a_blocked_device_attached_manually_is_blocked_again(policy: str, by_hand: bool) -> None:
    simulated, drivers = await started(f"version: 1\n{policy}\n", KIOSK)
    simulated.plug("1-1")
    await settle(simulated)
    await simulated.agent.service.attach("1-1", "kiosk")
    await settle(simulated)
    assert simulated.devices_of("kiosk") == {"1-1"}
    assert drivers.met["1-1"] == set()
    if by_hand:
        await simulated.agent.service.detach("1-1")
    else:
        simulated.world.guests.stop("kiosk")
    await settle(simulated, 60)
    assert not device_at(simulated, "1-1").authorized
    assert drivers.met["1-1"] == set() or not by_hand  # a device model that ends returns it itself
    await simulated.kill()


@pytest.mark.parametrize("early", [False, True], ids=["let in by the kernel", "usbcore.authorized_default=0"])
@in_virtual_time
async def test_devices_present_before_the_agent(early: bool) -> None:
    """At boot: dom0 keeps the devices that the policy names, loses the others, and the hub works."""
    simulated = SimulatedAgent(MICE + "protect: [{port: 1-4}]\ndefault: block\n", KIOSK)
    simulated.world.kernel.authorize_new = not early
    simulated.plug("1-1")
    simulated.plug("1-2", "0781:5567", kind="storage", speed="high")
    simulated.plug("1-3", "0409:55aa", kind="hub", speed="high")
    simulated.plug("1-4", "046d:c31c", kind="keyboard")
    await asyncio.sleep(1)
    assert device_at(simulated, "1-2").authorized is not early
    drivers = Drivers(simulated)
    await simulated.start()
    await settle(simulated)
    assert simulated.state_of("1-1") == ("attached", "used", "kiosk")
    assert simulated.state_of("1-2")[0] == "blocked"
    assert not device_at(simulated, "1-2").authorized
    assert [device_at(simulated, port).drivers for port in ("1-3", "1-4")] == [("hub",), ("usbhid",)]
    if early:
        assert drivers.of("1-1") | drivers.of("1-2") == set()
    await simulated.kill()
