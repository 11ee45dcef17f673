"""The entries of occupied guest ports, brought into line with a snapshot; part of core/ledger/update.

xenstore decides which ports are occupied. The entry adds what xenstore does not keep: who attached the device, which
address it had, and for how long the guest has had it or has been without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.records import Entry, Intent, OrderAction, Override
from xenplug.core.model import LIVE_STATES, BusId, Claim, Device, DeviceKey, Guest, GuestPort, GuestState, Snapshot, Tag

FIRST_INTERVAL = 1e-6
"""Seconds at which a count begins: more than zero, so that the count is known to have begun."""

Wanted = Callable[[Device], tuple[str, ...]]
"""The guests that a device belongs to, by policy or by a manual override."""


def update_entries(ledger: Ledger, snapshot: Snapshot, now: float, wanted: Wanted) -> dict[GuestPort, Entry]:
    """An entry for every occupied port, and for every port that an attach of ours is about to occupy."""
    elapsed = max(0.0, now - ledger.at)
    entries = {}
    for guest, guest_port, busid in _occupied(snapshot):
        known = ledger.entries.get(guest_port)
        if known is None or known.busid != busid:
            known = _adopt(guest, busid, snapshot, wanted)
        elif known.intent is Intent.INTERRUPTED:
            known = replace(known, intent=None)  # what happens from here on is counted from the next round
        elif known.intent is None:
            known = _watch(known, guest, snapshot, elapsed)
        # A domain may be renamed, and policies go by the name.
        entries[guest_port] = known if known.guest == guest.name else replace(known, guest=guest.name)
    return entries | _being_attached(ledger, snapshot, entries)


def _occupied(snapshot: Snapshot) -> Iterator[tuple[Guest, GuestPort, BusId]]:
    for guest in snapshot.guests.values():
        for controller in guest.controllers:
            for port, busid in controller.ports.items():
                if busid is not None:
                    yield guest, GuestPort(guest.domid, controller.id, port), busid


def _being_attached(ledger: Ledger, snapshot: Snapshot, occupied: Mapping[GuestPort, Entry]) -> dict[GuestPort, Entry]:
    """The attach has begun, and xl has not written the port yet. An INTERRUPTED one is not waited for: it does not run
    any more.
    """
    domids = {guest.domid for guest in snapshot.guests.values()}
    return {
        guest_port: entry
        for guest_port, entry in ledger.entries.items()
        if entry.intent is Intent.ATTACH and guest_port not in occupied and guest_port.domid in domids
    }


def _adopt(guest: Guest, busid: BusId, snapshot: Snapshot, wanted: Wanted) -> Entry:
    """A port that the ledger does not know. It is ours if the device is where it belongs, as after a lost ledger; a
    device that somebody attached to another guest is foreign.
    """
    device = snapshot.devices.get(busid)
    if device is None:
        return Entry(guest.name, busid, 0, 0, Tag(""), ours=False)
    ours = guest.name in wanted(device)
    return Entry(guest.name, busid, device.bus, device.number, device.tag, ours)


def _watch(entry: Entry, guest: Guest, snapshot: Snapshot, elapsed: float) -> Entry:
    """Count for how long the guest had the chance to take the device, and for how long it has been without it."""
    claim = snapshot.claims.get(entry.busid, Claim())
    runs = guest.state is GuestState.RUNNING
    fell = (entry.delivered and not claim.taken) or (entry.was_used and not claim.used)
    return replace(
        entry,
        waited=_counted(entry.waited, elapsed, runs),
        delivered=entry.delivered or claim.taken,
        was_used=entry.was_used or claim.used,
        used_for=_counted(entry.used_for, elapsed, runs) if entry.was_used or claim.used else 0.0,
        missing=_counted(entry.missing, elapsed, runs) if fell else 0.0,
    )


def _counted(so_far: float, elapsed: float, runs: bool) -> float:
    """Add one round's seconds. The round that starts a count adds none: the state before it is unknown."""
    if not runs:
        return so_far
    return so_far + elapsed if so_far else FIRST_INTERVAL


def detached_by_others(
    ledger: Ledger, entries: Mapping[GuestPort, Entry], snapshot: Snapshot, now: float
) -> dict[DeviceKey, Override]:
    """A port of ours is free, though no act of ours is under way, its domain is still there and the device is still
    plugged in: somebody detached it at the console. That is respected until the device is unplugged.
    """
    domids = {guest.domid for guest in snapshot.guests.values() if guest.state in LIVE_STATES}
    attached = {entry.busid for entry in entries.values()}
    freed = {port: entry for port, entry in ledger.entries.items() if port not in entries and port.domid in domids}
    return {
        entry.key: Override(OrderAction.DETACH, domid=guest_port.domid, at=now)
        for guest_port, entry in freed.items()
        if entry.ours and not entry.intent and entry.busid not in attached and _is_there(entry, snapshot)
    }


def _is_there(entry: Entry, snapshot: Snapshot) -> bool:
    """The same device, not another one at the same port."""
    device = snapshot.devices.get(entry.busid)
    return device is not None and device.key == entry.key
