"""The plan as a truth table: who wins, what comes first, what is waited for, when it is given up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core.make import (
    NOW,
    absorbed,
    controller,
    device,
    entry,
    guest,
    planned,
    policy,
    snapshot,
    spot,
    verdict,
)

from xenplug.core.ledger import INTERRUPTED, Ledger, Override, Trouble, controller_subject, detach_subject, subject
from xenplug.core.model import Claim, Device, GuestState, GuestType, Speed, Use
from xenplug.core.plan import LOOK_AGAIN, Times, natural, steps_by_guest
from xenplug.core.steps import AddController, Attach, Authorize, Cause, ClearPort, Detach, State

MOUSE = device()
TAKEN, USED = Claim(taken=True), Claim(taken=True, used=True)
TO_KIOSK = policy("rules: [{match: {kind: mouse}, attach: kiosk}]")
TO_HOST = policy("rules: [{match: {kind: mouse}, action: host}]")
NOBODY = policy("rules: []")
FREE = guest("kiosk", 1, controller())
HOLDS = guest("kiosk", 1, controller(p1="1-1"))
AT_KIOSK = Ledger(entries={spot(): entry(MOUSE)}, born={1: 0.0}, at=NOW)
FOREIGN = Ledger(entries={spot(): entry(MOUSE, ours=False)}, at=NOW)


def with_(ledger: Ledger, **more: Any) -> Ledger:
    return replace(ledger, **more)


# precedence: protected > by hand > foreign > first matching rule > default

PROTECT = "protect: [{kind: mouse}]\n"
RULE = "rules: [{name: r, match: {kind: mouse}, attach: kiosk}]\n"
BLOCK = "rules: [{name: r, match: {kind: mouse}, action: block}]\n"
HAND = {"1-1@5": Override("attach", "kiosk")}
HAND_OFF = {"1-1@5": Override("detach")}


@pytest.mark.parametrize(
    "text, overrides, ledger, expected, steps",
    [
        (PROTECT + RULE, HAND, AT_KIOSK, (State.PROTECTED, Cause.PROTECT), [Detach]),
        (PROTECT + RULE, {}, FOREIGN, (State.PROTECTED, Cause.PROTECT), []),
        (PROTECT + "default: block", {}, Ledger(at=NOW), (State.PROTECTED, Cause.PROTECT), []),
        (RULE, HAND_OFF, AT_KIOSK, (State.HOST, Cause.BY_HAND), [Detach]),
        (RULE, HAND_OFF, FOREIGN, (State.HOST, Cause.BY_HAND), []),
        (RULE, HAND_OFF, Ledger(at=NOW), (State.HOST, Cause.BY_HAND), []),
        (BLOCK, HAND, Ledger(at=NOW), (State.ATTACHING, Cause.MOVING), [Attach]),
        (BLOCK, HAND, AT_KIOSK, (State.ATTACHED, Cause.TAKEN), []),
        (RULE, {}, FOREIGN, (State.FOREIGN, Cause.FOREIGN), []),
        (BLOCK, {}, FOREIGN, (State.FOREIGN, Cause.FOREIGN), []),
        ("default: block", {}, FOREIGN, (State.FOREIGN, Cause.FOREIGN), []),
        (RULE + "default: block", {}, Ledger(at=NOW), (State.ATTACHING, Cause.MOVING), [Attach]),
        (RULE, {}, AT_KIOSK, (State.ATTACHED, Cause.TAKEN), []),
        (BLOCK, {}, AT_KIOSK, (State.BLOCKED, Cause.RULE), [Detach]),
        (BLOCK, {}, Ledger(at=NOW), (State.BLOCKED, Cause.RULE), [Authorize]),
        ("default: block", {}, Ledger(at=NOW), (State.BLOCKED, Cause.DEFAULT), [Authorize]),
        ("default: host", {}, Ledger(at=NOW), (State.HOST, Cause.DEFAULT), []),
        ("default: host", {}, AT_KIOSK, (State.HOST, Cause.DEFAULT), [Detach]),
        ("rules: [{match: {kind: mouse}, action: host}]\ndefault: block", {}, Ledger(at=NOW), ("host", "rule"), []),
    ],
    ids=[
        "protected over hand and rule",
        "protected, but foreign is left",
        "protected over default",
        "detached by hand over rule",
        "detached by hand leaves foreign",
        "detached by hand, at home",
        "by hand over a blocking rule",
        "by hand, there already",
        "foreign over rule",
        "foreign over block",
        "foreign over default",
        "rule over default",
        "rule, there already",
        "blocked: taken off first",
        "blocked",
        "blocked by default",
        "host by default",
        "host: taken off",
        "host by rule",
    ],
)
def test_precedence(text, overrides, ledger, expected, steps):
    seen = snapshot(MOUSE, HOLDS if ledger.entries else FREE, claims={"1-1": TAKEN} if ledger.entries else {})
    plan = planned(seen, policy(text), with_(ledger, overrides=overrides))
    found = verdict(plan)
    assert (found.state, found.cause) == expected
    assert [type(step) for step in plan.steps] == steps


@pytest.mark.parametrize(
    "here, auto, ledger, expected",
    [
        (device(hub=True), "[storage]", Ledger(at=NOW), Cause.HUB),
        (device(in_use=frozenset({Use.STORAGE})), "[storage]", Ledger(at=NOW), Cause.IN_USE),
        (device(in_use=frozenset({Use.KEYBOARD})), "[storage]", Ledger(at=NOW), None),
        (device(in_use=frozenset({Use.KEYBOARD})), "[keyboard]", Ledger(at=NOW), Cause.IN_USE),
        (device(), "[storage]", Ledger(in_use={"1-1@5": frozenset({Use.STORAGE})}, at=NOW), Cause.IN_USE),
        (device(), "[network]", Ledger(in_use={"1-1@5": frozenset({Use.STORAGE})}, at=NOW), None),
        (device(number=6), "[storage]", Ledger(in_use={"1-1@5": frozenset({Use.STORAGE})}, at=NOW), None),
    ],
    ids=[
        "hub",
        "in use",
        "use not guarded",
        "use guarded",
        "was in use since it was plugged",
        "was in use otherwise",
        "plugged anew",
    ],
)
def test_protection_by_itself(here, auto, ledger, expected):
    plan = planned(snapshot(here, FREE), policy(RULE + f"auto_protect: {auto}"), ledger)
    assert (verdict(plan).state is State.PROTECTED) is (expected is not None)
    assert expected is None or (verdict(plan).cause, plan.steps) == (expected, ())


# stale ports

OTHER = device(number=6)


@pytest.mark.parametrize("rules", [TO_KIOSK, TO_HOST, None], ids=["wanted", "not wanted", "no policy"])
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "foreign"])
@pytest.mark.parametrize("kind", ["qusb", "devicemodel"])
def test_a_stale_port_is_cleared_first_whoever_filled_it(kind, ours, rules):
    held = guest("kiosk", 1, controller(0, kind, 2 if kind == "qusb" else 3, p2="1-9"))
    gone = entry(device("1-9", 7), ours=ours)
    plan = planned(snapshot(MOUSE, held), rules, Ledger(entries={spot(1, 2): gone}, at=NOW))
    clear = ClearPort("kiosk", spot(1, 2), held.controllers[0].type, gone.busid, 1, 7)
    assert plan.steps[0] == clear
    assert [type(s) for s in plan.steps[1:]] == ([Attach] if rules is TO_KIOSK else [])


@pytest.mark.parametrize("rules", [TO_KIOSK, None], ids=["wanted", "no policy"])
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "foreign"])
def test_another_device_number_in_the_same_place_is_stale(ours, rules):
    ledger = Ledger(entries={spot(): entry(MOUSE, ours=ours)}, at=NOW)
    plan = planned(snapshot(OTHER, HOLDS), rules, ledger)
    assert plan.steps[0] == ClearPort("kiosk", spot(), HOLDS.controllers[0].type, MOUSE.port, 1, 5)
    assert verdict(plan).guest is None


def test_what_was_attached_while_we_did_not_look_is_stale_by_its_absence():
    plan = planned(snapshot(guest("kiosk", 1, controller(p1="junk", p2="1-9"))), NOBODY)
    assert [(type(s), getattr(s, "busid", None)) for s in plan.steps] == [(ClearPort, "junk"), (ClearPort, "1-9")]


def test_one_device_on_two_ports_keeps_the_first():
    twice = guest("kiosk", 1, controller(p1="1-1", p3="1-1"))
    plan = planned(snapshot(MOUSE, twice), TO_KIOSK, AT_KIOSK)
    assert [s.spot for s in plan.steps if isinstance(s, ClearPort)] == [spot(1, 3)]


# no policy


@pytest.mark.parametrize(
    "seen, ledger, expected_guest",
    [
        (snapshot(MOUSE, FREE), Ledger(at=NOW), None),
        (snapshot(MOUSE, HOLDS), AT_KIOSK, "kiosk"),
        (snapshot(device(authorized=False), FREE), Ledger(at=NOW), None),
        (snapshot(device(hub=True), FREE), Ledger(at=NOW), None),
    ],
    ids=["plugged", "attached", "unauthorised", "hub"],
)
def test_without_a_policy_nothing_is_done(seen, ledger, expected_guest):
    plan = planned(seen, None, ledger)
    found = verdict(plan)
    assert (found.state, found.cause, found.guest, plan.steps) == ("pending", "no_policy", expected_guest, ())


# what is waited for


def starting(name: str = "kiosk", domid: int = 1) -> Any:
    return guest(name, domid, state=GuestState.STARTING)


STREAM = device(kinds=frozenset({"mouse", "video"}), isochronous=True, speed=Speed.HIGH)
FULL_GUEST = guest("kiosk", 1, controller(ports=1, p1="1-8"))
SPENT = Ledger(made={1: 1}, entries={spot(): entry(device("1-8", 8), ours=False)}, at=NOW)
OLD, YOUNG = Ledger(born={1: NOW - 121}, at=NOW), Ledger(born={1: NOW - 100}, at=NOW)
NEIGHBOUR = device("1-8", 8, kinds=frozenset())


@pytest.mark.parametrize(
    "things, ledger, expected, wake",
    [
        ([MOUSE], Ledger(at=NOW), ("pending", Cause.GUEST_STOPPED), None),
        ([MOUSE, starting()], Ledger(at=NOW), ("pending", Cause.GUEST_STARTING), LOOK_AGAIN),
        ([MOUSE, starting()], Ledger(born={1: 5.0}, at=NOW), ("pending", Cause.GUEST_STOPPED), None),
        ([MOUSE, replace(FREE, state=GuestState.STOPPING)], Ledger(at=NOW), ("pending", Cause.GUEST_STOPPED), None),
        ([MOUSE, replace(FREE, state=GuestState.PAUSED)], Ledger(at=NOW), ("pending", Cause.GUEST_PAUSED), None),
        ([replace(MOUSE, configured=False), FREE], Ledger(at=NOW), ("pending", Cause.CONFIGURING), None),
        ([MOUSE, FREE], Ledger(arrived={"1-1@5": NOW - 0.1}, at=NOW), ("pending", Cause.SETTLING), 0.2),
        ([MOUSE, FREE], Ledger(arrived={"1-1@5": NOW - 0.3}, at=NOW), ("attaching", Cause.MOVING), None),
        ([MOUSE, NEIGHBOUR, FULL_GUEST], SPENT, ("pending", Cause.NO_FREE_PORT), None),
        ([STREAM, FREE], with_(OLD, made={1: 1}), ("given_up", Cause.UNFIT_ISOCHRONOUS), None),
        ([replace(MOUSE, speed=Speed.SUPER), guest()], OLD, ("given_up", Cause.UNFIT_SPEED), None),
        ([MOUSE, guest(device_model=None)], OLD, ("given_up", Cause.NO_DEVICE_MODEL), None),
        ([MOUSE, guest()], with_(OLD, made={1: 1}), ("given_up", Cause.NO_CONTROLLER), None),
        ([MOUSE, guest("kiosk", 1, controller(connected=False))], YOUNG, ("pending", Cause.GUEST_STARTING), 20),
        ([MOUSE, guest("kiosk", 1, controller(connected=False))], OLD, ("given_up", Cause.NO_FRONTEND), None),
        (
            [MOUSE, guest("kiosk", 1, controller(connected=False))],
            with_(OLD, built={1: NOW - 20}),
            ("pending", Cause.GUEST_STARTING),
            100,
        ),
        ([MOUSE, guest()], OLD, ("attaching", Cause.MOVING), None),
    ],
    ids=[
        "guest stopped",
        "guest starting",
        "starting, but it has run: it is going",
        "guest stopping",
        "guest paused",
        "not configured",
        "settling",
        "settled",
        "no free port",
        "stream on qusb",
        "SuperSpeed on qusb",
        "no device model",
        "no controller left to make",
        "frontend not there yet",
        "no frontend after 120 s",
        "a new controller has its own 120 s",
        "a controller is made",
    ],
)
def test_waits_and_refusals(things, ledger, expected, wake):
    plan = planned(snapshot(*things), TO_KIOSK, ledger)
    found = verdict(plan)
    assert (found.state, found.cause) == expected
    assert plan.wake == (None if wake is None else pytest.approx(NOW + wake))
    assert found.target == "kiosk" or found.cause is Cause.CONFIGURING
    if found.state is not State.ATTACHING:
        assert plan.steps == ()


def test_a_controller_is_made_once_and_then_named_in_full():
    hvm = guest("kiosk", 3, type=GuestType.HVM)
    two = [MOUSE, device("1-2", 6)]
    plan = planned(snapshot(*two, hvm), TO_KIOSK)
    assert [type(s) for s in plan.steps] == [AddController]
    plan = planned(snapshot(*two, replace(hvm, controllers=(controller(0, "devicemodel", 3),))), TO_KIOSK)
    assert [s.spot for s in plan.steps if isinstance(s, Attach)] == [spot(3, 1), spot(3, 2)]


@pytest.mark.parametrize(
    "given_up, next_try, expected, wake",
    [
        (False, NOW + 4, ("failing", Cause.REFUSED), 4),
        (False, NOW, ("attaching", Cause.MOVING), None),
        (True, NOW - 5, ("given_up", Cause.REFUSED), None),
    ],
    ids=["not yet", "again", "never again"],
)
@pytest.mark.parametrize("what", ["device", "controller"])
def test_backoff_and_give_up(what, given_up, next_try, expected, wake):
    key = subject(MOUSE, 1) if what == "device" else controller_subject(1)
    trouble = Trouble(3, "refused", "xl said no", next_try, given_up)
    there = FREE if what == "device" else guest()
    plan = planned(snapshot(MOUSE, there), TO_KIOSK, Ledger(troubles={key: trouble}, at=NOW))
    found = verdict(plan)
    assert (found.state, found.cause) == expected
    assert found.attempts == 3
    assert plan.wake == (None if wake is None else NOW + wake)
    assert found.next_try == (next_try if expected[0] == "failing" else None)


def test_a_failing_device_does_not_delay_its_neighbour():
    trouble = Trouble(3, "refused", "xl said no", NOW + 60)
    seen = snapshot(MOUSE, device("1-2", 6), FREE)
    plan = planned(seen, TO_KIOSK, Ledger(troubles={subject(MOUSE, 1): trouble}, at=NOW))
    assert [s.device.port for s in plan.steps if isinstance(s, Attach)] == ["1-2"]


# delivered, lost, healed


@pytest.mark.parametrize(
    "known, claim, healed, state, expected, trouble",
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
def test_delivery(known, claim, healed, state, *, expected, trouble):
    ledger = with_(AT_KIOSK, entries={spot(): entry(MOUSE, **known)})
    ledger = with_(ledger, healed=frozenset({subject(MOUSE, 1)}) if healed else frozenset())
    seen = snapshot(MOUSE, replace(HOLDS, state=GuestState(state)), claims={"1-1": claim})
    plan = planned(seen, TO_KIOSK, ledger)
    found = verdict(plan)
    assert (found.state, found.cause, found.guest) == (*expected, "kiosk")
    assert [s.trouble for s in plan.steps if isinstance(s, Detach)] == ([trouble] if trouble else [])


def test_a_failed_detach_waits_its_turn():
    trouble = Trouble(1, "refused", "", NOW + 3)
    ledger = with_(AT_KIOSK, troubles={detach_subject(MOUSE, 1): trouble})
    plan = planned(snapshot(MOUSE, HOLDS, claims={"1-1": TAKEN}), TO_HOST, ledger)
    assert (plan.steps, plan.wake) == ((), NOW + 3)


@pytest.mark.parametrize("intent, target", [("attach", "kiosk"), ("detach", None)])
def test_an_act_under_way_is_left_alone(intent, target):
    ledger = with_(AT_KIOSK, entries={spot(): entry(MOUSE, intent=intent, delivered=False, waited=99.0)})
    for rules in (TO_KIOSK, TO_HOST, policy("protect: [{kind: mouse}]")):
        plan = planned(snapshot(MOUSE, HOLDS), rules, ledger)
        found = verdict(plan)
        assert (found.state, found.cause, found.target, plan.steps) == ("attaching", "moving", target, ())


def test_an_act_that_was_interrupted_is_judged_by_what_is_there():
    ledger = with_(AT_KIOSK, entries={spot(): entry(MOUSE, intent=INTERRUPTED)})
    assert verdict(planned(snapshot(MOUSE, HOLDS, claims={"1-1": USED}), TO_KIOSK, ledger)).state is State.ATTACHED
    plan = planned(snapshot(MOUSE, FREE), TO_KIOSK, ledger)
    assert [type(s) for s in plan.steps] == [Attach]


# moves and lists


def rule_for(order: str, extra: str = "", kind: str = "mouse") -> Any:
    return policy(f"rules: [{{match: {{kind: {kind}}}, attach: {order}{extra}}}]")


STICK = device(kinds=frozenset({"storage"}), speed=Speed.HIGH)
DESK = guest("desk", 2, controller())


def test_a_move_is_a_detach_first():
    plan = planned(snapshot(MOUSE, HOLDS, DESK, claims={"1-1": USED}), rule_for("desk"), AT_KIOSK)
    found = verdict(plan)
    assert plan.steps == (Detach("kiosk", spot(), MOUSE),)
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
    ledger = Ledger(entries={spot(): entry(here)}, at=NOW)
    seen = snapshot(here, HOLDS, DESK, claims={"1-1": USED})
    plan = planned(seen, rule_for("[desk, kiosk]", extra, kind), ledger)
    assert [type(s) for s in plan.steps] == ([Detach] if moves else [])
    assert verdict(plan).target == ("desk" if moves else "kiosk")


AWAY = Ledger(homes={"1-1@5": "kiosk"}, gone={"kiosk": NOW - 2}, born={1: 0.0, 2: 0.0}, at=NOW)
BACK = guest("kiosk", 9, controller())


@pytest.mark.parametrize(
    "here, order, there, ledger, expected, wake",
    [
        (MOUSE, "[kiosk, desk]", [DESK], AWAY, (Cause.REBOOT_GRACE, "kiosk"), 3),
        (MOUSE, "[kiosk, desk]", [DESK], with_(AWAY, gone={"kiosk": NOW - 6}), (Cause.MOVING, "desk"), None),
        (MOUSE, "[kiosk, desk]", [DESK, starting("kiosk", 9)], AWAY, (Cause.GUEST_STARTING, "kiosk"), LOOK_AGAIN),
        (
            MOUSE,
            "[kiosk, desk]",
            [DESK, starting("kiosk", 9)],
            with_(AWAY, gone={"kiosk": NOW - 60}),
            (Cause.GUEST_STARTING, "kiosk"),
            LOOK_AGAIN,
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
    """Nothing tells when libxl has finished creating a guest: one must look."""
    seen = snapshot(MOUSE, HOLDS, starting("desk", 2), claims={"1-1": USED})
    assert planned(seen, rule_for("[desk, kiosk]"), AT_KIOSK).wake == NOW + LOOK_AGAIN
    stays = planned(seen, rule_for("[desk, kiosk]", ", move: on_stop"), AT_KIOSK)
    assert (stays.wake, stays.steps) == (None, ())


def test_none_of_its_guests_runs_and_another_has_it():
    plan = planned(snapshot(MOUSE, HOLDS, claims={"1-1": USED}), rule_for("desk"), AT_KIOSK)
    found = verdict(plan)
    assert [type(s) for s in plan.steps] == [Detach]
    assert (found.state, found.cause, found.guest) == ("pending", Cause.GUEST_STOPPED, "kiosk")


# authorised or not


@pytest.mark.parametrize(
    "text, authorized, ours, expected",
    [
        ("default: block", True, False, False),
        ("default: block", False, True, None),
        ("default: host", False, False, None),
        ("default: host", False, True, True),
        ("default: block\nprotect: [{kind: mouse}]", False, False, True),
        ("default: block\nrules: [{match: {kind: mouse}, action: host}]", False, False, True),
        (RULE, False, False, True),
    ],
    ids=[
        "blocked",
        "blocked already",
        "someone else's block stays",
        "our block ends",
        "protected is let in",
        "a rule lets it in",
        "a guest's device is let in",
    ],
)
def test_authorisation(text, authorized, ours, expected):
    here = device(authorized=authorized, configured=authorized)
    ledger = Ledger(blocked=frozenset({"1-1@5"} if ours else ()), at=NOW)
    plan = planned(snapshot(here, FREE), policy(text), ledger)
    assert plan.steps == (() if expected is None else (Authorize(here, expected),))


# the whole


def test_steps_go_by_guest_and_ports_by_their_numbers():
    seen = snapshot(device("1-10"), device("1-2"), device("1-9", kinds=frozenset()), FREE)
    plan = planned(seen, policy(RULE + "default: block"))
    assert [v.device.port for v in plan.verdicts] == ["1-2", "1-9", "1-10"]
    queues = steps_by_guest(plan.steps)
    assert {name: len(steps) for name, steps in queues.items()} == {"kiosk": 2, "": 1}
    assert sorted(["1-10", "1-2.3", "2-1", "1-2"], key=natural) == ["1-2", "1-2.3", "1-10", "2-1"]


def test_the_same_scene_gives_the_same_plan_and_a_second_look_changes_nothing():
    seen = snapshot(MOUSE, HOLDS, claims={"1-1": USED})
    known = absorbed(seen, TO_KIOSK, AT_KIOSK)
    assert absorbed(seen, TO_KIOSK, known) == known
    assert planned(seen, TO_KIOSK, known) == planned(seen, TO_KIOSK, known)
    assert planned(seen, TO_KIOSK, known).steps == ()


def test_the_next_look_is_the_earliest():
    ledger = Ledger(arrived={"1-1@5": NOW}, troubles={"1-2@6>1": Trouble(1, "refused", "", NOW + 4)}, at=NOW)
    seen = snapshot(MOUSE, device("1-2", 6), FREE)
    assert planned(seen, TO_KIOSK, ledger, times=Times(settle=2.5)).wake == NOW + 2.5


def test_by_hand_to_a_guest_no_rule_names():
    there = snapshot(MOUSE, FREE, DESK)
    plan = planned(there, TO_KIOSK, Ledger(overrides={"1-1@5": Override("attach", "desk")}, at=NOW))
    assert [(type(s), getattr(s, "guest", "")) for s in plan.steps] == [(Attach, "desk")]
    found: Device = verdict(plan).device
    assert found is MOUSE and verdict(plan).wanted == ("desk",)
