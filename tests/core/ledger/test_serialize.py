"""What of the ledger survives a restart: everything that must, in a form that is checked when it is read."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.make import FREE, HOLDS, MOUSE, NOW, TO_KIOSK, absorbed, entry, guest_port, running_since, snapshot

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.pci import PciLedger
from xenplug.core.ledger.records import (
    DeviceRecord,
    DomainRecord,
    Entry,
    Intent,
    Leftover,
    OrderAction,
    Orders,
    Override,
    Pause,
    PauseScope,
)
from xenplug.core.ledger.serialize import from_json, to_json
from xenplug.core.model import BusId, DeviceKey, GuestPort, Tag, Use

KNOWN = Ledger(entries={guest_port(): entry(MOUSE)}, domains=running_since(1), at=NOW)


def look(before: Ledger, *things: Any) -> Ledger:
    return absorbed(snapshot(*things), TO_KIOSK, before, before.at + 1)


times = st.floats(0, 1e9)
domids = st.integers(1, 32751)
names = st.text("abcdefgh-. ", min_size=1, max_size=9)
ports = st.builds(lambda bus, path: f"{bus}-{path}", st.integers(1, 99), st.sampled_from(["1", "14", "2.4", "3.1.2"]))
keys = st.builds(DeviceKey, ports.map(BusId), st.integers(1, 127))
entries = st.builds(
    lambda name, busid, number, flags, intent: Entry(
        name, BusId(busid), 1, number, Tag("046d:c016"), flags[0], intent, delivered=flags[1], was_used=flags[2]
    ),
    names,
    st.sampled_from(["1-1", "2-4.1", "junk"]),
    st.integers(0, 127),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.none() | st.sampled_from(Intent),
)
overrides = st.one_of(
    names.map(lambda name: Override(OrderAction.ATTACH, name, back="desk")),
    st.builds(lambda domid, at: Override(OrderAction.DETACH, None, domid, at), st.none() | domids, times),
)
devices = st.builds(
    lambda guest, uses, flags: DeviceRecord(guest, None, uses, *flags),
    st.none() | names,
    st.frozensets(st.sampled_from(Use)),
    st.tuples(st.booleans(), st.booleans()),
).filter(lambda record: record != DeviceRecord())
domains = st.builds(DomainRecord, st.none() | times, st.frozensets(st.integers(0, 9)), st.none() | times).filter(
    lambda record: record != DomainRecord()
)
ledgers = st.builds(
    Ledger,
    entries=st.dictionaries(st.builds(GuestPort, domids, st.integers(0, 9), st.integers(1, 31)), entries, max_size=4),
    devices=st.dictionaries(keys, devices, max_size=3),
    domains=st.dictionaries(domids, domains, max_size=3),
    orders=st.builds(
        Orders,
        st.dictionaries(keys, overrides, max_size=3),
        st.frozensets(st.builds(Pause, st.sampled_from(PauseScope), names), max_size=3),
        st.none() | names,
    ),
    followed=st.dictionaries(keys, names, max_size=3),
    follow_ends=st.dictionaries(keys, times, max_size=3),
    follow_until=st.dictionaries(ports.map(BusId), st.tuples(names, times), max_size=3),
    leftovers=st.frozensets(st.builds(Leftover, domids, st.integers(1, 20), st.integers(1, 127)), max_size=3),
)


@given(ledgers)
def test_what_lasts_comes_back_as_it_was(ledger):
    kept = json.loads(json.dumps(to_json(ledger)))
    found = from_json(kept, NOW)
    as_after_a_crash = {s: replace(e, intent=e.intent and Intent.INTERRUPTED) for s, e in ledger.entries.items()}
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
        ("overrides", {"1-1@5": ["eject", None, None, 0.0, None]}),
        ("overrides", {"1-1": ["detach", None, None, 0.0, None]}),
        ("blocked", ["1-1@"]),
        ("blocked", [5]),
        ("paused", [["bus", "1"]]),
        ("followed", {"usb1@5": "r"}),
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
    """An attach without a result did not happen; a completed detach is not taken for somebody else's."""
    for intent in (Intent.ATTACH, Intent.DETACH):
        before = replace(KNOWN, entries={guest_port(): entry(MOUSE, intent=intent)})
        again = from_json(to_json(before), NOW)
        there, free = look(again, MOUSE, HOLDS), look(again, MOUSE, FREE)
        entry_there = there.entries[guest_port()]
        assert (entry_there.intent, entry_there.ours, there.orders.overrides) == (None, True, {})
        assert (free.entries, free.orders.overrides) == ({}, {})


