"""The ledger meets a new snapshot: what is occupied has an entry, what is gone is forgotten, what others did is noted.

Between observing and planning; the reconciler's every round passes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from xenplug.core.ledger.ledger import (
    INTERRUPTED,
    LIVE_STATES,
    Entry,
    Ledger,
    Override,
    Place,
    about,
    is_coming,
    place,
    retry_given_up,
    was_healthy,
)
from xenplug.core.ledger.pci import update_pci
from xenplug.core.model import BusId, Claim, Device, Guest, GuestPort, GuestState, Snapshot, Tag, Use

DOMAIN_END_TIME = 30.0
"""A domain that goes within so many seconds after its ports fell empty emptied them itself: libxl takes every device
off before it takes the domain away (xen-facts 2.7)."""

BEGUN = 1e-6
"""Seconds at which a count begins: more than nothing, so that it is seen to have begun."""

HEALTHY_AFTER = 60.0
"""Seconds an attached device must have been well for its earlier failures to be forgotten."""

REENUMERATION = 2.0
"""Seconds within which what appears where something left is taken for a re-enumeration, not for a person's replug."""

Wanted = Callable[[Device], tuple[str, ...]]


def update(ledger: Ledger, snapshot: Snapshot, now: float, wanted: Wanted, grace: float) -> Ledger:
    """The ledger brought into line with what is: entries for all occupied ports and no others, nothing of what is gone.

    `wanted` tells the guests a device belongs to by policy or hand: an unknown attachment is ours if it is just that,
    else foreign (design §4). `grace`: for so many seconds a guest that went away is expected back.
    """
    places = {place(d) for d in snapshot.devices.values()}
    domids = {g.domid: g for g in snapshot.guests.values()}
    entries = _entries(ledger, snapshot, now, wanted)
    dropped = _dropped_by_others(ledger, entries, snapshot, now)
    kept = {p: o for p, o in ledger.overrides.items() if p in places and not _died(o, domids, now)} | dropped
    port_left_at = _port_left_at(ledger, snapshot, now)
    guest_gone_since = _guest_gone_since(ledger, snapshot, now)
    last_guest = {
        g
        for g in ledger.last_guest.values()
        if now - guest_gone_since.get(g, now) < grace or _returns(ledger, snapshot, g)
    }
    steady = {
        f"{e.busid}@{e.number}>{s.domid}" for s, e in entries.items() if e.waited > HEALTHY_AFTER and not e.missing
    }
    connected = {d: frozenset(c.id for c in g.controllers if c.connected) for d, g in domids.items()}
    ledger = retry_given_up(ledger, _news(ledger, entries, connected))
    return replace(
        ledger,
        entries=entries,
        reenumerated_at=_reenumerated_at(ledger, snapshot, now, port_left_at),
        port_left_at=port_left_at,
        overrides=kept,
        last_guest={p: g for p, g in ledger.last_guest.items() if p in places and g in last_guest}
        | {f"{e.busid}@{e.number}": e.guest for e in entries.values() if e.ours and e.delivered},
        guest_gone_since=guest_gone_since,
        first_running={
            d: ledger.first_running.get(d, now)
            for d, g in domids.items()
            if g.state is not GuestState.STARTING or d in ledger.first_running
        },
        controllers_made={d: ids for d, ids in ledger.controllers_made.items() if d in domids},
        empty_since=_empty_since(ledger, domids, now),
        last_made_at={d: at for d, at in ledger.last_made_at.items() if d in domids},
        troubles={k: t for k, t in ledger.troubles.items() if _alive(k, places, domids) and k not in steady},
        connected=connected,
        leftovers=frozenset(o for o in ledger.leftovers if o.domid in domids),
        in_use=_uses(ledger, snapshot),
        blocked=ledger.blocked & places,
        released_to_dom0=ledger.released_to_dom0 & places,
        healed_once=frozenset(k for k in ledger.healed_once if _alive(k, places, domids)),
        pci=update_pci(ledger.pci, snapshot, now),
        at=now,
    )


def _news(ledger: Ledger, entries: Mapping[GuestPort, Entry], connected: Mapping[int, frozenset[int]]) -> set[int]:
    """Domains where a controller connected, or where somebody else freed a port."""
    opened = {domid for domid, ids in connected.items() if ids - ledger.connected.get(domid, ids)}
    return opened | {s.domid for s, e in ledger.entries.items() if s not in entries and was_healthy(e)}


def _alive(key: str, places: set[str], domids: Mapping[int, Guest]) -> bool:
    domid = int(key.partition(">")[2])
    what = about(key)
    return (domid == 0 or domid in domids) and (what.startswith(("controller", "pci ")) or what in places)


def _empty_since(ledger: Ledger, domids: Mapping[int, Guest], now: float) -> dict[tuple[int, int], float]:
    """The guest controllers that the agent made, with nothing on them."""
    return {
        (domid, controller.id): ledger.empty_since.get((domid, controller.id), now)
        for domid, ids in ledger.controllers_made.items()
        if domid in domids
        for controller in domids[domid].controllers
        if controller.id in ids and not any(controller.ports.values())
    }


