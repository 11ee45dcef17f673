"""The plan as a truth table: precedence, order of steps, waiting, giving up."""

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
    RULE,
    TAKEN,
    TO_HOST,
    TO_HOST_BY_HAND,
    TO_KIOSK,
    USED,
    absorbed,
    controller,
    device,
    entry,
    guest,
    guest_port,
    overridden,
    planned,
    policy,
    remembered,
    running_since,
    snapshot,
    starting,
    to_guest_by_hand,
    verdict,
)

from xenplug.core.ledger.ledger import Ledger, with_domain
from xenplug.core.ledger.records import DomainRecord, Orders
from xenplug.core.ledger.troubles import Trouble, TroubleKey
from xenplug.core.model import Device, GuestState, GuestType, Speed, Use, natural
from xenplug.core.planning.attach import CONFIGURE_TIME
from xenplug.core.planning.plan import steps_by_guest
from xenplug.core.planning.plan_builder import POLL_INTERVAL, STATES_EVERY
from xenplug.core.planning.plan_input import WaitTimes
from xenplug.core.planning.steps import AddController, Attach, Authorize, Cause, ClearPort, Detach, State

NOBODY = policy("rules: []")
FOREIGN = Ledger(entries={guest_port(): entry(MOUSE, ours=False)}, at=NOW)


def with_(ledger: Ledger, **more: Any) -> Ledger:
    return replace(ledger, **more)


# precedence: protected > manual override > foreign > first matching rule > default

PROTECT = "protect: [{kind: mouse}]\n"
BLOCK = "rules: [{name: r, match: {kind: mouse}, action: block}]\n"
HAND = {MOUSE.key: to_guest_by_hand("kiosk")}
LEAVES = State.ATTACHING, Cause.MOVING
HAND_OFF = {MOUSE.key: TO_HOST_BY_HAND}


UNSET = replace(MOUSE, configured=False)
"""Authorised, and without a configuration."""