OLD_FILE = {
    "entries": [
        {
            **{"domid": 1, "controller": 0, "port": 2, "guest": "kiosk", "busid": "1-4.2", "bus": 1, "number": 6},
            **{"tag": "046d:c016", "ours": True, "intent": "attach", "delivered": True, "was_used": False},
        }
    ],
    "overrides": {"1-4@7": ["attach", "desk", None, 0.0, "kiosk"], "1-5@8": ["detach", None, 3, 12.5, None]},
    "homes": {"1-4.2@6": "kiosk"},
    "born": {"1": 3.5},
    "made": {"1": [0, 2]},
    "built": {"1": 4.5},
    "in_use": {"1-6@9": ["network", "storage"]},
    "blocked": ["1-6@9", "1-7@10"],
    "paused": [["guest", "kiosk"]],
    "preferred": "desk",
    "leftovers": [[1, 1, 6]],
    "pci": {"given": {}, "kept": {"0000:00:14.0": [2.0, None]}},
    "opened": ["1-8@11"],
    "followed": {"1-8@11": "board"},
    "follow_ends": {"1-8@11": 19.5},
    "trails": {"1-9": ["board", 20.0]},
}
"""A ledger as agents before the typed keys wrote it: these are the keys and forms that must stay."""


def test_a_ledger_of_an_older_agent_is_read_and_written_as_it_was():
    ledger = from_json(OLD_FILE, NOW)
    assert ledger.devices[DeviceKey.parse("1-6@9")] == DeviceRecord(
        in_use=frozenset(Use) - {Use.KEYBOARD}, blocked=True
    )
    assert ledger.domains == {1: DomainRecord(3.5, frozenset({0, 2}), 4.5)}
    [entry_then] = OLD_FILE["entries"]
    assert to_json(ledger) == OLD_FILE | {"entries": [entry_then | {"intent": "interrupted"}]}
    json.dumps(to_json(ledger))


def test_what_an_older_agent_did_not_know_yet_may_be_missing():
    before = {
        key: value
        for key, value in OLD_FILE.items()
        if key not in ("pci", "opened", "followed", "follow_ends", "trails")
    }
    ledger = from_json(before, NOW)
    assert (ledger.followed, ledger.follow_until, ledger.pci) == ({}, {}, PciLedger())


KEPT = {
    Ledger: {"entries", "devices", "domains", "orders", "followed", "follow_ends", "follow_until", "leftovers", "pci"},
    DeviceRecord: {"last_guest", "in_use", "blocked", "released_to_dom0"},
    DomainRecord: {"first_running", "controllers_made", "last_made_at"},
    Orders: {"overrides", "paused", "preferred"},
}
SEEN_AGAIN = {
    Ledger: {"troubles", "healed_once", "port_left_at", "guest_gone_since", "at"},
    DeviceRecord: {"reenumerated_at", "unconfigured_since", "reconfigured"},
    DomainRecord: {"empty_since", "connected"},
    Orders: set(),
}


@pytest.mark.parametrize("record", KEPT)
def test_adding_to_the_ledger_is_a_decision(record):
    """A new field must be named here: kept over a restart, or seen again."""
    assert {item.name for item in fields(record)} == KEPT[record] | SEEN_AGAIN[record]
    assert set(to_json(Ledger())) == set(OLD_FILE)
