"""What is remembered: taken up, watched, concluded, forgotten, and kept over a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core.make import (
    NOW,
    TO_HOST_BY_HAND,
    absorbed,
    controller,
    device,
    entry,
    guest,
    guest_port,
    overridden,
    policy,
    running_since,
    snapshot,
    to_guest_by_hand,
)

from xenplug.core.ledger.ledger import (
    Ledger,
    begin,
    clear_trouble,
    clear_troubles,
    fail,
    forget,
    settle,
    with_device,
    with_domain,
)
from xenplug.core.ledger.records import (
    DOMAIN_END_TIME,
    DeviceRecord,
    DomainRecord,
    Entry,
    Intent,
    OrderAction,
    lost,
)
from xenplug.core.ledger.troubles import Backoff, Trouble, TroubleKey
from xenplug.core.ledger.update import HEALTHY_AFTER
from xenplug.core.model import Bdf, Claim, DeviceKey, GuestState, Use

MOUSE = device()
TO_KIOSK = policy("rules: [{match: {kind: mouse}, attach: [kiosk, desk]}]")
HOLDS = guest("kiosk", 1, controller(p1="1-1"))
FREE = guest("kiosk", 1, controller())
USED = {"1-1": Claim(taken=True, used=True)}
TAKEN = {"1-1": Claim(taken=True)}
KNOWN = Ledger(entries={guest_port(): entry(MOUSE)}, domains=running_since(1), at=NOW)
TO_MOUSE = TroubleKey.attach(MOUSE.key, 1)


def look(before: Ledger, *things: Any, after: float = 1.0, claims: Any = None, grace: float = 5.0) -> Ledger:
    return absorbed(snapshot(*things, claims=claims), TO_KIOSK, before, before.at + after, grace)


# entries


@pytest.mark.parametrize(
    "name, busid, before, ours",
    [
        ("kiosk", "1-1", Ledger(at=NOW), True),
        ("desk", "1-1", Ledger(at=NOW), True),
        ("other", "1-1", Ledger(at=NOW), False),
        ("kiosk", "1-7", Ledger(at=NOW), False),
        ("other", "1-1", overridden(MOUSE, to_guest_by_hand("other")), True),
        ("kiosk", "1-1", overridden(MOUSE, to_guest_by_hand("other")), False),
        ("kiosk", "1-1", overridden(MOUSE, TO_HOST_BY_HAND), False),
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
def test_adoption(name, busid, before, ours):
    holds = guest(name, 1, controller(p1=busid))
    [(where, found)] = look(before, MOUSE, holds).entries.items()
    assert where == guest_port()
    assert (found.guest, found.busid, found.ours, found.delivered, found.intent) == (name, busid, ours, False, None)
    assert (found.bus, found.number, found.tag) == ((1, 5, MOUSE.tag) if busid == "1-1" else (0, 0, ""))


def test_the_device_number_of_the_attachment_is_kept():
    """So that another device in the same place is known for what it is."""
    found = look(KNOWN, replace(MOUSE, number=6), HOLDS)
    assert found.entries[guest_port()].number == 5


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
    assert (guest_port() in look(KNOWN, *things).entries) is kept


def test_another_busid_on_the_port_is_another_entry():
    holds = guest("kiosk", 1, controller(p1="1-2"))
    found = look(KNOWN, MOUSE, device("1-2", 9), holds).entries[guest_port()]
    assert (found.busid, found.number, found.delivered) == ("1-2", 9, False)


@pytest.mark.parametrize("intent", [Intent.ATTACH, Intent.DETACH])
def test_while_an_act_is_under_way_its_entry_is_not_touched(intent):
    known = entry(MOUSE, intent=intent, delivered=False)
    before = replace(KNOWN, entries={guest_port(): known})
    assert look(before, MOUSE, HOLDS, claims=USED).entries == {guest_port(): known}
    assert look(before, MOUSE, FREE).entries == ({guest_port(): known} if intent is Intent.ATTACH else {})
    assert look(before, MOUSE).entries == {}, "its domain is gone"


# watching


@pytest.mark.parametrize(
    "state, waited, missing",
    [(GuestState.RUNNING, 4.0, 4.0), (GuestState.PAUSED, 0.0, 0.0), (GuestState.STARTING, 0.0, 0.0)],
)
def test_time_stands_still_while_the_guest_does_not_run(state, waited, missing):
    fresh = replace(KNOWN, entries={guest_port(): entry(MOUSE, delivered=False, waited=1.0)})
    holds = replace(HOLDS, state=state)
    assert look(fresh, MOUSE, holds, after=4.0).entries[guest_port()].waited == 1.0 + waited
    used = replace(KNOWN, entries={guest_port(): entry(MOUSE, was_used=True, used_for=1.0)})
    assert look(used, MOUSE, holds, after=4.0, claims=USED).entries[guest_port()].used_for == 1.0 + waited
    gone = replace(KNOWN, entries={guest_port(): entry(MOUSE, missing=1.0)})
    assert look(gone, MOUSE, holds, after=4.0).entries[guest_port()].missing == 1.0 + missing


def test_the_look_that_begins_a_count_knows_nothing_of_the_time_before():
    """A minute without a round does not count as waiting: everything may have been fine until a moment ago."""
    fresh = replace(KNOWN, entries={guest_port(): entry(MOUSE, delivered=False, waited=0.0)})
    ledger = look(fresh, MOUSE, HOLDS, after=60.0)
    assert 0 < ledger.entries[guest_port()].waited < 0.01
    assert look(ledger, MOUSE, HOLDS, after=4.0).entries[guest_port()].waited == pytest.approx(4.0, abs=0.01)
    ledger = look(KNOWN, MOUSE, HOLDS, after=60.0)
    assert 0 < ledger.entries[guest_port()].missing < 0.01, "enough to be looked at again soon"
    assert look(ledger, MOUSE, HOLDS, after=4.0).entries[guest_port()].missing == pytest.approx(4.0, abs=0.01)
    assert look(KNOWN, MOUSE, replace(HOLDS, state=GuestState.PAUSED), after=60.0).entries[guest_port()].missing == 0


def test_delivered_used_missing():
    ledger = replace(KNOWN, entries={guest_port(): entry(MOUSE, delivered=False)})
    ledger = look(ledger, MOUSE, HOLDS)
    assert (ledger.entries[guest_port()].delivered, ledger.entries[guest_port()].missing) == (False, 0.0)
    ledger = look(ledger, MOUSE, HOLDS, claims=TAKEN)
    assert (ledger.entries[guest_port()].delivered, ledger.entries[guest_port()].was_used) == (True, False)
    ledger = look(ledger, MOUSE, HOLDS, claims=USED)
    assert ledger.entries[guest_port()].was_used
    ledger = look(ledger, MOUSE, HOLDS, claims=TAKEN, after=0.9)
    assert not lost(ledger.entries[guest_port()]), "a reset lets go for a moment"
    assert look(ledger, MOUSE, HOLDS, claims=USED, after=0.9).entries[guest_port()].missing == 0.0
    assert lost(look(ledger, MOUSE, HOLDS, claims=TAKEN, after=1.1).entries[guest_port()])


def test_a_clock_that_stands_or_jumps_back_does_no_harm():
    known = replace(KNOWN, entries={guest_port(): entry(MOUSE, waited=1.0)})
    assert look(known, MOUSE, HOLDS, after=-50.0).entries[guest_port()].waited == 1.0


# what others did


@pytest.mark.parametrize(
    "known, things, expected",
    [
        ({}, (MOUSE, FREE), True),
        ({}, (MOUSE, replace(FREE, controllers=())), True),
        ({"ours": False}, (MOUSE, FREE), False),
        ({"intent": Intent.DETACH}, (MOUSE, FREE), False),
        ({"intent": Intent.ATTACH}, (MOUSE, FREE), False),
        ({"intent": Intent.INTERRUPTED}, (MOUSE, FREE), False),
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
        "replugged",
        "guest gone",
        "guest rebooted",
        "moved to another port",
        "moved to another guest",
    ],
)
def test_someone_elses_detach_counts_as_ordered_by_hand(known, things, expected):
    before = replace(KNOWN, entries={guest_port(): entry(MOUSE, **known)})
    found = look(before, *things).orders.overrides
    assert {key: o.action for key, o in found.items()} == ({MOUSE.key: OrderAction.DETACH} if expected else {})


def test_it_lasts_until_unplug():
    ledger = look(KNOWN, MOUSE, FREE)
    for after in (1.0, 1000.0):
        ledger = look(ledger, MOUSE, FREE, after=after)
        assert set(ledger.orders.overrides) == {MOUSE.key}
    assert look(ledger, MOUSE, guest("kiosk", 2, controller())).orders.overrides, "not by a later reboot"
    assert look(ledger, replace(MOUSE, number=6), FREE).orders.overrides == {}


def test_a_dying_domains_empty_ports_are_nobodys_order():
    """libxl empties every port before it removes the domain."""
    ledger = look(KNOWN, MOUSE, FREE)
    assert look(ledger, MOUSE, after=DOMAIN_END_TIME - 1).orders.overrides == {}
    assert look(ledger, MOUSE, after=DOMAIN_END_TIME + 1).orders.overrides
    ordered = replace(KNOWN, orders=overridden(MOUSE, TO_HOST_BY_HAND).orders)
    assert look(ordered, MOUSE).orders == ordered.orders, "what a person ordered is not bound to a domain"


# guests that start and end


def test_first_seen_running():
    ledger = look(Ledger(at=NOW), replace(FREE, state=GuestState.STARTING))
    assert ledger.domains[1].first_running is None
    ledger = look(ledger, FREE)
    assert ledger.domains[1].first_running == NOW + 2
    ledger = look(ledger, replace(FREE, state=GuestState.STARTING))
    assert ledger.domains[1].first_running == NOW + 2, "a domain that ends looks like that"
    assert look(ledger).domains == {}


def test_the_guest_a_device_was_last_with():
    ledger = look(KNOWN, MOUSE, HOLDS)
    assert (ledger.device(MOUSE.key).last_guest, ledger.guest_gone_since) == ("kiosk", {})
    ledger = look(ledger, MOUSE)
    assert (ledger.device(MOUSE.key).last_guest, ledger.guest_gone_since) == ("kiosk", {"kiosk": NOW + 2})
    back = look(ledger, MOUSE, guest("kiosk", 2, controller()))
    assert (back.device(MOUSE.key).last_guest, back.guest_gone_since) == ("kiosk", {})
    coming = look(ledger, MOUSE, guest("kiosk", 2, state=GuestState.STARTING), after=60)
    assert coming.device(MOUSE.key).last_guest == "kiosk", "its guest is being created, and that takes its time"
    assert look(ledger, MOUSE, after=60).device(MOUSE.key).last_guest is None
    assert look(ledger, after=1).devices == {}


def test_a_device_that_is_gone_is_remembered_while_its_port_names_it():
    ledger = look(look(KNOWN, MOUSE, HOLDS), HOLDS)
    assert ledger.devices == {MOUSE.key: DeviceRecord(last_guest="kiosk")}
    assert look(ledger, FREE).devices == {}


def test_going_down_counts_as_gone():
    for state in (GuestState.STOPPING, GuestState.STARTING):
        assert look(KNOWN, MOUSE, replace(HOLDS, state=state)).guest_gone_since == {"kiosk": NOW + 1}
    assert look(KNOWN, MOUSE, replace(HOLDS, state=GuestState.PAUSED)).guest_gone_since == {}


def test_what_concerns_a_domain_goes_with_it():
    troubles = {
        key: Trouble(1, "refused", "", 0.0)
        for key in (TO_MOUSE, TroubleKey.detach(MOUSE.key, 1), TroubleKey.add_controller(1))
    }
    ledger = replace(KNOWN, troubles=troubles, healed_once=frozenset({TO_MOUSE}))
    ledger = with_domain(ledger, 1, controllers_made=frozenset({0}), last_made_at=5.0)
    same = look(ledger, MOUSE, HOLDS)
    assert (same.troubles, same.healed_once) == (troubles, ledger.healed_once)
    assert (same.domains[1].controllers_made, same.domains[1].last_made_at) == ({0}, 5.0)
    other = look(ledger, MOUSE, guest("kiosk", 2, controller()))
    assert (other.troubles, other.healed_once) == ({}, frozenset())
    assert other.domains == {2: DomainRecord(first_running=NOW + 1, connected=frozenset({0}))}
    assert set(look(ledger, replace(MOUSE, number=6), HOLDS).troubles) == {TroubleKey.add_controller(1)}


def test_what_concerns_dom0_stays_as_long_as_the_device():
    dom0s = {TroubleKey.authorize(MOUSE.key), TroubleKey.interfaces(MOUSE.key)}
    pci = TroubleKey.return_pci(Bdf("0000:00:14.0"))
    ledger = replace(KNOWN, troubles=dict.fromkeys({*dom0s, pci}, Trouble(1, "refused", "", 0.0)))
    assert set(look(ledger, MOUSE).troubles) == {*dom0s, pci}
    assert set(look(ledger, replace(MOUSE, number=6)).troubles) == {pci}


def test_since_when_a_controller_of_ours_is_empty():
    ledger = with_domain(look(KNOWN, MOUSE, HOLDS), 1, controllers_made=frozenset({0}))
    assert look(ledger, MOUSE, HOLDS).domains[1].empty_since == {}
    ledger = look(ledger, MOUSE, FREE)
    assert look(ledger, MOUSE, FREE).domains[1].empty_since == {0: ledger.at}
    assert look(ledger, MOUSE, HOLDS).domains[1].empty_since == {}
    assert look(ledger, MOUSE, guest("kiosk", 1)).domains[1].empty_since == {}


@pytest.mark.parametrize(
    "known, forgotten",
    [
        ({"waited": HEALTHY_AFTER}, True),
        ({"waited": HEALTHY_AFTER - 5}, False),
        ({"waited": HEALTHY_AFTER, "missing": 0.5, "was_used": True}, False),
    ],
    ids=["well for a minute", "not for a minute yet", "not well"],
)
def test_failures_in_a_row_end_with_an_attachment_that_holds(known, forgotten):
    elsewhere = TroubleKey.attach(MOUSE.key, 2)
    trouble = {TO_MOUSE: Trouble(7, "refused", "", 0.0), elsewhere: Trouble(1, "lost", "", 0.0)}
    ledger = replace(KNOWN, entries={guest_port(): entry(MOUSE, **known)}, troubles=trouble)
    found = look(ledger, MOUSE, HOLDS, guest("desk", 2, controller()), claims=TAKEN).troubles
    assert (TO_MOUSE not in found) is forgotten
    assert elsewhere in found


# devices that are plugged and unplugged


def test_only_what_comes_back_at_once_settles():
    ledger = look(Ledger(at=NOW), MOUSE)
    assert ledger.device(MOUSE.key).reenumerated_at == 0.0, "a first plug does not wait"
    ledger = look(ledger)
    ledger = look(ledger, replace(MOUSE, number=6))
    assert ledger.device(DeviceKey(MOUSE.port, 6)).reenumerated_at == NOW + 3
    ledger = look(ledger, replace(MOUSE, number=7))
    assert ledger.device(DeviceKey(MOUSE.port, 7)).reenumerated_at == NOW + 4, "also without a gap in between"
    ledger = look(look(ledger), replace(MOUSE, number=8), after=3.0)
    assert ledger.device(DeviceKey(MOUSE.port, 8)).reenumerated_at == 0.0, "a person plugged it"


def test_a_device_that_this_agent_has_not_seen_did_not_leave_a_moment_ago():
    """It was kept over a restart, and replugged while no agent ran."""
    restarted = with_device(Ledger(at=NOW), MOUSE.key, blocked=True)
    other = replace(MOUSE, number=6)
    assert look(restarted, other).device(other.key).reenumerated_at == 0.0


def test_what_the_agent_did_to_a_device_is_remembered_until_unplug():
    ledger = with_device(look(Ledger(at=NOW), MOUSE), MOUSE.key, blocked=True, released_to_dom0=True)
    here = look(ledger, MOUSE).device(MOUSE.key)
    assert (here.blocked, here.released_to_dom0) == (True, True)
    assert look(ledger, replace(MOUSE, number=6)).device(MOUSE.key) == DeviceRecord()


def test_in_use_is_kept_until_unplug():
    ledger = look(Ledger(at=NOW), replace(MOUSE, in_use=frozenset({Use.STORAGE})))
    ledger = look(ledger, replace(MOUSE, in_use=frozenset({Use.NETWORK})))
    assert ledger.device(MOUSE.key).in_use == {Use.STORAGE, Use.NETWORK}
    assert look(ledger, MOUSE).device(MOUSE.key).in_use == {Use.STORAGE, Use.NETWORK}
    replugged = replace(MOUSE, number=6)
    assert look(ledger, replugged).device(replugged.key).in_use == frozenset()


# acts


def test_the_notes_of_an_act():
    known = Entry("kiosk", MOUSE.port, 1, 5, MOUSE.tag, ours=True, intent=Intent.ATTACH)
    ledger = begin(Ledger(at=NOW), guest_port(), known)
    assert ledger.entries == {guest_port(): known}
    assert settle(ledger, guest_port()).entries[guest_port()].intent is None
    assert settle(ledger, guest_port(9)) == ledger
    assert forget(ledger, guest_port()).entries == {}
    assert forget(ledger, guest_port(9)) == ledger


def test_backoff_doubles_and_gives_up():
    ledger, waits = Ledger(at=NOW), []
    for _ in range(8):
        ledger = fail(ledger, TO_MOUSE, ("refused", "no"), NOW, Backoff())
        waits.append(ledger.troubles[TO_MOUSE].next_try - NOW)
        given_up = ledger.troubles[TO_MOUSE].given_up
        assert given_up is (len(waits) == 8)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert clear_troubles(ledger, lambda key: key.device == MOUSE.key).troubles == {}
    assert clear_trouble(ledger, TO_MOUSE).troubles == {}
    assert clear_trouble(ledger, TroubleKey.attach(MOUSE.key, 2)).troubles == ledger.troubles
