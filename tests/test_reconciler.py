"""The one loop on a simulated host: the main job, crashes at every moment, losses, reloads, orders, slow tools."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from tests.rig import DESK, KIOSK, MICE, QUSB, WIN, Rig, present, run

from xenplug.core.ledger import Override
from xenplug.core.model import GuestType
from xenplug.shell.varlink import Refused
from xenplug.sim.domain import GuestConfig
from xenplug.sim.toolstack import Call

BOTH = """version: 1
rules:
  - {name: mice, match: {kind: mouse}, attach: kiosk}
  - {name: sticks, match: {kind: storage}, attach: win}
"""
HERE, THERE = ("attached", "used", "kiosk"), ("attached", "used", "desk")


def told(test: Callable[..., Any]) -> Callable[..., None]:
    """An async test, in virtual time."""

    def play(**arguments: Any) -> None:
        run(test(**arguments))

    play.__name__, play.__doc__ = test.__name__, test.__doc__
    play.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return play


async def settled(rig: Rig, seconds: float = 20.0) -> None:
    await asyncio.sleep(seconds)
    await rig.agent.reconciler.looked()
    assert rig.world.stale_ports() == []


# the main job


@told
async def test_a_mouse_goes_to_its_guest_and_back():
    rig = await Rig(MICE, KIOSK).start()
    await asyncio.sleep(1)
    rig.plug("1-1")
    assert await rig.until(lambda: rig.sees("kiosk") == {"1-1"}) < 1.5
    await settled(rig)
    assert rig.stands("1-1") == HERE
    rig.pull("1-1")
    await asyncio.sleep(0.1)
    assert rig.world.stale_ports() == []
    assert (rig.at("1-1"), rig.agent.reconciler.ledger.entries) == ({}, {})
    assert [c.argv[1:] for c in rig.calls("usbdev-attach")] == [
        ("usbdev-attach", "1", "hostbus=1", "hostaddr=2", "controller=0", "port=1")
    ]
    await rig.kill()


@told
async def test_hvm_gets_its_controller_made_once():
    rig = await Rig(BOTH, WIN, KIOSK).start()
    for n in range(1, 5):
        rig.plug(f"1-{n}", f"0781:000{n}", kind="storage", speed="high")
    await settled(rig)
    assert rig.sees("win") == {"1-1", "1-2", "1-3", "1-4"}
    assert len(rig.calls("usbctrl-attach")) == 1 and len(rig.calls("usbdev-attach")) == 4
    ports = [rig.at(f"1-{n}")["guest_port"] for n in range(1, 5)]
    assert ports == [1, 2, 3, 4]
    await rig.kill()


@told
async def test_one_step_follows_the_other_without_a_pause():
    """The round that the end of an act brings must find its guest idle: nothing else may come for a minute."""
    rig = await Rig(BOTH, WIN, KIOSK).start()
    await asyncio.sleep(1)
    for n in range(1, 5):
        rig.plug(f"1-{n}", f"0781:000{n}", kind="storage", speed="high")
    await settled(rig)
    mine = [c for c in rig.world.commands.calls if c.command.startswith("usb")]
    assert [round(b.start - (a.end or 0), 2) for a, b in pairwise(mine)] == [0.0] * 4
    await rig.kill()


@told
async def test_a_reenumeration_ends_attached_once():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    rig.world.kernel.reenumerate("1-1")
    await settled(rig)
    assert (rig.stands("1-1"), rig.sees("kiosk"), len(rig.calls("usbdev-attach"))) == (HERE, {"1-1"}, 2)
    assert rig.at("1-1")["address"] == "1.3"
    await rig.kill()


@pytest.mark.parametrize("kind, speed", [("mouse", "low"), ("storage", "high")])
@pytest.mark.parametrize("order", ["[kiosk, desk]", "[desk, kiosk]"])
@told
async def test_what_a_reboot_takes_it_gives_back(kind, speed, order):
    """A mouse follows the list, a stick goes home; neither visits another guest while its own is only rebooting."""
    rig = await Rig(
        f"version: 1\nrules: [{{match: {{kind: {kind}}}, attach: {order}}}]", KIOSK, stopped=[DESK]
    ).start()
    rig.plug("1-1", kind=kind, speed=speed)
    await settled(rig)
    assert rig.stands("1-1") == HERE
    moves = order == "[desk, kiosk]" and kind == "mouse"
    rig.world.guests.start("desk")
    await settled(rig)
    assert rig.stands("1-1") == (THERE if moves else HERE)
    home, domid = rig.at("1-1")["guest"], rig.world.guests.named(rig.at("1-1")["guest"]).domid
    rig.world.guests.reboot(home)
    await settled(rig)
    assert rig.at("1-1")["guest"] == home and rig.sees(home) == {"1-1"}
    assert rig.world.guests.named(home).domid != domid
    visited = {c.argv[2] for c in rig.calls("usbdev-attach")}
    assert len(visited) == (3 if moves else 2)
    await rig.kill()


@told
async def test_a_guest_that_stays_away_gives_up_its_devices_to_the_next():
    rig = await Rig("version: 1\nrules: [{match: {kind: mouse}, attach: [kiosk, desk]}]", KIOSK, DESK).start()
    rig.plug("1-1")
    await settled(rig)
    rig.world.guests.destroy("kiosk")
    assert 5 <= await rig.until(lambda: rig.sees("desk") == {"1-1"}) < 7
    rig.world.guests.start("kiosk")
    assert await rig.until(lambda: rig.sees("kiosk") == {"1-1"}) < 8
    await rig.kill()


@told
async def test_an_earlier_guest_of_the_list_gets_it_as_soon_as_it_can():
    """Nothing but libxl's file tells that a guest can take devices: it is looked for, not waited for."""
    rig = await Rig("version: 1\nrules: [{match: {kind: mouse}, attach: [win, kiosk]}]", KIOSK, stopped=[WIN]).start()
    rig.plug("1-1")
    await settled(rig)
    rig.world.guests.start("win")
    assert await rig.until(lambda: rig.at("1-1")["guest"] == "win") < 3
    await rig.kill()