def _uses(ledger: Ledger, snapshot: Snapshot) -> dict[Place, frozenset[Use]]:
    uses = {place(d): d.in_use | ledger.in_use.get(place(d), frozenset()) for d in snapshot.devices.values()}
    return {p: found for p, found in uses.items() if found}


def _port_left_at(ledger: Ledger, snapshot: Snapshot, now: float) -> dict[BusId, float]:
    there = {place(d) for d in snapshot.devices.values()}
    fresh = {BusId(p.partition("@")[0]): now for p in ledger.reenumerated_at if p not in there}
    return {b: at for b, at in ledger.port_left_at.items() if now - at < REENUMERATION} | fresh


def _reenumerated_at(
    ledger: Ledger, snapshot: Snapshot, now: float, port_left_at: Mapping[BusId, float]
) -> dict[Place, float]:
    return {
        place(d): ledger.reenumerated_at.get(place(d), now if d.port in port_left_at else 0.0)
        for d in snapshot.devices.values()
    }


def _guest_gone_since(ledger: Ledger, snapshot: Snapshot, now: float) -> dict[str, float]:
    last = {e.guest for e in ledger.entries.values()} | set(ledger.last_guest.values())
    live = {g.name for g in snapshot.guests.values() if g.state in LIVE_STATES}
    return {g: ledger.guest_gone_since.get(g, now) for g in last - live}


def _returns(ledger: Ledger, snapshot: Snapshot, name: str) -> bool:
    guest = snapshot.guests.get(name)
    return guest is not None and is_coming(ledger, guest)


def _died(order: Override, domids: Mapping[int, Guest], now: float) -> bool:
    return order.domid is not None and order.domid not in domids and now - order.at < DOMAIN_END_TIME


def _entries(ledger: Ledger, snapshot: Snapshot, now: float, wanted: Wanted) -> dict[GuestPort, Entry]:
    entries = {}
    elapsed = max(0.0, now - ledger.at)
    for guest in snapshot.guests.values():
        for controller in guest.controllers:
            for port, busid in controller.ports.items():
                if busid is None:
                    continue
                guest_port = GuestPort(guest.domid, controller.id, port)
                known = ledger.entries.get(guest_port)
                if known is None or known.busid != busid:
                    known = _adopt(guest, busid, snapshot, wanted)
                elif known.intent == INTERRUPTED:
                    known = replace(known, intent=None)
                elif known.intent is None:
                    known = _watch(known, guest, snapshot, elapsed)
                # A domain may be renamed; it is by its name that a policy means it.
                entries[guest_port] = known if known.guest == guest.name else replace(known, guest=guest.name)
    for guest_port, entry in ledger.entries.items():
        if (
            entry.intent == "attach"
            and guest_port not in entries
            and guest_port.domid in {g.domid for g in snapshot.guests.values()}
        ):
            entries[guest_port] = entry
    return entries


def _adopt(guest: Guest, busid: BusId, snapshot: Snapshot, wanted: Wanted) -> Entry:
    device = snapshot.devices.get(busid)
    if device is None:
        return Entry(guest.name, busid, 0, 0, Tag(""), ours=False)
    ours = guest.name in wanted(device)
    return Entry(guest.name, busid, device.bus, device.number, device.tag, ours)


def _watch(entry: Entry, guest: Guest, snapshot: Snapshot, elapsed: float) -> Entry:
    claim = snapshot.claims.get(entry.busid, Claim())
    runs = guest.state is GuestState.RUNNING
    fell = (entry.delivered and not claim.taken) or (entry.was_used and not claim.used)
    return replace(
        entry,
        waited=_counted(entry.waited, elapsed, runs),
        delivered=entry.delivered or claim.taken,
        was_used=entry.was_used or claim.used,
        missing=_counted(entry.missing, elapsed, runs) if fell else 0.0,
    )


def _counted(so_far: float, elapsed: float, runs: bool) -> float:
    """One more look's seconds. The look that begins a count knows nothing of the time before it."""
    if not runs:
        return so_far
    return so_far + elapsed if so_far else BEGUN


def _dropped_by_others(
    ledger: Ledger, entries: Mapping[GuestPort, Entry], snapshot: Snapshot, now: float
) -> dict[Place, Override]:
    """Ours, no act of ours under way, the same domain still there, the device still plugged, and yet the port is free:
    somebody detached it at the console. That is respected until unplug.
    """
    domids = {g.domid for g in snapshot.guests.values() if g.state in LIVE_STATES}
    found = {}
    for guest_port, entry in ledger.entries.items():
        device = snapshot.devices.get(entry.busid)
        if not entry.ours or entry.intent or guest_port in entries or guest_port.domid not in domids:
            continue
        if device and device.number == entry.number and not _is_attached(entries, entry):
            found[place(device)] = Override("detach", domid=guest_port.domid, at=now)
    return found


def _is_attached(entries: Mapping[GuestPort, Entry], entry: Entry) -> bool:
    return any(e.busid == entry.busid for e in entries.values())