@pytest.mark.parametrize(
    "text, overrides, ledger, expected, steps",
    [
        (PROTECT + RULE, HAND, AT_KIOSK, LEAVES, [Detach]),
        (PROTECT + RULE, {}, FOREIGN, (State.PROTECTED, Cause.PROTECT), []),
        (PROTECT + "default: block", {}, Ledger(at=NOW), (State.PROTECTED, Cause.PROTECT), []),
        (RULE, HAND_OFF, AT_KIOSK, LEAVES, [Detach]),
        (RULE, HAND_OFF, FOREIGN, (State.FOREIGN, Cause.FOREIGN), []),
        (RULE, HAND_OFF, Ledger(at=NOW), (State.HOST, Cause.BY_HAND), []),
        (BLOCK, HAND, Ledger(at=NOW), (State.ATTACHING, Cause.MOVING), [Attach]),
        (BLOCK, HAND, AT_KIOSK, (State.ATTACHED, Cause.TAKEN), []),
        (RULE, {}, FOREIGN, (State.FOREIGN, Cause.FOREIGN), []),
        (BLOCK, {}, FOREIGN, (State.FOREIGN, Cause.FOREIGN), []),
        ("default: block", {}, FOREIGN, (State.FOREIGN, Cause.FOREIGN), []),
        (RULE + "default: block", {}, Ledger(at=NOW), (State.ATTACHING, Cause.MOVING), [Attach]),
        (RULE, {}, AT_KIOSK, (State.ATTACHED, Cause.TAKEN), []),
        (BLOCK, {}, AT_KIOSK, LEAVES, [Detach]),
        (BLOCK, {}, Ledger(at=NOW), (State.BLOCKED, Cause.RULE), [Authorize]),
        ("default: block", {}, Ledger(at=NOW), (State.BLOCKED, Cause.DEFAULT), [Authorize]),
        ("default: host", {}, Ledger(at=NOW), (State.HOST, Cause.DEFAULT), []),
        ("default: host", {}, AT_KIOSK, LEAVES, [Detach]),
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
    plan = planned(seen, policy(text), with_(ledger, orders=Orders(overrides)))
    found = verdict(plan)
    assert (found.state, found.cause) == expected
    assert [type(step) for step in plan.steps] == steps


@pytest.mark.parametrize(
    "here, auto, ledger, expected",
    [
        (device(hub=True), "[storage]", Ledger(at=NOW), Cause.HUB),
        (device(in_use=frozenset({Use.STORAGE})), "[storage]", Ledger(at=NOW), Cause.IN_USE),
        (device(in_use=frozenset({Use.NETWORK})), "[storage]", Ledger(at=NOW), None),
        (device(in_use=frozenset({Use.NETWORK})), "[network]", Ledger(at=NOW), Cause.IN_USE),
        (device(), "[storage]", remembered(MOUSE, in_use=frozenset({Use.STORAGE})), Cause.IN_USE),
        (device(), "[network]", remembered(MOUSE, in_use=frozenset({Use.STORAGE})), None),
        (device(number=6), "[storage]", remembered(MOUSE, in_use=frozenset({Use.STORAGE})), None),
    ],
    ids=[
        "hub",
        "in use",
        "use not guarded",
        "use guarded",
        "was in use since it was plugged",
        "was in use otherwise",
        "replugged",
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
    plan = planned(snapshot(MOUSE, held), rules, Ledger(entries={guest_port(1, 2): gone}, at=NOW))
    clear = ClearPort("kiosk", guest_port(1, 2), held.controllers[0].type, gone.busid, 1, 7)
    assert plan.steps[0] == clear
    assert [type(s) for s in plan.steps[1:]] == ([Attach] if rules is TO_KIOSK else [])


@pytest.mark.parametrize("rules", [TO_KIOSK, None], ids=["wanted", "no policy"])
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "foreign"])
def test_another_device_number_in_the_same_place_is_stale(ours, rules):
    ledger = Ledger(entries={guest_port(): entry(MOUSE, ours=ours)}, at=NOW)
    plan = planned(snapshot(OTHER, HOLDS), rules, ledger)
    assert plan.steps[0] == ClearPort("kiosk", guest_port(), HOLDS.controllers[0].type, MOUSE.port, 1, 5)
    assert verdict(plan).guest is None


def test_what_was_attached_while_we_did_not_look_is_stale_by_its_absence():
    plan = planned(snapshot(guest("kiosk", 1, controller(p1="junk", p2="1-9"))), NOBODY)
    assert [(type(s), getattr(s, "busid", None)) for s in plan.steps] == [(ClearPort, "junk"), (ClearPort, "1-9")]


def test_one_device_on_two_ports_keeps_the_first():
    twice = guest("kiosk", 1, controller(p1="1-1", p3="1-1"))
    plan = planned(snapshot(MOUSE, twice), TO_KIOSK, AT_KIOSK)
    assert [s.guest_port for s in plan.steps if isinstance(s, ClearPort)] == [guest_port(1, 3)]


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


# waiting


STREAM = device(kinds=frozenset({"mouse", "video"}), isochronous=True, speed=Speed.HIGH)
FULL_GUEST = guest("kiosk", 1, controller(ports=1, p1="1-8"))
ONE_MADE = frozenset({0})
SPENT = Ledger(
    domains={1: DomainRecord(controllers_made=ONE_MADE)},
    entries={guest_port(): entry(device("1-8", 8), ours=False)},
    at=NOW,
)
OLD, YOUNG = (Ledger(domains=running_since(1, at=NOW - seconds), at=NOW) for seconds in (121, 100))
NEIGHBOUR = device("1-8", 8, kinds=frozenset())


@pytest.mark.parametrize(
    "things, ledger, expected, wake",
    [
        ([MOUSE], Ledger(at=NOW), ("pending", Cause.GUEST_STOPPED), None),
        ([MOUSE, starting()], Ledger(at=NOW), ("pending", Cause.GUEST_STARTING), POLL_INTERVAL),
        ([MOUSE, starting()], Ledger(domains=running_since(1, at=5.0), at=NOW), ("pending", Cause.GUEST_STOPPED), None),
        ([MOUSE, replace(FREE, state=GuestState.STOPPING)], Ledger(at=NOW), ("pending", Cause.GUEST_STOPPED), None),
        (
            [MOUSE, replace(FREE, state=GuestState.PAUSED)],
            Ledger(at=NOW),
            ("pending", Cause.GUEST_PAUSED),
            STATES_EVERY,
        ),
        (
            [MOUSE, replace(FREE, state=GuestState.SUSPENDED)],
            Ledger(at=NOW),
            ("pending", Cause.GUEST_SUSPENDED),
            STATES_EVERY,
        ),
        ([UNSET, FREE], Ledger(at=NOW), ("pending", Cause.CONFIGURING), CONFIGURE_TIME),
        ([MOUSE, FREE], remembered(MOUSE, reenumerated_at=NOW - 0.1), ("pending", Cause.SETTLING), 0.2),
        ([MOUSE, FREE], remembered(MOUSE, reenumerated_at=NOW - 0.3), ("attaching", Cause.MOVING), None),
        ([MOUSE, NEIGHBOUR, FULL_GUEST], SPENT, ("pending", Cause.NO_FREE_PORT), None),
        ([STREAM, FREE], with_domain(OLD, 1, controllers_made=ONE_MADE), ("given_up", Cause.UNFIT_ISOCHRONOUS), None),
        ([replace(MOUSE, speed=Speed.SUPER), guest()], OLD, ("given_up", Cause.UNFIT_SPEED), None),
        ([MOUSE, guest(device_model=None)], OLD, ("given_up", Cause.NO_DEVICE_MODEL), None),
        ([MOUSE, guest()], with_domain(OLD, 1, controllers_made=ONE_MADE), ("given_up", Cause.NO_CONTROLLER), None),
        ([MOUSE, guest("kiosk", 1, controller(connected=False))], YOUNG, ("pending", Cause.GUEST_STARTING), 20),
        ([MOUSE, guest("kiosk", 1, controller(connected=False))], OLD, ("given_up", Cause.NO_FRONTEND), None),
        (
            [MOUSE, guest("kiosk", 1, controller(connected=False))],
            with_domain(OLD, 1, last_made_at=NOW - 20),
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
        "guest suspended",
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
    assert [s.guest_port for s in plan.steps if isinstance(s, Attach)] == [guest_port(3, 1), guest_port(3, 2)]


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
    key = TroubleKey.attach(MOUSE.key, 1) if what == "device" else TroubleKey.add_controller(1)
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
    plan = planned(seen, TO_KIOSK, Ledger(troubles={TroubleKey.attach(MOUSE.key, 1): trouble}, at=NOW))
    assert [s.device.port for s in plan.steps if isinstance(s, Attach)] == ["1-2"]


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
    ledger = remembered(here, blocked=ours)
    plan = planned(snapshot(here, FREE), policy(text), ledger)
    assert plan.steps == (() if expected is None else (Authorize(here, expected),))


@pytest.mark.parametrize("text, allowed", [("default: block", False), (RULE, True)], ids=["block", "let in"])
def test_what_was_just_authorised_is_not_so_again_at_once(text, allowed):
    """The facts follow the write; and a write that failed would fail again."""
    here = device(authorized=not allowed, configured=not allowed)
    before = Ledger(troubles={TroubleKey.authorize(here.key): Trouble(1, "refused", "", NOW + 1)}, at=NOW)
    plan = planned(snapshot(here, FREE), policy(text), before)
    assert (plan.steps, plan.wake) == ((), NOW + 1)
    assert planned(snapshot(here, FREE), policy(text), before, NOW + 1).steps == (Authorize(here, allowed),)


# the whole


def test_steps_go_by_guest_and_ports_by_their_numbers():
    seen = snapshot(device("1-10"), device("1-2"), device("1-9", kinds=frozenset()), FREE)
    plan = planned(seen, policy(RULE + "default: block"))
    assert [v.device.port for v in plan.verdicts] == ["1-2", "1-9", "1-10"]
    queues = steps_by_guest(plan.steps)
    assert {name: len(steps) for name, steps in queues.items()} == {"kiosk": 2, "=1-9": 1}
    assert sorted(["1-10", "1-2.3", "2-1", "1-2"], key=natural) == ["1-2", "1-2.3", "1-10", "2-1"]


def test_the_same_scene_gives_the_same_plan_and_a_second_look_changes_nothing():
    seen = snapshot(MOUSE, HOLDS, claims={"1-1": USED})
    known = absorbed(seen, TO_KIOSK, AT_KIOSK)
    assert absorbed(seen, TO_KIOSK, known) == known
    assert planned(seen, TO_KIOSK, known) == planned(seen, TO_KIOSK, known)
    assert planned(seen, TO_KIOSK, known).steps == ()


def test_the_next_look_is_the_earliest():
    other = device("1-2", 6)
    trouble = {TroubleKey.attach(other.key, 1): Trouble(1, "refused", "", NOW + 4)}
    ledger = with_(remembered(MOUSE, reenumerated_at=NOW), troubles=trouble)
    seen = snapshot(MOUSE, other, FREE)
    assert planned(seen, TO_KIOSK, ledger, times=WaitTimes(settle=2.5)).wake == NOW + 2.5


def test_by_hand_to_a_guest_no_rule_names():
    there = snapshot(MOUSE, FREE, guest("desk", 2, controller()))
    plan = planned(there, TO_KIOSK, overridden(MOUSE, to_guest_by_hand("desk")))
    assert [(type(s), getattr(s, "guest", "")) for s in plan.steps] == [(Attach, "desk")]
    found: Device = verdict(plan).device
    assert found is MOUSE and verdict(plan).wanted == ("desk",)
