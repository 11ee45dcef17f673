"""A change of a verdict makes one line; no change makes none."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from tests.core.make import device, guest_port, policy

from xenplug.core.matching.match import Decision
from xenplug.core.planning.steps import Cause, State, Verdict
from xenplug.core.reporting.changes import Change, changes

[RULE] = policy("rules: [{name: mice, match: {kind: mouse}, attach: kiosk}]").rules
HOME = Verdict(device(), Decision("host"), State.HOST, Cause.DEFAULT)
WAITS = Verdict(
    device(), Decision("attach", RULE), State.PENDING, Cause.GUEST_STOPPED, wanted=("kiosk",), target="kiosk"
)
GOES = replace(WAITS, state=State.ATTACHING, cause=Cause.MOVING)
THERE = replace(GOES, state=State.ATTACHED, cause=Cause.TAKEN, guest="kiosk", guest_port=guest_port())
FAILS = replace(WAITS, state=State.FAILING, cause=Cause.REFUSED, attempts=1, next_try=5.0)


def lines(before: list[Verdict], after: list[Verdict]) -> list[str]:
    return [change.line for change in changes(before, after)]


@pytest.mark.parametrize(
    "before, after",
    [
        (HOME, HOME),
        (WAITS, replace(WAITS, device=device(drivers=()))),
        (GOES, replace(GOES, cause=Cause.WAITING_TO_BE_TAKEN, guest="kiosk")),
        (THERE, replace(THERE, cause=Cause.USED, used=True)),
        (WAITS, GOES),
        (FAILS, GOES),
        (FAILS, replace(FAILS, attempts=2, next_try=7.0)),
        (HOME, replace(HOME, state=State.PENDING, cause=Cause.SETTLING)),
        (HOME, replace(HOME, state=State.PENDING, cause=Cause.CONFIGURING)),
    ],
    ids=[
        "the same",
        "a driver",
        "a step on the way",
        "used",
        "goes",
        "tries again",
        "one more try",
        "settling",
        "configuring",
    ],
)
def test_no_line(before, after):
    assert lines([before], [after]) == []


@pytest.mark.parametrize(
    "before, after",
    [
        (HOME, WAITS),
        (WAITS, THERE),
        (THERE, replace(THERE, guest="desk")),
        (WAITS, replace(WAITS, cause=Cause.GUEST_STARTING)),
        (FAILS, replace(FAILS, state=State.GIVEN_UP)),
        (FAILS, replace(FAILS, cause=Cause.LOST)),
        (replace(WAITS, cause=Cause.SETTLING), WAITS),
    ],
    ids=[
        "waits",
        "there",
        "elsewhere",
        "other cause",
        "given up",
        "fails otherwise",
        "settled",
    ],
)
def test_one_line(before, after):
    assert len(lines([before], [after])) == 1


def test_the_lines_of_a_mouse_from_plug_to_pull():
    story = [[], [HOME], [GOES], [replace(GOES, guest="kiosk")], [THERE], [replace(THERE, used=True)], []]
    reported = [line for before, after in pairwise(story) for line in lines(before, after)]
    assert reported == [
        "1-1 046d:c016 (mouse): stays with the host: no rule matches; `xenplug explain` shows why",
        "1-1 046d:c016 (mouse): attached to kiosk, controller 0 port 1 [rule 'mice' (policy.yaml:2)]",
        "1-1 046d:c016 (mouse): unplugged",
    ]


def test_a_replug_makes_two_changes():
    again = replace(THERE, device=device(number=6))
    assert [change.view()["state"] for change in changes([THERE], [again])] == ["unplugged", "attached"]


def test_what_the_history_keeps():
    [change] = changes([], [THERE])
    assert change.view() == {
        "port": "1-1",
        "address": "1.5",
        "path": "pci-0000:00:14.0-usb-0:1",
        "device": "046d:c016",
        "serial": None,
        "state": "attached",
        "cause": "taken",
        "guest": "kiosk",
        "rule": "mice",
        "line": change.line,
    }
    [gone] = changes([THERE], [])
    assert gone.view() == change.view() | {
        "state": "unplugged",
        "cause": "unplugged",
        "guest": None,
        "line": "1-1 046d:c016 (mouse): unplugged",
    }
    assert changes([HOME], [])[0].view()["rule"] is None


def test_a_change_of_nothing_is_empty():
    nothing = Change(None, None)
    assert (nothing.line, nothing.view()) == ("", {})


def test_the_passing_causes():
    silent = {cause for cause in Cause if not lines([HOME], [replace(HOME, state=State.PENDING, cause=cause)])}
    assert silent == {
        Cause.SETTLING,
        Cause.CONFIGURING,
        Cause.PORT_EMPTIED,
        Cause.MOVING,
        Cause.WAITING_TO_BE_TAKEN,
    }