@told
async def test_a_controller_made_late_in_a_guests_life_has_its_time_to_connect():
    """No frontend after 120 s means no driver; a controller that was made a moment ago proves nothing."""
    bare = GuestConfig(name="kiosk", type=GuestType.PV, device_model=True)
    rig = await Rig(MICE, bare).start()
    await asyncio.sleep(300)
    rig.plug("1-1")
    await settled(rig)
    assert rig.stands("1-1") == HERE
    states = [change.view()["state"] for change in rig.journal.changes]
    assert "given_up" not in states and states[-1] == "attached"
    await rig.kill()


@told
async def test_what_dom0_uses_stays_until_unplug():
    rig = await Rig(BOTH, KIOSK, WIN).start()
    rig.plug("1-1", "0781:5567", kind="storage", speed="high", in_use="storage")
    await settled(rig)
    assert rig.stands("1-1") == ("protected", "in_use", None)
    assert not rig.calls("usbdev-attach")
    await rig.kill()


# crashes


async def crash_story(moment: float) -> list[str]:
    """A mouse is plugged, the agent killed so much later and started again; what is wrong in the end."""
    rig = await Rig(BOTH, KIOSK, WIN).start()
    await asyncio.sleep(1)
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    await asyncio.sleep(moment)
    await rig.kill()
    await rig.start()
    await settled(rig)
    wrong = []
    for port, guest in (("1-1", "kiosk"), ("1-2", "win")):
        if rig.stands(port) != ("attached", "used", guest) or port not in rig.sees(guest):
            wrong.append(f"killed {moment:.3f} s after the plug: {port} {rig.stands(port)}, {rig.sees(guest)}")
    if rig.agent.reconciler.ledger.overrides:
        wrong.append(f"killed {moment:.3f} s after the plug: {rig.agent.reconciler.ledger.overrides}")
    if len(rig.world.guests.named("win").saved) != 1:
        wrong.append(f"killed {moment:.3f} s after the plug: {rig.world.guests.named('win').saved}")
    await rig.kill()
    return wrong


