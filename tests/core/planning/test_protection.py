"""Protection before any plan: dom0's last keyboard stays."""

from __future__ import annotations

from dataclasses import replace

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

from xenplug.core.ledger.ledger import Ledger, with_device
from xenplug.core.matching.match import Matcher
from xenplug.core.model import Interface, Use
from xenplug.core.planning.protection import protected_if_controller_leaves, protection
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


HOSTILE = "match: {port: 1-2}"


@pytest.mark.parametrize(
    "text, lasts",
    [
        (KEYS, True),
        (f"rules: [{{{HOSTILE}, action: block}}]\nauto_protect: [keyboard]", False),
        (f"rules: [{{{HOSTILE}, attach: kiosk, idle: block}}]\nauto_protect: [keyboard]", False),
        (f"default: block\nrules: [{{{HOSTILE}, attach: kiosk}}]\nauto_protect: [keyboard]", False),
        ("default: block\nrules: [{match: {port: 1-9}, action: host}]\nauto_protect: [keyboard]", False),
        (f"default: block\nrules: [{{{HOSTILE}, action: host}}]\nauto_protect: [keyboard]", True),
        (
            f"protect: [{{port: 1-2}}]\nrules: [{{{HOSTILE}, action: block}}]\nauto_protect: [keyboard]",
            True,
        ),
    ],
    ids=[
        "host",
        "blocked",
        "idle: block",
        "attach, default: block",
        "default: block",
        "host, default: block",
        "protect",
    ],
)
def test_only_a_keyboard_that_dom0_has_by_policy_is_its_last_or_remains(text, lasts):
    both = {port: keyboard(port) for port in ("1-1", "1-2")}
    alone, matcher = {"1-2": both["1-2"]}, Matcher(policy(text))
    assert (protection(matcher, both["1-2"], alone, Ledger()) is not None) is lasts
    # The other one is dom0's by rule in any case.
    mine = Matcher(policy(text.replace("rules: [", "rules: [{match: {port: 1-1}, action: host}, ")))
    assert (protection(mine, both["1-1"], both, Ledger()) is None) is lasts


def test_a_keyboard_that_follows_one_for_the_guest_alone_is_not_dom0s():
    text = (
        "rules: [{name: kb, match: {device: 1:2}, attach: kiosk, idle: block, follow: 10s}]\nauto_protect: [keyboard]"
    )
    here = keyboard("1-1")
    assert protection(Matcher(policy(text)), here, {"1-1": here}, Ledger()) is Cause.LAST_KEYBOARD
    assert protection(Matcher(policy(text)), here, {"1-1": here}, Ledger(followed={here.key: "kb"})) is None


@pytest.mark.parametrize("which", [{"hub": True}, {"partly_hub": True}], ids=["hub", "partly hub"])
def test_what_dom0_uses_keeps_its_controller_though_it_says_it_is_a_hub(which):
    rules = Matcher(policy("rules: [{match: {kind: mouse}, attach: kiosk, via: pci}]"))
    used = device("1-2", interfaces=(Interface(9, 0, 0), Interface(8, 6, 80)), in_use=frozenset({Use.STORAGE}), **which)
    idle = replace(used, in_use=frozenset())
    assert protected_if_controller_leaves(rules, {"1-2": used}, Ledger()) == {"1-2": Cause.IN_USE}
    assert protected_if_controller_leaves(rules, {"1-2": idle}, Ledger()) == {}
    before = with_device(Ledger(), used.key, in_use=frozenset({Use.STORAGE}))
    assert protected_if_controller_leaves(rules, {"1-2": idle}, before) == {"1-2": Cause.IN_USE}
