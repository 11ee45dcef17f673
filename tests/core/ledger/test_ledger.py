"""What is remembered: taken up, watched, concluded, forgotten, and kept over a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core.make import NOW, absorbed, controller, device, entry, guest, policy, snapshot, spot

from xenplug.core.ledger.update import DEATH_THROES, STEADY
from xenplug.core.ledger.ledger import (
    INTERRUPTED,
    Backoff,
    Entry,
    Ledger,
    Override,
    Trouble,
    begin,
    clear_troubles,
    controller_subject,
    detach_subject,
    fail,
    forget,
    lost,
    settle,
    subject,
)
from xenplug.core.model import Claim, GuestState, Use

MOUSE = device()
TO_KIOSK = policy("rules: [{match: {kind: mouse}, attach: [kiosk, desk]}]")
HOLDS = guest("kiosk", 1, controller(p1="1-1"))
FREE = guest("kiosk", 1, controller())
USED = {"1-1": Claim(taken=True, used=True)}
TAKEN = {"1-1": Claim(taken=True)}
KNOWN = Ledger(entries={spot(): entry(MOUSE)}, born={1: 0.0}, at=NOW)


def look(before: Ledger, *things: Any, after: float = 1.0, claims: Any = None, grace: float = 5.0) -> Ledger:
    return absorbed(snapshot(*things, claims=claims), TO_KIOSK, before, before.at + after, grace)


# entries


@pytest.mark.parametrize(
    "name, busid, overrides, ours",
    [
        ("kiosk", "1-1", {}, True),
        ("desk", "1-1", {}, True),
        ("other", "1-1", {}, False),
        ("kiosk", "1-7", {}, False),
        ("other", "1-1", {"1-1@5": Override("attach", "other")}, True),
        ("kiosk", "1-1", {"1-1@5": Override("attach", "other")}, False),
        ("kiosk", "1-1", {"1-1@5": Override("detach")}, False),
    ],
    ids=[
        "just what the policy wants",
        "another of its list",
        "another guest",
        "no such device",
        "as ordered by hand",
        "not as ordered by hand",
        "detached by hand",
    ],
)
def test_adoption(name, busid, overrides, ours):
    holds = guest(name, 1, controller(p1=busid))
    [(where, found)] = look(Ledger(overrides=overrides, at=NOW), MOUSE, holds).entries.items()
    assert where == spot()
    assert (found.guest, found.busid, found.ours, found.delivered, found.intent) == (name, busid, ours, False, None)
    assert (found.bus, found.number, found.tag) == ((1, 5, MOUSE.tag) if busid == "1-1" else (0, 0, ""))


def test_the_device_number_of_the_attachment_is_kept():
    """So that another device in the same place is known for what it is."""
    found = look(KNOWN, replace(MOUSE, number=6), HOLDS)
    assert found.entries[spot()].number == 5


@pytest.mark.parametrize(
    "things, kept",
    [
        ((MOUSE, HOLDS), True),
        ((HOLDS,), True),
        ((MOUSE, FREE), False),
        ((MOUSE,), False),
        ((MOUSE, guest("kiosk", 2, controller())), False),
    ],
    ids=["as it was", "device gone", "port free", "guest gone", "guest rebooted"],
)
def test_entries_are_those_of_occupied_ports(things, kept):
    assert (spot() in look(KNOWN, *things).entries) is kept


def test_another_busid_on_the_port_is_another_entry():
    holds = guest("kiosk", 1, controller(p1="1-2"))
    found = look(KNOWN, MOUSE, device("1-2", 9), holds).entries[spot()]
    assert (found.busid, found.number, found.delivered) == ("1-2", 9, False)


@pytest.mark.parametrize("intent", ["attach", "detach"])
def test_while_an_act_is_under_way_its_entry_is_not_touched(intent):
    known = entry(MOUSE, intent=intent, delivered=False)
    before = replace(KNOWN, entries={spot(): known})
    assert look(before, MOUSE, HOLDS, claims=USED).entries == {spot(): known}
    assert look(before, MOUSE, FREE).entries == ({spot(): known} if intent == "attach" else {})
    assert look(before, MOUSE).entries == {}, "its domain is gone"


# watching


@pytest.mark.parametrize(
    "state, waited, missing",
    [(GuestState.RUNNING, 4.0, 4.0), (GuestState.PAUSED, 0.0, 0.0), (GuestState.STARTING, 0.0, 0.0)],
)
def test_time_stands_still_while_the_guest_does_not_run(state, waited, missing):
    fresh = replace(KNOWN, entries={spot(): entry(MOUSE, delivered=False, waited=1.0)})
    holds = replace(HOLDS, state=state)
    assert look(fresh, MOUSE, holds, after=4.0).entries[spot()].waited == 1.0 + waited
    gone = replace(KNOWN, entries={spot(): entry(MOUSE, missing=1.0)})
    assert look(gone, MOUSE, holds, after=4.0).entries[spot()].missing == 1.0 + missing


def test_the_look_that_begins_a_count_knows_nothing_of_the_time_before():
    """A minute without a look is no minute of waiting: all may have been well until a moment ago."""
    fresh = replace(KNOWN, entries={spot(): entry(MOUSE, delivered=False)})
    ledger = look(fresh, MOUSE, HOLDS, after=60.0)
    assert 0 < ledger.entries[spot()].waited < 0.01
    assert look(ledger, MOUSE, HOLDS, after=4.0).entries[spot()].waited == pytest.approx(4.0, abs=0.01)
    ledger = look(KNOWN, MOUSE, HOLDS, after=60.0)
    assert 0 < ledger.entries[spot()].missing < 0.01, "enough to be looked at again soon"
    assert look(ledger, MOUSE, HOLDS, after=4.0).entries[spot()].missing == pytest.approx(4.0, abs=0.01)
    assert look(KNOWN, MOUSE, replace(HOLDS, state=GuestState.PAUSED), after=60.0).entries[spot()].missing == 0


def test_delivered_used_missing():
    ledger = replace(KNOWN, entries={spot(): entry(MOUSE, delivered=False)})
    ledger = look(ledger, MOUSE, HOLDS)
    assert (ledger.entries[spot()].delivered, ledger.entries[spot()].missing) == (False, 0.0)
    ledger = look(ledger, MOUSE, HOLDS, claims=TAKEN)
    assert (ledger.entries[spot()].delivered, ledger.entries[spot()].was_used) == (True, False)
    ledger = look(ledger, MOUSE, HOLDS, claims=USED)
    assert ledger.entries[spot()].was_used
    ledger = look(ledger, MOUSE, HOLDS, claims=TAKEN, after=0.9)
    assert not lost(ledger.entries[spot()]), "a reset lets go for a moment"
    assert look(ledger, MOUSE, HOLDS, claims=USED, after=0.9).entries[spot()].missing == 0.0
    assert lost(look(ledger, MOUSE, HOLDS, claims=TAKEN, after=1.1).entries[spot()])


def test_a_clock_that_stands_or_jumps_back_does_no_harm():
    known = replace(KNOWN, entries={spot(): entry(MOUSE, waited=1.0)})
    assert look(known, MOUSE, HOLDS, after=-50.0).entries[spot()].waited == 1.0


# someone else's doing


@pytest.mark.parametrize(
    "known, things, expected",
    [
        ({}, (MOUSE, FREE), True),
        ({}, (MOUSE, replace(FREE, controllers=())), True),
        ({"ours": False}, (MOUSE, FREE), False),
        ({"intent": "detach"}, (MOUSE, FREE), False),
        ({"intent": "attach"}, (MOUSE, FREE), False),
        ({"intent": INTERRUPTED}, (MOUSE, FREE), False),
        ({}, (FREE,), False),
        ({}, (replace(MOUSE, number=6), FREE), False),
        ({}, (MOUSE,), False),
        ({}, (MOUSE, guest("kiosk", 2, controller())), False),
        ({}, (MOUSE, guest("kiosk", 1, controller(p3="1-1"))), False),
        ({}, (MOUSE, FREE, guest("other", 3, controller(p1="1-1"))), False),
    ],
    ids=[
        "detached at the console",
        "controller taken away at the console",
        "was not ours",
        "we detach it",
        "we attach it",
        "we were interrupted",
        "unplugged",
        "plugged anew",
        "guest gone",
        "guest rebooted",
        "moved to another port",
        "moved to another guest",
    ],
)
def test_someone_elses_detach_counts_as_ordered_by_hand(known, things, expected):
    before = replace(KNOWN, entries={spot(): entry(MOUSE, **known)})
    found = look(before, *things).overrides
    assert {p: o.action for p, o in found.items()} == ({"1-1@5": "detach"} if expected else {})


def test_it_lasts_until_unplug():
    ledger = look(KNOWN, MOUSE, FREE)
    for after in (1.0, 1000.0):
        ledger = look(ledger, MOUSE, FREE, after=after)
        assert set(ledger.overrides) == {"1-1@5"}
    assert look(ledger, MOUSE, guest("kiosk", 2, controller())).overrides, "not by a later reboot"
    assert look(ledger, replace(MOUSE, number=6), FREE).overrides == {}


def test_a_dying_domains_empty_ports_are_nobodys_order():
    """libxl empties every port before it takes the domain away."""
    ledger = look(KNOWN, MOUSE, FREE)
    assert look(ledger, MOUSE, after=DEATH_THROES - 1).overrides == {}
    assert look(ledger, MOUSE, after=DEATH_THROES + 1).overrides
    ordered = replace(KNOWN, overrides={"1-1@5": Override("detach")})
    assert look(ordered, MOUSE).overrides == ordered.overrides, "what a person ordered is not bound to a domain"


# guests that come and go


def test_born_when_first_seen_running():
    ledger = look(Ledger(at=NOW), replace(FREE, state=GuestState.STARTING))
    assert ledger.born == {}
    ledger = look(ledger, FREE)
    assert ledger.born == {1: NOW + 2}
    ledger = look(ledger, replace(FREE, state=GuestState.STARTING))
    assert ledger.born == {1: NOW + 2}, "a dying domain looks like that"
    assert look(ledger).born == {}


def test_home_and_gone():
    ledger = look(KNOWN, MOUSE, HOLDS)
    assert (ledger.homes, ledger.gone) == ({"1-1@5": "kiosk"}, {})
    ledger = look(ledger, MOUSE)
    assert (ledger.homes, ledger.gone) == ({"1-1@5": "kiosk"}, {"kiosk": NOW + 2})
    back = look(ledger, MOUSE, guest("kiosk", 2, controller()))
    assert (back.homes, back.gone) == ({"1-1@5": "kiosk"}, {})
    coming = look(ledger, MOUSE, guest("kiosk", 2, state=GuestState.STARTING), after=60)
    assert coming.homes == {"1-1@5": "kiosk"}, "it comes, and that takes its time"
    assert look(ledger, MOUSE, after=60).homes == {}
    assert look(ledger, after=1).homes == {}


def test_going_down_counts_as_gone():
    for state in (GuestState.STOPPING, GuestState.STARTING):
        assert look(KNOWN, MOUSE, replace(HOLDS, state=state)).gone == {"kiosk": NOW + 1}
    assert look(KNOWN, MOUSE, replace(HOLDS, state=GuestState.PAUSED)).gone == {}


def test_what_concerns_a_domain_goes_with_it():
    troubles = {
        subject(MOUSE, 1): Trouble(1, "refused", "", 0.0),
        detach_subject(MOUSE, 1): Trouble(1, "refused", "", 0.0),
        controller_subject(1): Trouble(1, "refused", "", 0.0),
    }
    healed, made = frozenset({subject(MOUSE, 1)}), {1: frozenset({0})}
    ledger = replace(KNOWN, troubles=troubles, made=made, built={1: 5.0}, healed=healed)
    same = look(ledger, MOUSE, HOLDS)
    assert (same.troubles, same.made, same.built, same.healed) == (troubles, made, {1: 5.0}, ledger.healed)
    other = look(ledger, MOUSE, guest("kiosk", 2, controller()))
    assert (other.troubles, other.made, other.built, other.healed) == ({}, {}, {}, frozenset())
    assert set(look(ledger, replace(MOUSE, number=6), HOLDS).troubles) == {controller_subject(1)}


@pytest.mark.parametrize(
    "known, forgotten",
    [
        ({"waited": STEADY}, True),
        ({"waited": STEADY - 5}, False),
        ({"waited": STEADY, "missing": 0.5, "was_used": True}, False),
    ],
    ids=["well for a minute", "not for a minute yet", "not well"],
)
def test_failures_in_a_row_end_with_an_attachment_that_holds(known, forgotten):
    trouble = {subject(MOUSE, 1): Trouble(7, "refused", "", 0.0), subject(MOUSE, 2): Trouble(1, "lost", "", 0.0)}
    ledger = replace(KNOWN, entries={spot(): entry(MOUSE, **known)}, troubles=trouble)
    found = look(ledger, MOUSE, HOLDS, guest("desk", 2, controller()), claims=TAKEN).troubles
    assert (subject(MOUSE, 1) not in found) is forgotten
    assert subject(MOUSE, 2) in found


# devices that come and go


def test_only_what_comes_back_at_once_settles():
    ledger = look(Ledger(at=NOW), MOUSE)
    assert ledger.arrived == {"1-1@5": 0.0}, "a first plug does not wait"
    ledger = look(ledger)
    ledger = look(ledger, replace(MOUSE, number=6))
    assert ledger.arrived == {"1-1@6": NOW + 3}
    ledger = look(ledger, replace(MOUSE, number=7))
    assert ledger.arrived == {"1-1@7": NOW + 4}, "also without a gap in between"
    ledger = look(look(ledger), replace(MOUSE, number=8), after=3.0)
    assert ledger.arrived == {"1-1@8": 0.0}, "a person plugged it"


def test_in_use_is_kept_until_unplug():
    ledger = look(Ledger(at=NOW), replace(MOUSE, in_use=frozenset({Use.STORAGE})))
    ledger = look(ledger, replace(MOUSE, in_use=frozenset({Use.NETWORK})))
    assert ledger.in_use == {"1-1@5": {Use.STORAGE, Use.NETWORK}}
    assert look(ledger, MOUSE).in_use == ledger.in_use
    assert look(ledger, replace(MOUSE, number=6)).in_use == {}


# acts


def test_the_notes_of_an_act():
    known = Entry("kiosk", MOUSE.port, 1, 5, MOUSE.tag, ours=True, intent="attach")
    ledger = begin(Ledger(at=NOW), spot(), known)
    assert ledger.entries == {spot(): known}
    assert settle(ledger, spot()).entries[spot()].intent is None
    assert settle(ledger, spot(9)) == ledger
    assert forget(ledger, spot()).entries == {}
    assert forget(ledger, spot(9)) == ledger


def test_backoff_doubles_and_gives_up():
    ledger, waits = Ledger(at=NOW), []
    for _ in range(8):
        ledger = fail(ledger, "1-1@5>1", ("refused", "no"), NOW, Backoff())
        waits.append(ledger.troubles["1-1@5>1"].next_try - NOW)
        given_up = ledger.troubles["1-1@5>1"].given_up
        assert given_up is (len(waits) == 8)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert clear_troubles(ledger, lambda key: key.startswith("1-1@")).troubles == {}
    assert clear_troubles(ledger, lambda key: key == "x").troubles == ledger.troubles
