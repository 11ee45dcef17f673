"""What decides over a device, in order: protected, manual override, foreign, rule, followed, default."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.core.make import FREE, MOUSE, NOW, entry, guest, guest_port, planned, policy, snapshot, verdict

from xenplug.core.ledger.ledger import Ledger, Override, place
from xenplug.core.matching.match import Matcher
from xenplug.core.model import Use
from xenplug.core.planning.follow import follow

RULE = "rules: [{name: r, match: {kind: mouse}, attach: kiosk}]\n"
BLOCK = "rules: [{name: r, match: {kind: mouse}, action: block}]\n"
HELD = guest("kiosk", 1, *(replace(c, ports=c.ports | {1: MOUSE.port}) for c in FREE.controllers))
TO_HOST = {place(MOUSE): Override("detach", None, None, 0.0)}
TO_KIOSK = {place(MOUSE): Override("attach", "kiosk", None, 0.0)}
BY_OTHERS = {guest_port(): entry(MOUSE, ours=False)}


@pytest.mark.parametrize(
    "rules, mouse, host, ledger, state",
    [
        ("protect: [{kind: mouse}]\n" + RULE, MOUSE, FREE, Ledger(overrides=TO_KIOSK), "protected"),
        (RULE, replace(MOUSE, in_use=frozenset({Use.STORAGE})), FREE, Ledger(overrides=TO_KIOSK), "protected"),
        ("protect: [{kind: mouse}]\ndefault: block\n" + BLOCK, MOUSE, FREE, Ledger(), "protected"),
        (RULE, MOUSE, FREE, Ledger(overrides=TO_HOST), "host"),
        (BLOCK, MOUSE, FREE, Ledger(overrides=TO_KIOSK), "attaching"),
        (BLOCK, MOUSE, HELD, Ledger(entries=BY_OTHERS), "foreign"),
        (BLOCK, MOUSE, FREE, Ledger(), "blocked"),
        ("default: block\n" + RULE, MOUSE, FREE, Ledger(), "attaching"),
        ("default: block\n", MOUSE, FREE, Ledger(), "blocked"),
        ("default: host\n", MOUSE, FREE, Ledger(), "host"),
    ],
)
def test_precedence(rules, mouse, host, ledger, state):
    plan = planned(snapshot(mouse, host), policy(rules), replace(ledger, first_running={1: 0.0}, at=NOW))
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
    before = Ledger(followed={f"{MOUSE.port}@99": "board"}, at=NOW)
    after, decisions = follow(before, {MOUSE.port: MOUSE}, decided, read)
    assert decisions[MOUSE.port].inherited is inherited
    assert (place(MOUSE) in after.followed) is inherited
