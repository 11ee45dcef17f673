"""Guest controllers that nothing is on: which are taken away, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.core.make import MOUSE, NOW, controller, device, entry, guest, guest_port, planned, policy, snapshot

from xenplug.core.ledger.ledger import Ledger, with_domain
from xenplug.core.ledger.records import DomainRecord, Intent, Orders
from xenplug.core.ledger.troubles import Trouble, TroubleKey
from xenplug.core.model import GuestState
from xenplug.core.planning.empty_controllers import EMPTY_FOR
from xenplug.core.planning.steps import Cause, RemoveController, Step

REMOVE = policy("guests: {kiosk: {when_empty: remove}}\nrules: [{match: {kind: mouse}, attach: kiosk}]\n")
KEEP = policy("rules: [{match: {kind: mouse}, attach: kiosk}]\n")
MADE = DomainRecord(first_running=0.0, controllers_made=frozenset({0}), empty_since={0: NOW - EMPTY_FOR})
LONG_EMPTY = Ledger(domains={1: MADE}, at=NOW)
REMOVAL = TroubleKey.remove_controller(1, 0)
EMPTY = guest("kiosk", 1, controller())
STICK = device("1-2", 6, kinds=frozenset({"storage"}))


def removals(steps: tuple[Step, ...]) -> list[Step]:
    return [step for step in steps if isinstance(step, RemoveController)]


def test_an_empty_one_goes_where_the_policy_says_so():
    assert removals(planned(snapshot(EMPTY), REMOVE, LONG_EMPTY).steps) == [RemoveController("kiosk", 1, 0)]
    assert removals(planned(snapshot(EMPTY), KEEP, LONG_EMPTY).steps) == []
    assert removals(planned(snapshot(EMPTY), None, LONG_EMPTY).steps) == [], "no policy, no acts"


def test_an_emulated_one_stays():
    """qemu waits for the guest's consent, and no other of its number can be made until it has that."""
    emulated = guest("kiosk", 1, controller(0, "devicemodel", 3))
    assert removals(planned(snapshot(emulated), REMOVE, LONG_EMPTY).steps) == []


def test_not_at_once():
    plan = planned(snapshot(EMPTY), REMOVE, with_domain(LONG_EMPTY, 1, empty_since={}))
    assert (removals(plan.steps), plan.wake) == ([], NOW + EMPTY_FOR)


@pytest.mark.parametrize(
    "ledger",
    [
        with_domain(LONG_EMPTY, 1, controllers_made=frozenset()),
        with_domain(LONG_EMPTY, 1, controllers_made=frozenset({1})),
        replace(LONG_EMPTY, orders=Orders(paused=frozenset({("guest", "kiosk")}))),
        replace(LONG_EMPTY, entries={guest_port(): entry(MOUSE, intent=Intent.ATTACH)}),
        replace(LONG_EMPTY, troubles={REMOVAL: Trouble(1, Cause.REFUSED, "", NOW + 1)}),
        replace(LONG_EMPTY, troubles={REMOVAL: Trouble(8, Cause.REFUSED, "", NOW, given_up=True)}),
    ],
    ids=["not ours", "another", "paused", "an attach under way", "failed a moment ago", "given up"],
)
def test_what_stays(ledger):
    assert removals(planned(snapshot(EMPTY), REMOVE, ledger).steps) == []


def test_what_is_needed_stays():
    assert removals(planned(snapshot(EMPTY, MOUSE), REMOVE, LONG_EMPTY).steps) == []
    assert removals(planned(snapshot(EMPTY, STICK), REMOVE, LONG_EMPTY).steps) != [], (
        "a device that stays with the host"
    )
    assert removals(planned(snapshot(guest("kiosk", 1, controller(p1="1-9"))), REMOVE, LONG_EMPTY).steps) == []
    paused = replace(EMPTY, state=GuestState.PAUSED)
    assert removals(planned(snapshot(paused), REMOVE, LONG_EMPTY).steps) == []