@pytest.mark.parametrize("part", range(4))
def test_killed_at_any_moment_of_an_attach(part):
    wrong = [line for step in range(part, 100, 4) for line in run(crash_story(step * 0.02))]
    assert wrong == []


class Killer:
    """Kills the agent once it has done so many turns of the loop since something began."""

    def __init__(self, rig: Rig, turns: int) -> None:
        self.rig, self.turns, self.done = rig, turns, asyncio.Event()
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.turns -= 1
        if self.turns <= 0:
            self.task = asyncio.create_task(self._kill())
            return
        asyncio.get_running_loop().call_soon(self._turn)

    async def _kill(self) -> None:
        await self.rig.kill()
        self.done.set()


async def killed_in_turn(turns: int, after: float, act: Callable[[Rig], object]) -> list[str]:
    """As crash_story, at the k-th turn of the loop after the time at which calls of xl end."""
    rig = await Rig(MICE, KIOSK, DESK).start()
    await asyncio.sleep(1)
    rig.plug("1-1")
    await asyncio.sleep(3)
    act(rig)
    await asyncio.sleep(after)
    await Killer(rig, turns).done.wait()
    await rig.start()
    await settled(rig, 70)
    guest = "kiosk" if "attach: kiosk" in rig.policy else "desk"
    wrong = []
    if rig.stands("1-1") != ("attached", "used", guest) or rig.sees(guest) != {"1-1"}:
        wrong.append(f"turn {turns} after {after}: {rig.stands('1-1')} {rig.sees('kiosk')} {rig.sees('desk')}")
    if rig.agent.reconciler.ledger.overrides:
        wrong.append(f"turn {turns} after {after}: {rig.agent.reconciler.ledger.overrides}")
    await rig.kill()
    return wrong


def moved(rig: Rig) -> None:
    rig.policy = MICE.replace("attach: kiosk", "attach: desk")
    rig.tasks = [asyncio.create_task(rig.agent.service.reload())]  # type: ignore[attr-defined]


def reenumerated(rig: Rig) -> None:
    rig.world.kernel.reenumerate("1-1")


@pytest.mark.parametrize("act", [moved, reenumerated])
@pytest.mark.parametrize("after", [0.0, 0.3, 0.6, 0.9])
def test_killed_at_any_turn_of_a_move(act, after):
    """Between any two awaits around the moments at which something ends."""
    wrong = [line for turns in range(1, 40, 3) for line in run(killed_in_turn(turns, after, act))]
    assert wrong == []


@told
async def test_a_restart_does_nothing_twice():
    rig = await Rig(BOTH, KIOSK, WIN).start()
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settled(rig)
    before = len(rig.calls("usbdev-attach") + rig.calls("usbdev-detach") + rig.calls("usbctrl-attach"))
    for _ in range(3):
        await rig.kill()
        await rig.start()
        await settled(rig)
        assert (rig.stands("1-1"), rig.at("1-2")["guest"]) == (HERE, "win")
    assert len(rig.calls("usbdev-attach") + rig.calls("usbdev-detach") + rig.calls("usbctrl-attach")) == before
    await rig.kill()


@told
async def test_what_changed_while_nobody_looked_is_put_right():
    rig = await Rig(BOTH, KIOSK, DESK, WIN).start()
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settled(rig)
    await rig.kill()
    rig.pull("1-1")
    rig.plug("1-1", "046d:c017")
    rig.pull("1-2")
    rig.plug("1-3", "046d:c018")
    rig.world.guests.reboot("kiosk")
    await asyncio.sleep(10)
    await rig.start()
    await settled(rig)
    assert rig.sees("kiosk") == {"1-1", "1-3"} and rig.sees("win") == set()
    assert rig.at("1-1")["device"] == "046d:c017"
    await rig.kill()


