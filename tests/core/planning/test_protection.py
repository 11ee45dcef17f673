"""Protection before any plan: dom0's last keyboard stays."""

from __future__ import annotations

import pytest
from tests.core.make import (
    FREE,
    HOLDS,
    NOW,
    USED,
    absorbed,
    device,
    entry,
    guest_port,
    planned,
    policy,
    snapshot,
    verdict,
)

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.model import Interface, Use
from xenplug.core.planning.steps import Cause, State

KEYS = "rules: [{match: {kind: keyboard}, attach: kiosk}]\nauto_protect: [keyboard]"


def keyboard(port, number=5, kinds=("keyboard",), used=True):
    uses = frozenset({Use.KEYBOARD}) if used else frozenset()
    return device(port, number, interfaces=(Interface(3, 1, 1),), kinds=frozenset(kinds), in_use=uses)


@pytest.mark.parametrize(
    "other, expected",
    [
        (None, Cause.LAST_KEYBOARD),
        (keyboard("1-2"), None),
        (keyboard("1-2", kinds=("keyboard", "mouse")), Cause.LAST_KEYBOARD),
        (keyboard("1-2", used=False), Cause.LAST_KEYBOARD),
    ],
    ids=["alone", "another one", "a mouse with keys", "one that is not dom0's"],
)
def test_the_last_keyboard(other, expected):
    seen = snapshot(keyboard("1-1"), FREE, *([other] if other else []))
    found = verdict(planned(seen, policy(KEYS)))
    assert found.cause == (expected or Cause.MOVING)
    assert verdict(planned(seen, policy(KEYS.replace("[keyboard]", "[]")))).cause is Cause.MOVING


def test_a_keyboard_with_a_guest_is_not_one_that_remains():
    held = snapshot(keyboard("1-1"), keyboard("1-2"), HOLDS, claims={"1-1": USED})
    plan = planned(held, policy(KEYS), Ledger(entries={guest_port(): entry(keyboard("1-1"))}, at=NOW))
    assert (verdict(plan, "1-1").state, verdict(plan, "1-2").cause) == (State.ATTACHED, Cause.LAST_KEYBOARD)
    assert plan.steps == ()


def test_a_keyboard_is_protected_no_longer_than_it_is_the_last():
    was = absorbed(snapshot(keyboard("1-1"), FREE), policy(KEYS))
    plan = planned(snapshot(keyboard("1-1"), keyboard("1-2"), FREE), policy(KEYS), was)
    assert {v.cause for v in plan.verdicts} == {Cause.MOVING}
