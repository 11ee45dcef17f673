"""What of the ledger survives a restart: the whole of what must, in a form that is checked when it is read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.make import FREE, HOLDS, MOUSE, NOW, TO_KIOSK, absorbed, entry, guest_port, snapshot

from xenplug.core.ledger.ledger import INTERRUPTED, Entry, Ledger, Leftover, Override
from xenplug.core.ledger.serialize import from_json, to_json
from xenplug.core.model import BusId, GuestPort, Tag, Use

KNOWN = Ledger(entries={guest_port(): entry(MOUSE)}, first_running={1: 0.0}, at=NOW)


def look(before: Ledger, *things: Any) -> Ledger:
    return absorbed(snapshot(*things), TO_KIOSK, before, before.at + 1)


times = st.floats(0, 1e9)
domids = st.integers(1, 32751)
names = st.text("abcdefgh-. ", min_size=1, max_size=9)
places = st.builds(lambda a, b, c: f"{a}-{b}@{c}", st.integers(1, 9), st.integers(1, 9), st.integers(1, 127))
entries = st.builds(
    lambda name, busid, number, flags, intent: Entry(
        name, BusId(busid), 1, number, Tag("046d:c016"), flags[0], intent, delivered=flags[1], was_used=flags[2]
    ),
    names,
    st.sampled_from(["1-1", "2-4.1", "junk"]),
    st.integers(0, 127),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from([None, "attach", "detach", INTERRUPTED]),
)
overrides = st.one_of(
    names.map(lambda name: Override("attach", name, back="desk")),
    st.builds(lambda domid, at: Override("detach", None, domid, at), st.none() | domids, times),
)
ledgers = st.builds(
    Ledger,
    entries=st.dictionaries(st.builds(GuestPort, domids, st.integers(0, 9), st.integers(1, 31)), entries, max_size=4),
    overrides=st.dictionaries(places, overrides, max_size=3),
    last_guest=st.dictionaries(places, names, max_size=3),
    first_running=st.dictionaries(domids, times, max_size=3),
    controllers_made=st.dictionaries(domids, st.frozensets(st.integers(0, 9)), max_size=3),
    last_made_at=st.dictionaries(domids, times, max_size=3),
    in_use=st.dictionaries(places, st.frozensets(st.sampled_from(Use), min_size=1), max_size=3),
    blocked=st.frozensets(places, max_size=3),
    paused=st.frozensets(st.sampled_from([("all", "all"), ("guest", "kiosk"), ("port", "1-4")])),
    preferred=st.none() | names,
    leftovers=st.frozensets(st.builds(Leftover, domids, st.integers(1, 20), st.integers(1, 127)), max_size=3),
    released_to_dom0=st.frozensets(places, max_size=3),
)


@given(ledgers)
def test_what_lasts_comes_back_as_it_was(ledger):
    kept = json.loads(json.dumps(to_json(ledger)))
    found = from_json(kept, NOW)
    as_after_a_crash = {s: replace(e, intent=e.intent and INTERRUPTED) for s, e in ledger.entries.items()}
    assert found == replace(ledger, entries=as_after_a_crash, at=NOW)
    assert to_json(found) == to_json(replace(ledger, entries=as_after_a_crash))


def test_nothing_kept_is_nothing_known():
    assert from_json(to_json(Ledger()), NOW) == Ledger(at=NOW)


@pytest.mark.parametrize(
    "path, value",
    [
        ("entries", None),
        ("entries", [{}]),
        ("overrides", {"1-1@5": "detach"}),
        ("overrides", {"1-1@5": ["detach"]}),
        ("born", {"one": 1.0}),
        ("made", {"1": "many"}),
        ("in_use", {"1-1@5": ["fun"]}),
        ("homes", 3),
    ],
    ids=lambda value: str(value),
)
def test_what_is_not_of_that_form_is_refused(path, value):
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        from_json(to_json(Ledger()) | {path: value}, NOW)


def test_after_a_crash_an_act_is_judged_by_xenstore():
    """An attach that is not there did not happen, a detach that is done is not somebody else's."""
    for intent in ("attach", "detach"):
        before = replace(KNOWN, entries={guest_port(): entry(MOUSE, intent=intent)})
        again = from_json(to_json(before), NOW)
        there, free = look(again, MOUSE, HOLDS), look(again, MOUSE, FREE)
        assert (there.entries[guest_port()].intent, there.entries[guest_port()].ours, there.overrides) == (
            None,
            True,
            {},
        )
        assert (free.entries, free.overrides) == ({}, {})


def test_adding_to_the_ledger_is_a_decision():
    """A new field must be named here: kept over a restart, or seen again."""
    kept = {"entries", "overrides", "homes", "born", "made", "built", "in_use", "blocked", "leftovers"}
    kept |= {"opened", "paused", "pci", "preferred", "followed", "follow_ends", "trails"}
    seen_again = {"arrived", "left", "gone", "troubles", "healed", "connected", "emptied", "at"}
    assert set(to_json(Ledger())) == kept
    assert set(Ledger.__slots__) == kept | seen_again