@told
async def test_orders_by_hand_survive_a_crash():
    rig = await Rig(MICE, KIOSK, DESK).start()
    rig.plug("1-1")
    rig.plug("1-2", "046d:c017")
    await settled(rig)
    await rig.agent.service.detach("1-1")
    await rig.agent.service.attach("1-2", "desk")
    await rig.kill()
    await rig.start()
    await settled(rig)
    assert (rig.stands("1-1"), rig.stands("1-2")) == (("host", "by_hand", None), THERE)
    await rig.kill()


# losses


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.2, 0.3, 0.32, 0.34, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("act", ["attach", "move", "pull"])
@told
async def test_xenstore_lost_and_back(act, moment):
    """Whatever was under way: afterwards all is as it should be, and nobody is thought to have meddled."""
    rig = await Rig(MICE, KIOSK, DESK).start()
    await asyncio.sleep(1)
    goal = HERE
    if act != "attach":
        rig.plug("1-1")
        await asyncio.sleep(3)
    if act == "attach":
        rig.plug("1-1")
    elif act == "pull":
        rig.pull("1-1")
        rig.plug("1-1", "046d:c017")
    else:
        moved(rig)
        goal = THERE
    await asyncio.sleep(moment)
    rig.world.store.lose()
    await settled(rig)
    assert rig.stands("1-1") == goal
    assert rig.sees(goal[2]) == {"1-1"}
    assert rig.agent.reconciler.ledger.overrides == {}
    await rig.kill()


@told
async def test_xenstore_away_for_long(caplog):
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    store, connect = rig.world.store, rig.world.store.connect

    async def refused() -> None:
        raise ConnectionRefusedError("no xenstored")

    store.connect = refused  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO, "xenplug"):
        store.lose()
        rig.plug("1-2", "046d:c017")
        rig.pull("1-1")
        await asyncio.sleep(200)
        store.connect = connect  # type: ignore[method-assign]
        await settled(rig)
    assert (rig.sees("kiosk"), rig.stands("1-2"), rig.at("1-1")) == ({"1-2"}, HERE, {})
    assert [r.getMessage() for r in caplog.records].count("xenstore: connection lost; reconnecting") == 1
    await rig.kill()


@told
async def test_udev_events_lost():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    rig.world.bus.lose(5.0)
    rig.pull("1-1")
    rig.plug("1-2", "046d:c017")
    rig.plug("1-3", "046d:c018")
    rig.pull("1-3")
    await settled(rig)
    assert (rig.sees("kiosk"), rig.stands("1-2"), rig.at("1-1"), rig.at("1-3")) == ({"1-2"}, HERE, {}, {})
    await rig.kill()


@told
async def test_what_no_event_tells_the_rescan_finds():
    rig = await Rig(MICE, KIOSK).start()
    await asyncio.sleep(1)
    rig.world.kernel.listeners.clear()
    rig.plug("1-1")
    await asyncio.sleep(30)
    assert rig.at("1-1") == {}
    await rig.until(lambda: rig.stands("1-1")[2] == "kiosk", 65)
    await rig.kill()


# reload


