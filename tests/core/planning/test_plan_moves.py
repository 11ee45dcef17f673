"""The plan for attached devices: delivered, lost, healed_once; moves, lists, and guests that end and return."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core.make import (
    AT_KIOSK,
    FREE,
    HOLDS,
    MOUSE,
    NOW,
    TAKEN,
    TO_HOST,
    TO_HOST_BY_HAND,
    TO_KIOSK,
    USED,
    controller,
    device,
    entry,
    guest,
    guest_port,
    overridden,
    planned,
    policy,
    running_since,
    snapshot,
    starting,
    verdict,
)

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.records import DRIVER_START_TIME, SET_UP_WITHIN, DeviceRecord, Intent
from xenplug.core.ledger.troubles import Trouble, TroubleKey
from xenplug.core.model import Claim, Guest, GuestState, Speed
from xenplug.core.planning.plan import STILL_COMING
from xenplug.core.planning.plan_builder import POLL_INTERVAL
from xenplug.core.planning.steps import Attach, Cause, Detach, State
from xenplug.core.policy.rules import Policy


def with_(ledger: Ledger, **more: Any) -> Ledger:
    return replace(ledger, **more)


DESK = guest("desk", 2, controller())


# left alone while the guest sets them up


@pytest.mark.parametrize(
    "known, held_for",
    [
        ({"waited": 0.0}, SET_UP_WITHIN),
        ({"waited": 14.0}, 1.0),
        ({"waited": 15.0}, None),
        ({"waited": 14.0, "was_used": True, "used_for": 1.0}, DRIVER_START_TIME - 1.0),
        ({"waited": 4.0, "was_used": True, "used_for": DRIVER_START_TIME}, None),
    ],
    ids=["just attached", "not configured yet", "left alone", "its drivers start", "set up"],
)
def test_a_device_leaves_its_guest_when_it_is_set_up(known: dict[str, Any], held_for: float | None):
    by_hand = overridden(MOUSE, TO_HOST_BY_HAND)
    ledger = replace(by_hand, entries={guest_port(): entry(MOUSE, **known)}, domains=running_since(1), at=NOW)
    plan = planned(snapshot(MOUSE, HOLDS, claims={"1-1": TAKEN}), TO_KIOSK, ledger)
    found = verdict(plan)
    if held_for is None:
        assert [type(s) for s in plan.steps] == [Detach]
    else:
        assert (plan.steps, plan.wake) == ((), pytest.approx(NOW + held_for, abs=0.001))
        assert (found.state, found.cause, found.guest) == (State.ATTACHED, Cause.BEING_SET_UP, "kiosk")


@pytest.mark.parametrize(
    "holds, rules",
    [
        (guest("kiosk", 1, controller(kind="devicemodel", version=3, p1="1-1")), TO_HOST),
        (HOLDS, policy("protect: [{port: 1-1}]")),
    ],
    ids=["qemu's own controllers do not mind", "protection does not wait"],
)
def test_a_device_leaves_at_once(holds: Guest, rules: Policy):
    fresh = replace(AT_KIOSK, entries={guest_port(): entry(MOUSE, waited=0.0)})
    assert [type(s) for s in planned(snapshot(MOUSE, holds), rules, fresh).steps] == [Detach]


# delivered, lost, healed


@pytest.mark.parametrize(
    "known, claim, healed_once, state, expected, trouble",
    [
        (
            {"delivered": False, "waited": 9.0},
            Claim(),
            False,
            "running",
            (State.ATTACHING, "waiting_to_be_taken"),
            None,
        ),
        (
            {"delivered": False, "waited": 10.1},
            Claim(),
            False,
            "running",
            (State.FAILING, "not_delivered"),
            "not_delivered",
        ),
        (
            {"delivered": False, "waited": 99.0},
            Claim(),
            False,
            "paused",
            (State.ATTACHING, "waiting_to_be_taken"),
            None,
        ),
        ({"delivered": False, "waited": 99.0}, TAKEN, False, "running", (State.ATTACHED, "taken"), None),
        ({}, TAKEN, False, "running", (State.ATTACHED, "taken"), None),
        ({}, USED, False, "running", (State.ATTACHED, "used"), None),
        ({"missing": 0.9}, Claim(), False, "running", (State.ATTACHED, "taken"), None),
        ({"missing": 1.1}, Claim(), False, "running", (State.FAILING, "lost"), "lost"),
        ({"missing": 1.1}, Claim(), False, "paused", (State.ATTACHED, "taken"), None),
        ({"missing": 1.1}, Claim(), True, "running", (State.FAILING, "lost"), "lost"),
        ({"missing": 1.1, "was_used": True}, TAKEN, False, "running", (State.FAILING, "lost"), "lost"),
        ({"missing": 1.1, "was_used": True}, TAKEN, True, "running", (State.ATTACHED, "taken"), None),
    ],
    ids=[
        "not taken yet",
        "not taken in time",
        "not taken, but paused",
        "taken at last",
        "taken",
        "used",
        "let go for a moment",
        "lost",
        "lost, but paused",
        "lost again",
        "used no more",
        "used no more again: the guest's choice",
    ],
)
def test_delivery(known, claim, healed_once, state, *, expected, trouble):
    ledger = with_(AT_KIOSK, entries={guest_port(): entry(MOUSE, **known)})
    ledger = with_(ledger, healed_once=frozenset({TroubleKey.attach(MOUSE.key, 1)}) if healed_once else frozenset())
    seen = snapshot(MOUSE, replace(HOLDS, state=GuestState(state)), claims={"1-1": claim})
    plan = planned(seen, TO_KIOSK, ledger)
    found = verdict(plan)
    assert (found.state, found.cause, found.guest) == (*expected, "kiosk")
    assert [s.trouble for s in plan.steps if isinstance(s, Detach)] == ([trouble] if trouble else [])


def test_a_failed_detach_waits_its_turn():
    trouble = Trouble(1, "refused", "", NOW + 3)
    ledger = with_(AT_KIOSK, troubles={TroubleKey.detach(MOUSE.key, 1): trouble})
    plan = planned(snapshot(MOUSE, HOLDS, claims={"1-1": TAKEN}), TO_HOST, ledger)
    assert (plan.steps, plan.wake) == ((), NOW + 3)


@pytest.mark.parametrize("intent, target", [(Intent.ATTACH, "kiosk"), (Intent.DETACH, None)])
def test_an_act_under_way_is_left_alone(intent, target):
    ledger = with_(AT_KIOSK, entries={guest_port(): entry(MOUSE, intent=intent, delivered=False, waited=99.0)})
    for rules in (TO_KIOSK, TO_HOST, policy("protect: [{kind: mouse}]")):
        plan = planned(snapshot(MOUSE, HOLDS), rules, ledger)
        found = verdict(plan)
        assert (found.state, found.cause, found.target, plan.steps) == ("attaching", "moving", target, ())


def test_an_act_that_was_interrupted_is_judged_by_what_is_there():
    ledger = with_(AT_KIOSK, entries={guest_port(): entry(MOUSE, intent=Intent.INTERRUPTED)})
    assert verdict(planned(snapshot(MOUSE, HOLDS, claims={"1-1": USED}), TO_KIOSK, ledger)).state is State.ATTACHED
    plan = planned(snapshot(MOUSE, FREE), TO_KIOSK, ledger)
    assert [type(s) for s in plan.steps] == [Attach]


# moves and lists


def rule_for(order: str, extra: str = "", kind: str = "mouse") -> Any:
    return policy(f"rules: [{{match: {{kind: {kind}}}, attach: {order}{extra}}}]")


STICK = device(kinds=frozenset({"storage"}), speed=Speed.HIGH)


def test_a_move_is_a_detach_first():
    plan = planned(snapshot(MOUSE, HOLDS, DESK, claims={"1-1": USED}), rule_for("desk"), AT_KIOSK)
    found = verdict(plan)
    assert plan.steps == (Detach("kiosk", guest_port(), MOUSE),)
    assert (found.state, found.cause, found.guest, found.target) == ("attaching", "moving", "kiosk", "desk")
    plan = planned(snapshot(MOUSE, FREE, DESK), rule_for("desk"))
    assert [(type(s), getattr(s, "guest", "")) for s in plan.steps] == [(Attach, "desk")]


@pytest.mark.parametrize(
    "here, extra, moves",
    [
        (MOUSE, "", True),
        (device(kinds=frozenset({"keyboard"})), "", True),
        (device(kinds=frozenset({"gamepad"})), "", True),
        (STICK, "", False),
        (MOUSE, ", move: on_stop", False),
        (STICK, ", move: on_start", True),
    ],
    ids=["mouse", "keyboard", "gamepad", "stick", "mouse told to stay", "stick told to move"],
)
def test_when_an_earlier_guest_of_the_list_runs(here, extra, moves):
    [kind] = here.kinds
    ledger = Ledger(entries={guest_port(): entry(here)}, at=NOW)
    seen = snapshot(here, HOLDS, DESK, claims={"1-1": USED})
    plan = planned(seen, rule_for("[desk, kiosk]", extra, kind), ledger)
    assert [type(s) for s in plan.steps] == ([Detach] if moves else [])
    assert verdict(plan).target == ("desk" if moves else "kiosk")


@pytest.mark.parametrize("order, moves", [("[desk, kiosk]", False), ("desk", True)], ids=["list", "not its any more"])
def test_it_stays_where_it_is_until_its_new_guest_can_take_it(order, moves):
    """A guest that boots has no driver yet: no guest would have the device until then."""
    boots = guest("desk", 2, controller(connected=False))
    plan = planned(snapshot(MOUSE, HOLDS, boots, claims={"1-1": USED}), rule_for(order), AT_KIOSK)
    assert [type(s) for s in plan.steps] == ([Detach] if moves else [])
    assert (verdict(plan).state, verdict(plan).guest) == ("attaching" if moves else "attached", "kiosk")


AWAY = Ledger(
    devices={MOUSE.key: DeviceRecord("kiosk")},
    guest_gone_since={"kiosk": NOW - 2},
    domains=running_since(1, 2),
    at=NOW,
)
BACK = guest("kiosk", 9, controller())


@pytest.mark.parametrize(
    "here, order, there, ledger, expected, wake",
    [
        (MOUSE, "[kiosk, desk]", [DESK], AWAY, (Cause.REBOOT_GRACE, "kiosk"), 3),
        (
            MOUSE,
            "[kiosk, desk]",
            [DESK],
            with_(AWAY, guest_gone_since={"kiosk": NOW - 6}),
            (Cause.MOVING, "desk"),
            None,
        ),
        (MOUSE, "[kiosk, desk]", [DESK, starting("kiosk", 9)], AWAY, (Cause.GUEST_STARTING, "kiosk"), POLL_INTERVAL),
        (
            MOUSE,
            "[kiosk, desk]",
            [DESK, starting("kiosk", 9)],
            with_(AWAY, guest_gone_since={"kiosk": NOW - 60}),
            (Cause.GUEST_STARTING, "kiosk"),
            POLL_INTERVAL,
        ),
        (
            MOUSE,
            "[kiosk, desk]",
            [DESK, replace(FREE, state=GuestState.STOPPING)],
            AWAY,
            (Cause.REBOOT_GRACE, "kiosk"),
            3,
        ),
        (MOUSE, "[kiosk, desk]", [DESK, starting("kiosk", 1)], AWAY, (Cause.REBOOT_GRACE, "kiosk"), 3),
        (MOUSE, "[desk, kiosk]", [DESK, BACK], AWAY, (Cause.MOVING, "desk"), None),
        (STICK, "[desk, kiosk]", [DESK, BACK], AWAY, (Cause.MOVING, "kiosk"), None),
        (MOUSE, "[kiosk, desk]", [], AWAY, (Cause.REBOOT_GRACE, "kiosk"), 3),
        (MOUSE, "kiosk", [DESK], AWAY, (Cause.GUEST_STOPPED, "kiosk"), None),
        (MOUSE, "[desk, other]", [DESK], AWAY, (Cause.MOVING, "desk"), None),
    ],
    ids=[
        "waits for its guest",
        "no longer",
        "its guest is on its way",
        "however long that takes",
        "its guest is going down",
        "its guest is nearly gone",
        "back: the first that runs",
        "back: a stick goes home",
        "nobody else runs",
        "no list",
        "its guest is none of the list",
    ],
)
def test_a_guest_that_went_away_is_given_time_to_reboot(here, order, there, ledger, *, expected, wake):
    [kind] = here.kinds
    plan = planned(snapshot(here, *there), rule_for(order, kind=kind), ledger)
    found = verdict(plan)
    assert (found.cause, found.target) == expected
    assert plan.wake == (None if wake is None else NOW + wake)


def test_one_that_starts_is_watched_while_another_has_the_device():
    """No event reports that libxl has finished creating a guest: the agent must poll."""
    seen = snapshot(MOUSE, HOLDS, starting("desk", 2), claims={"1-1": USED})
    assert planned(seen, rule_for("[desk, kiosk]"), AT_KIOSK).wake == NOW + POLL_INTERVAL
    stays = planned(seen, rule_for("[desk, kiosk]", ", move: on_stop"), AT_KIOSK)
    assert (stays.wake, stays.steps) == (NOW + STILL_COMING, ())


def test_none_of_its_guests_runs_and_another_has_it():
    plan = planned(snapshot(MOUSE, HOLDS, claims={"1-1": USED}), rule_for("desk"), AT_KIOSK)
    found = verdict(plan)
    assert [type(s) for s in plan.steps] == [Detach]
    assert (found.state, found.target, found.guest) == ("attaching", None, "kiosk")


def test_a_guest_that_comes_is_looked_for_though_nothing_waits_for_it():
    """No event reports that libxl has finished; a manual `attach` is refused until it has (seen on the bench)."""
    assert planned(snapshot(device(), starting("desk")), TO_HOST).wake == NOW + STILL_COMING
    assert planned(snapshot(device(), guest("desk", 1)), TO_HOST).wake is None
