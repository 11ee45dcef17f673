"""A device that is bound for a guest never meets a driver of dom0's; what stays with the host works as ever."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulated_agent import DESK, KIOSK, MICE, WIN, Rig, present, settled, told

from xenplug.core.model import BusId, Device

LISTS = "version: 1\nrules: [{match: {kind: mouse}, attach: [desk, kiosk]}]\n"
EMULATED = "version: 1\nrules: [{match: {kind: mouse}, attach: win}]\n"


class Drivers:
    """Every driver of dom0's that was ever bound, by port."""

    def __init__(self, rig: Rig) -> None:
        self.met: dict[str, set[str]] = {}
        self._rig = rig
        rig.world.kernel.listeners.append(self._uevent)

    def _uevent(self, action: str, port: BusId, number: int) -> None:
        device = self._rig.world.kernel.device(port)
        found = {driver for driver in device.drivers if driver not in (None, "usbfs")} if device else set()
        self.met.setdefault(port, set()).update(filter(None, found))

    def of(self, port: str) -> set[str]:
        return self.met.get(port, set())


async def started(policy: str, *guests: object, **more: object) -> tuple[Rig, Drivers]:
    rig = await Rig(policy, *guests, **more).start()  # type: ignore[arg-type]
    await asyncio.sleep(1)
    return rig, Drivers(rig)


@pytest.mark.parametrize("policy, guest", [(MICE, "kiosk"), (EMULATED, "win")], ids=["qusb", "devicemodel"])
@told
async def test_from_plug_to_pull(policy: str, guest: str) -> None:
    rig, drivers = await started(policy, KIOSK, WIN)
    rig.plug("1-1")
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "used", guest)
    assert rig.sees(guest) == {"1-1"}
    rig.pull("1-1")
    await settled(rig)
    assert drivers.of("1-1") == set()
    await rig.kill()


@told
async def test_a_move_and_a_heal() -> None:
    rig, drivers = await started(LISTS, KIOSK, stopped=[DESK])
    rig.plug("1-1")
    await settled(rig)
    rig.world.guests.start("desk")
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "used", "desk")
    rig.world.kernel.reset(present(rig, "1-1"))  # lost as a bystander is
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "used", "desk")
    assert drivers.of("1-1") == set()
    await rig.kill()


@told
async def test_what_the_host_keeps_has_its_drivers_and_hubs_work() -> None:
    rig, drivers = await started(MICE, KIOSK)
    rig.plug("1-1", "046d:c31c", kind="keyboard")
    rig.plug("1-2", "0409:55aa", kind="hub", speed="high")
    await settled(rig, 2)
    assert (drivers.of("1-1"), drivers.of("1-2")) == ({"usbhid"}, {"hub"})
    assert rig.world.kernel.device("1-1").drivers == ("usbhid",)  # type: ignore[union-attr]
    await rig.kill()


@told
async def test_by_hand_back_to_dom0() -> None:
    rig, drivers = await started(MICE, KIOSK)
    rig.plug("1-1")
    await settled(rig)
    await rig.agent.service.detach("1-1")
    await settled(rig, 3)
    assert drivers.of("1-1") == {"usbhid"}
    await rig.agent.service.attach("1-1", "kiosk")
    await settled(rig, 3)
    await rig.agent.service.detach("1-1")
    await settled(rig, 3)
    assert rig.world.kernel.device("1-1").drivers == ("usbhid",)  # type: ignore[union-attr]
    await rig.kill()


@told
async def test_while_its_guest_is_away_dom0_has_it_and_while_it_reboots_nobody_for_long() -> None:
    rig, drivers = await started(MICE, stopped=[KIOSK])
    rig.plug("1-1")
    await settled(rig, 2)
    assert drivers.of("1-1") == {"usbhid"}
    rig.world.guests.start("kiosk")
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "used", "kiosk")
    rig.world.guests.reboot("kiosk")
    await rig.until(lambda: rig.stands("1-1")[0] == "pending")
    assert await rig.until(lambda: present(rig, "1-1").shut or rig.stands("1-1")[1] != "guest_starting", 5) < 5
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "used", "kiosk")
    await rig.kill()


@told
async def test_a_refused_attach_leaves_it_shut() -> None:
    rig, drivers = await started(MICE, KIOSK)
    rig.world.commands.failures.plan("usbdev-attach", 3, "refused")
    rig.plug("1-1")
    await asyncio.sleep(3)
    assert rig.stands("1-1")[0] == "failing"
    assert present(rig, "1-1").shut
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "used", "kiosk")
    assert drivers.of("1-1") == set()
    await rig.kill()


@told
async def test_killed_while_it_detaches() -> None:
    rig, drivers = await started(MICE, KIOSK)
    rig.plug("1-1")
    await settled(rig)
    move = asyncio.create_task(rig.reload(MICE.replace("attach: kiosk", "action: host")))
    await rig.until(lambda: present(rig, "1-1").shut)
    await rig.kill()
    move.cancel()
    rig.policy = MICE
    await rig.start()
    await settled(rig, 30)
    assert rig.stands("1-1") == ("attached", "used", "kiosk")
    assert drivers.of("1-1") == set()
    await rig.kill()


