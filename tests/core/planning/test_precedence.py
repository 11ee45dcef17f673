"""What decides over a device, in order: protected, manual override, foreign, rule, followed, default."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.core.make import (
    FREE,
    MOUSE,
    NOW,
    TO_HOST_BY_HAND,
    entry,
    guest,
    guest_port,
    overridden,
    planned,
    policy,
    running_since,
    snapshot,
    to_guest_by_hand,
    verdict,
)

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.records import DomainRecord
from xenplug.core.matching.match import Matcher
from xenplug.core.model import DeviceKey, Speed, Use
from xenplug.core.planning.follow import follow
from xenplug.core.planning.steps import Authorize

RULE = "rules: [{name: r, match: {kind: mouse}, attach: kiosk}]\n"
BLOCK = "rules: [{name: r, match: {kind: mouse}, action: block}]\n"
HELD = guest("kiosk", 1, *(replace(c, ports=c.ports | {1: MOUSE.port}) for c in FREE.controllers))
TO_HOST = overridden(MOUSE, TO_HOST_BY_HAND)
TO_KIOSK = overridden(MOUSE, to_guest_by_hand("kiosk"))
BY_OTHERS = {guest_port(): entry(MOUSE, ours=False)}


@pytest.mark.parametrize(
    "rules, mouse, host, ledger, state",
    [
        ("protect: [{kind: mouse}]\n" + RULE, MOUSE, FREE, TO_KIOSK, "protected"),
        (RULE, replace(MOUSE, in_use=frozenset({Use.STORAGE})), FREE, TO_KIOSK, "protected"),
        ("protect: [{kind: mouse}]\ndefault: block\n" + BLOCK, MOUSE, FREE, Ledger(), "protected"),
        (RULE, MOUSE, FREE, TO_HOST, "host"),
        (BLOCK, MOUSE, FREE, TO_KIOSK, "attaching"),
        (BLOCK, MOUSE, HELD, Ledger(entries=BY_OTHERS), "foreign"),
        (BLOCK, MOUSE, FREE, Ledger(), "blocked"),
        ("default: block\n" + RULE, MOUSE, FREE, Ledger(), "attaching"),
        ("default: block\n", MOUSE, FREE, Ledger(), "blocked"),
        ("default: host\n", MOUSE, FREE, Ledger(), "host"),
    ],
)
def test_precedence(rules, mouse, host, ledger, state):
    plan = planned(snapshot(mouse, host), policy(rules), replace(ledger, domains=running_since(1), at=NOW))
    assert verdict(plan).state == state


@pytest.mark.parametrize(
    "rules, inherited",
    [("", True), ("  - {name: own, match: {kind: mouse}, action: host}\n", False)],
    ids=["over the default", "under a rule"],
)
def test_followed(rules, inherited):
    board = "rules:\n  - {name: board, match: {device: 0483:*}, attach: kiosk, follow: 10s}\n"
    read = policy(board + rules)
    decided = {MOUSE.port: Matcher(read).decide(MOUSE)}
    before = Ledger(followed={DeviceKey(MOUSE.port, 99): "board"}, at=NOW)
    after, decisions = follow(before, {MOUSE.port: MOUSE}, decided, read)
    assert decisions[MOUSE.port].inherited is inherited
    assert (MOUSE.key in after.followed) is inherited


@pytest.mark.parametrize(
    "rules, state",
    [
        (RULE, "protected"),
        ("default: block\n", "blocked"),
        ("default: block\n" + RULE, "blocked"),
        ("default: block\n" + RULE.replace("attach: kiosk", "action: host"), "protected"),
        (RULE.replace("attach: kiosk", "attach: kiosk, idle: block"), "blocked"),
        (BLOCK, "blocked"),
    ],
)
def test_what_may_be_in_a_protected_place_goes_nowhere(rules, state):
    """A SuperSpeed device without a peer: the device itself chooses its speed."""
    plain = "pci-0000:00:14.0-usb-0:1"
    unsure = replace(MOUSE, speed=Speed.SUPER, path=None, plain_path=plain)
    text = f"protect: [{{path: '{plain}'}}]\n" + rules
    for ledger in (Ledger(), TO_KIOSK):
        known = replace(ledger, domains={1: DomainRecord(first_running=0.0)}, at=NOW)
        plan = planned(snapshot(unsure, FREE), policy(text), known)
        assert verdict(plan).state == state
        assert [step.allowed for step in plan.steps] == ([False] if state == "blocked" else [])
        assert all(isinstance(step, Authorize) for step in plan.steps)
    sure = replace(MOUSE, path=plain)
    assert verdict(planned(snapshot(sure, FREE), policy(text))).state == "protected"