@told
async def test_reload_moves_only_what_must_move():
    rig = await Rig(BOTH, KIOSK, DESK, WIN).start()
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settled(rig)
    said = await rig.reload(BOTH.replace("attach: kiosk", "attach: desk"))
    await settled(rig)
    assert said == "policy in force: 2 rules"
    assert (rig.stands("1-1"), rig.at("1-2")["guest"]) == (THERE, "win")
    assert (len(rig.calls("usbdev-detach")), len(rig.calls("usbdev-attach"))) == (1, 3)
    said = await rig.reload("version: 1\nrules: [{match: {kind: mouse}, attach: }]")
    await settled(rig)
    assert said.endswith("the last good policy stays in force")
    assert (rig.stands("1-1"), rig.at("1-1")["rule"], len(rig.calls("usbdev-detach"))) == (THERE, "mice", 1)
    await rig.reload("version: 1\nprotect: [{kind: mouse}]")
    await settled(rig)
    assert (rig.stands("1-1"), rig.stands("1-2")) == (("protected", "protect", None), ("host", "default", None))
    await rig.kill()


@told
async def test_without_a_good_policy_only_stale_ports_are_cleared():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    rig.plug("1-2", "046d:c017")
    await settled(rig)
    await rig.kill()
    rig.policy = "version: 2"
    rig.pull("1-2")
    await rig.start()
    rig.plug("1-3", "046d:c018")
    await settled(rig)
    assert rig.stands("1-1") == ("pending", "no_policy", "kiosk")
    assert rig.stands("1-3") == ("pending", "no_policy", None)
    assert len(rig.calls("usbdev-attach")) == 2
    await rig.reload(MICE)
    await settled(rig)
    assert (rig.stands("1-1"), rig.stands("1-3")) == (HERE, HERE)
    await rig.kill()


# by hand


@told
async def test_by_hand():
    rig = await Rig(MICE, KIOSK, DESK).start()
    rig.plug("1-1")
    await settled(rig)
    service = rig.agent.service
    assert "attached to desk" in await service.attach("1-1", "desk")
    assert rig.sees("desk") == {"1-1"} or await rig.until(lambda: rig.sees("desk") == {"1-1"}) < 1
    assert "by hand" in await service.detach("1-1")
    await settled(rig)
    assert rig.sees("desk") == rig.sees("kiosk") == set()
    await service.release("1-1")
    await settled(rig)
    assert rig.stands("1-1") == HERE
    await rig.kill()


@told
async def test_by_hand_elsewhere_than_where_it_failed():
    """What went wrong before the order is no answer to the order."""
    rig = await Rig(
        "version: 1\nguests: {win: {controller: {type: qusb}}}\nrules: [{match: {kind: storage}, attach: win}]",
        KIOSK,
        GuestConfig(name="win", type=GuestType.HVM, frontend=False),
    ).start()
    rig.plug("1-1", "0781:5567", kind="storage", speed="high")
    await settled(rig, 150)
    assert rig.stands("1-1") == ("given_up", "no_frontend", None)
    assert "attached to kiosk" in await rig.agent.service.attach("1-1", "kiosk")
    await rig.kill()


@told
async def test_someone_at_the_console_is_respected():
    rig = await Rig(MICE, KIOSK, DESK).start()
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    await settled(rig)
    await rig.world.commands.console(["usbdev-detach", "kiosk", "0", "1"])
    stick = present(rig, "1-2")
    await rig.world.commands.console(["usbdev-attach", "desk", f"hostbus={stick.bus}", f"hostaddr={stick.number}"])
    await settled(rig, 100)
    assert rig.stands("1-1") == ("host", "by_hand", None)
    assert rig.stands("1-2") == ("foreign", "foreign", "desk")
    assert rig.sees("desk") == {"1-2"}
    for order in (rig.agent.service.detach("1-2"), rig.agent.service.attach("1-2", "kiosk")):
        with pytest.raises(Refused) as refused:
            await order
        assert "xl usbdev-detach desk 0 1" in refused.value.parameters["reason"]
    rig.pull("1-1")
    rig.plug("1-1")
    await settled(rig)
    assert rig.stands("1-1") == HERE
    await rig.kill()