@told
async def test_a_guest_that_chooses_another_configuration_keeps_the_device() -> None:
    """Its interfaces are new ones then, and begin unauthorised."""
    rig, _ = await started(MICE, KIOSK)
    rig.plug("1-1")
    await settled(rig)
    rig.world.kernel.interfaces(present(rig, "1-1"), False)
    rig.agent.reconciler.nudge()
    rig.world.bus._take(_change(present(rig, "1-1")))
    await settled(rig)
    assert not present(rig, "1-1").shut
    assert rig.stands("1-1") == ("attached", "used", "kiosk")
    await rig.kill()


def _change(device: Device) -> object:
    from xenplug.core.protocols import UsbEvent

    return UsbEvent("change", device.port, device.number)


@told
async def test_what_someone_shut_stays_shut() -> None:
    rig, _ = await started(MICE, KIOSK)
    rig.plug("1-1", "046d:c31c", kind="keyboard")
    await settled(rig, 2)
    rig.world.kernel.interfaces(present(rig, "1-1"), False)
    await settled(rig, 60)
    assert present(rig, "1-1").shut
    await rig.kill()


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
@told
async def test_the_root_hubs_while_the_agent_runs_and_after(
    policy: str, devices: bool, interfaces: bool, after: tuple[bool, bool]
) -> None:
    rig = await Rig(f"version: 1\n{policy}", KIOSK).start()
    kernel = rig.world.kernel
    assert (kernel.authorize_new, kernel.open_new) == (devices, interfaces)
    await rig.kill()
    assert (kernel.authorize_new, kernel.open_new) == (devices, interfaces), "a crash opens nothing"
    await rig.start()
    await rig.agent.reconciler.stop()
    assert (kernel.authorize_new, kernel.open_new) == after
    await rig.kill()


@told
async def test_closed_by_default_lets_in_what_the_policy_names() -> None:
    rig, drivers = await started(MICE + "protect: [{port: 1-4}]\ndefault: block\n", KIOSK)
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    rig.plug("1-3", "0409:55aa", kind="hub", speed="high")
    rig.plug("1-4", "046d:c31c", kind="keyboard")
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "used", "kiosk")
    assert rig.stands("1-2")[0] == "blocked"
    assert not present(rig, "1-2").authorized
    assert drivers.met == {"1-1": set(), "1-2": set(), "1-3": {"hub"}, "1-4": {"usbhid"}}
    await rig.kill()


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
@told
async def test_a_stop_that_detaches_gives_dom0_what_it_may_have(policy: str, met: set[str], authorized: bool) -> None:
    rig, drivers = await started(f"version: 1\n{policy}\n", KIOSK)
    rig.plug("1-1")
    await settled(rig)
    if not rig.sees("kiosk"):
        await rig.agent.service.attach("1-1", "kiosk")
        await settled(rig)
    assert rig.sees("kiosk") == {"1-1"}
    await rig.agent.reconciler.take_all_off()
    await rig.agent.reconciler.stop()
    assert rig.sees("kiosk") == set()
    assert drivers.met["1-1"] == met
    assert present(rig, "1-1").authorized is authorized
    await rig.kill()


@pytest.mark.parametrize("by_hand", [False, True], ids=["its guest ends", "taken off by hand"])
@pytest.mark.parametrize("policy", ["rules: [{match: {kind: mouse}, action: block}]", "default: block"])
@told
async def test_what_was_given_by_hand_against_the_policy_is_blocked_again(policy: str, by_hand: bool) -> None:
    rig, drivers = await started(f"version: 1\n{policy}\n", KIOSK)
    rig.plug("1-1")
    await settled(rig)
    await rig.agent.service.attach("1-1", "kiosk")
    await settled(rig)
    assert rig.sees("kiosk") == {"1-1"}
    assert drivers.met["1-1"] == set()
    if by_hand:
        await rig.agent.service.detach("1-1")
    else:
        rig.world.guests.stop("kiosk")
    await settled(rig, 60)
    assert not present(rig, "1-1").authorized
    assert drivers.met["1-1"] == set() or not by_hand  # a device model that ends gives it back itself
    await rig.kill()


@pytest.mark.parametrize("early", [False, True], ids=["let in by the kernel", "usbcore.authorized_default=0"])
@told
async def test_what_was_there_before_the_agent(early: bool) -> None:
    """At the boot: what the policy names comes in, what it does not name goes out, and the hub works."""
    rig = Rig(MICE + "protect: [{port: 1-4}]\ndefault: block\n", KIOSK)
    rig.world.kernel.authorize_new = not early
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    rig.plug("1-3", "0409:55aa", kind="hub", speed="high")
    rig.plug("1-4", "046d:c31c", kind="keyboard")
    await asyncio.sleep(1)
    assert present(rig, "1-2").authorized is not early
    drivers = Drivers(rig)
    await rig.start()
    await settled(rig)
    assert rig.stands("1-1") == ("attached", "used", "kiosk")
    assert rig.stands("1-2")[0] == "blocked"
    assert not present(rig, "1-2").authorized
    assert [present(rig, port).drivers for port in ("1-3", "1-4")] == [("hub",), ("usbhid",)]
    if early:
        assert drivers.of("1-1") | drivers.of("1-2") == set()
    await rig.kill()