@told
async def test_a_domain_that_empties_its_ports_before_it_goes_is_no_console():
    """libxl takes every device off before it takes the domain away; a look may fall in between."""
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    rig.world.tree.write("/local/domain/0/backend/qusb/1/0/port/1", "")
    await asyncio.sleep(0.5)
    rig.world.guests.destroy("kiosk")
    await asyncio.sleep(3)
    rig.world.guests.start("kiosk")
    await settled(rig)
    assert rig.stands("1-1") == HERE
    await rig.kill()


@pytest.mark.parametrize(
    "order, kind, reason",
    [
        (("attach", "1-9", "kiosk"), "no_device", "no device '1-9'"),
        (("attach", "1-1", "nobody"), "guest_stopped", "`xl list`"),
        (("attach", "1-2", "kiosk"), "protected", "the policy's `protect`"),
        (("attach", "1-3", "desk"), "unfit_isochronous", "isochronous"),
        (("detach", "1-9"), "no_device", "no device '1-9'"),
        (("release", "x"), "no_device", "`xenplug devices`"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
@told
async def test_refusals(order, kind, reason):
    rig = await Rig(MICE + "protect: [{kind: storage}]\n", KIOSK, DESK).start()
    rig.plug("1-1")
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    rig.plug("1-3", "046d:0825", kind="video", speed="high")
    await settled(rig)
    verb, *words = order
    with pytest.raises(Refused) as refused:
        await getattr(rig.agent.service, verb)(*words)
    assert reason in refused.value.parameters["reason"]
    assert refused.value.parameters["cause"] == kind
    await rig.kill()


@told
async def test_an_order_for_what_is_pulled_meanwhile_says_so():
    rig = await Rig("version: 1", KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    order = asyncio.create_task(rig.agent.service.attach("1-1", "kiosk"))
    await asyncio.sleep(0.1)
    rig.pull("1-1")
    rig.plug("1-1", "046d:c017")
    with pytest.raises(Refused, match="no_device"):
        await order
    await settled(rig)
    assert rig.stands("1-1") == ("host", "default", None)
    await rig.kill()


# what fails


@pytest.mark.parametrize("how", ["refused", "killed", "silent"])
@told
async def test_a_few_failures_are_overcome(how):
    rig = await Rig(MICE, KIOSK).start()
    rig.world.commands.failures.plan("usbdev-attach", 2, how)
    rig.plug("1-1")
    await rig.until(lambda: rig.stands("1-1") == HERE)
    assert len(rig.calls("usbdev-attach")) == 3
    await rig.kill()


@told
async def test_giving_up_is_visible_and_ends_by_release():
    rig = await Rig(MICE, KIOSK).start()
    rig.world.commands.failures.plan("usbdev-attach", 8, "refused")
    rig.plug("1-1")
    await rig.until(lambda: rig.stands("1-1")[:2] == ("failing", "refused"))
    assert rig.at("1-1")["next_try"] and rig.at("1-1")["attempts"] == 1
    await settled(rig, 300)
    assert (rig.stands("1-1"), rig.at("1-1")["attempts"]) == (("given_up", "refused", None), 8)
    starts = [c.start for c in rig.calls("usbdev-attach")]
    assert [round(b - a - 0.3) for a, b in pairwise(starts)] == [1, 2, 4, 8, 16, 32, 60]
    await settled(rig, 300)
    assert len(rig.calls("usbdev-attach")) == 8
    await rig.agent.service.release("1-1")
    await settled(rig)
    assert rig.stands("1-1") == HERE
    await rig.kill()


@told
async def test_old_failures_do_not_count_for_ever():
    """Failures in a row: an attachment that held ends the row."""
    rig = await Rig(MICE, KIOSK).start()
    rig.world.commands.failures.plan("usbdev-attach", 5, "refused")
    rig.plug("1-1")
    await settled(rig, 200)
    assert rig.stands("1-1") == HERE
    assert rig.agent.reconciler.ledger.troubles == {}
    await rig.kill()


# slow tools


@told
async def test_a_hanging_xl_delays_nobody_else():
    rig = await Rig(BOTH, KIOSK, WIN).start()
    await asyncio.sleep(1)
    rig.world.commands.failures.plan("usbdev-attach", 1, "hang")
    rig.plug("1-1")
    await asyncio.sleep(0.2)
    rig.plug("1-2", "0781:5567", kind="storage", speed="high")
    assert await rig.until(lambda: rig.sees("win") == {"1-2"}) < 2
    rig.pull("1-2")
    await asyncio.sleep(0.1)
    assert rig.world.stale_ports() == []
    await rig.until(lambda: rig.stands("1-1") == HERE, 70)
    await rig.kill()


@told
async def test_a_hanging_list_delays_nobody():
    rig = await Rig(MICE, KIOSK).start()
    rig.world.commands.failures.plan("list", 99, "hang")
    await asyncio.sleep(61)
    rig.plug("1-1")
    assert await rig.until(lambda: rig.stands("1-1") == HERE) < 2
    await asyncio.sleep(200)
    assert len(rig.calls("list")) < 8, "they do not pile up"
    await rig.kill()
    rig.pull("1-1")
    await rig.start()
    assert await rig.until(lambda: rig.world.stale_ports() == [], 5) < 4
    await rig.kill()


def meetings(calls: list[Call]) -> list[tuple[Call, Call]]:
    """Calls that ran at the same time."""
    return [
        (a, b)
        for i, a in enumerate(calls)
        for b in calls[i + 1 :]
        if a.start < (b.end or a.start) and b.start < (a.end or b.start + 1)
    ]


@told
async def test_one_call_at_a_time_for_a_guest_and_guests_side_by_side():
    rig = await Rig(BOTH, KIOSK, WIN).start()
    await asyncio.sleep(1)
    for n in range(1, 5):
        rig.plug(f"1-{n}", f"046d:c00{n}")
        rig.plug(f"1-{n + 4}", f"0781:000{n}", kind="storage", speed="high")
    await asyncio.sleep(1.2)
    rig.pull("1-1")
    rig.pull("1-5")
    rig.world.kernel.reenumerate("1-6")
    await settled(rig)
    await rig.reload(MICE.replace("kiosk", "win"))
    await settled(rig)
    calls = [c for c in rig.world.commands.calls if c.command != "list"]
    assert len(calls) > 14
    met = meetings(calls)
    assert [pair for pair in met if pair[0].argv[2] == pair[1].argv[2]] == []
    assert met, "different guests do not wait for each other"
    assert rig.sees("win") == {"1-2", "1-3", "1-4"}
    await rig.kill()


# telling


@told
async def test_the_journal_has_one_line_for_each_change():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig, 200)
    rig.pull("1-1")
    await settled(rig)
    assert [change.view()["state"] for change in rig.journal.changes] == ["attaching", "attached", "unplugged"]
    await rig.kill()


@told
async def test_since_is_when_it_began():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    before = rig.at("1-1")["since"]
    await settled(rig, 100)
    assert rig.at("1-1")["since"] == before
    await rig.agent.service.detach("1-1")
    assert rig.at("1-1")["since"] > before
    await rig.kill()


@told
async def test_looking_costs_nothing_when_nothing_happens():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    before = rig.agent.reconciler.round
    await asyncio.sleep(600)
    assert rig.agent.reconciler.round - before < 45
    await rig.kill()


@told
async def test_orders_go_through_the_ledger_and_are_kept():
    rig = await Rig(MICE, KIOSK).start()
    rig.plug("1-1")
    await settled(rig)
    await rig.agent.service.detach("1-1")
    assert rig.keeper.load().overrides == {"1-1@2": Override("detach")}
    await rig.kill()


def test_the_guests_of_these_stories_are_what_they_seem():
    assert KIOSK.controllers == (QUSB,) and WIN.type is GuestType.HVM
