"""The ledger meets a new snapshot: what is occupied has an entry, what is gone is forgotten, what others did is noted.

Between observing and planning; the reconciler's every round passes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from xenplug.core.ledger.ledger import (
    INTERRUPTED,
    LIVE,
    Entry,
    Ledger,
    Override,
    Place,
    about,
    hopeful,
    is_coming,
    place,
    stood_well,
)
from xenplug.core.model import BusId, Claim, Device, Guest, GuestPort, GuestState, Snapshot, Tag, Use
from xenplug.core.ledger.pci import absorb_pci

DEATH_THROES = 30.0
"""A domain that goes within so many seconds after its ports fell empty emptied them itself: libxl takes every device
off before it takes the domain away (xen-facts 2.7)."""

BEGUN = 1e-6
"""Seconds at which a count begins: more than nothing, so that it is seen to have begun."""

STEADY = 60.0
"""Seconds an attached device must have been well for its earlier failures to be forgotten."""

REENUMERATION = 2.0
"""Seconds within which what appears where something left is taken for a re-enumeration, not for a person's replug."""

Wanted = Callable[[Device], tuple[str, ...]]


def absorb(ledger: Ledger, snapshot: Snapshot, now: float, wanted: Wanted, grace: float) -> Ledger:
    """The ledger brought into line with what is: entries for all occupied ports and no others, nothing of what is gone.

    `wanted` tells the guests a device belongs to by policy or hand: an unknown attachment is ours if it is just that,
    else foreign (design §4). `grace`: for so many seconds a guest that went away is expected back.
    """
    places = {place(d) for d in snapshot.devices.values()}
    domids = {g.domid: g for g in snapshot.guests.values()}
    entries = _entries(ledger, snapshot, now, wanted)
    dropped = _dropped_by_others(ledger, entries, snapshot, now)
    kept = {p: o for p, o in ledger.overrides.items() if p in places and not _died(o, domids, now)} | dropped
    left = _left(ledger, snapshot, now)
    gone = _gone(ledger, snapshot, now)
    homes = {g for g in ledger.homes.values() if now - gone.get(g, now) < grace or _returns(ledger, snapshot, g)}
    steady = {f"{e.busid}@{e.number}>{s.domid}" for s, e in entries.items() if e.waited > STEADY and not e.missing}
    connected = {d: frozenset(c.id for c in g.controllers if c.connected) for d, g in domids.items()}
    ledger = hopeful(ledger, _news(ledger, entries, connected))
    return replace(
        ledger,
        entries=entries,
        arrived=_arrived(ledger, snapshot, now, left),
        left=left,
        overrides=kept,
        homes={p: g for p, g in ledger.homes.items() if p in places and g in homes}
        | {f"{e.busid}@{e.number}": e.guest for e in entries.values() if e.ours and e.delivered},
        gone=gone,
        born={
            d: ledger.born.get(d, now)
            for d, g in domids.items()
            if g.state is not GuestState.STARTING or d in ledger.born
        },
        made={d: ids for d, ids in ledger.made.items() if d in domids},
        emptied=_emptied(ledger, domids, now),
        built={d: at for d, at in ledger.built.items() if d in domids},
        troubles={k: t for k, t in ledger.troubles.items() if _alive(k, places, domids) and k not in steady},
        connected=connected,
        leftovers=frozenset(o for o in ledger.leftovers if o.domid in domids),
        in_use=_uses(ledger, snapshot),
        blocked=ledger.blocked & places,
        opened=ledger.opened & places,
        healed=frozenset(k for k in ledger.healed if _alive(k, places, domids)),
        pci=absorb_pci(ledger.pci, snapshot, now),
        at=now,
    )


def _news(ledger: Ledger, entries: Mapping[GuestPort, Entry], connected: Mapping[int, frozenset[int]]) -> set[int]:
    """Domains where a controller connected, or where somebody else freed a port."""
    opened = {domid for domid, ids in connected.items() if ids - ledger.connected.get(domid, ids)}
    return opened | {s.domid for s, e in ledger.entries.items() if s not in entries and stood_well(e)}


def _alive(key: str, places: set[str], domids: Mapping[int, Guest]) -> bool:
    domid = int(key.partition(">")[2])
    what = about(key)
    return (domid == 0 or domid in domids) and (what.startswith(("controller", "pci ")) or what in places)


def _emptied(ledger: Ledger, domids: Mapping[int, Guest], now: float) -> dict[tuple[int, int], float]:
    """The guest controllers that the agent made, with nothing on them."""
    return {
        (domid, controller.id): ledger.emptied.get((domid, controller.id), now)
        for domid, ids in ledger.made.items()
        if domid in domids
        for controller in domids[domid].controllers
        if controller.id in ids and not any(controller.ports.values())
    }


def _uses(ledger: Ledger, snapshot: Snapshot) -> dict[Place, frozenset[Use]]:
    uses = {place(d): d.in_use | ledger.in_use.get(place(d), frozenset()) for d in snapshot.devices.values()}
    return {p: found for p, found in uses.items() if found}


def _left(ledger: Ledger, snapshot: Snapshot, now: float) -> dict[BusId, float]:
    there = {place(d) for d in snapshot.devices.values()}
    fresh = {BusId(p.partition("@")[0]): now for p in ledger.arrived if p not in there}
    return {b: at for b, at in ledger.left.items() if now - at < REENUMERATION} | fresh


def _arrived(ledger: Ledger, snapshot: Snapshot, now: float, left: Mapping[BusId, float]) -> dict[Place, float]:
    return {place(d): ledger.arrived.get(place(d), now if d.port in left else 0.0) for d in snapshot.devices.values()}


def _gone(ledger: Ledger, snapshot: Snapshot, now: float) -> dict[str, float]:
    last = {e.guest for e in ledger.entries.values()} | set(ledger.homes.values())
    live = {g.name for g in snapshot.guests.values() if g.state in LIVE}
    return {g: ledger.gone.get(g, now) for g in last - live}


def _returns(ledger: Ledger, snapshot: Snapshot, name: str) -> bool:
    guest = snapshot.guests.get(name)
    return guest is not None and is_coming(ledger, guest)


def _died(order: Override, domids: Mapping[int, Guest], now: float) -> bool:
    return order.domid is not None and order.domid not in domids and now - order.at < DEATH_THROES


def _entries(ledger: Ledger, snapshot: Snapshot, now: float, wanted: Wanted) -> dict[GuestPort, Entry]:
    entries = {}
    elapsed = max(0.0, now - ledger.at)
    for guest in snapshot.guests.values():
        for controller in guest.controllers:
            for port, busid in controller.ports.items():
                if busid is None:
                    continue
                spot = GuestPort(guest.domid, controller.id, port)
                known = ledger.entries.get(spot)
                if known is None or known.busid != busid:
                    known = _adopt(guest, busid, snapshot, wanted)
                elif known.intent == INTERRUPTED:
                    known = replace(known, intent=None)
                elif known.intent is None:
                    known = _watch(known, guest, snapshot, elapsed)
                # A domain may be renamed; it is by its name that a policy means it.
                entries[spot] = known if known.guest == guest.name else replace(known, guest=guest.name)
    for spot, entry in ledger.entries.items():
        if (
            entry.intent == "attach"
            and spot not in entries
            and spot.domid in {g.domid for g in snapshot.guests.values()}
        ):
            entries[spot] = entry
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
    domids = {g.domid for g in snapshot.guests.values() if g.state in LIVE}
    found = {}
    for spot, entry in ledger.entries.items():
        device = snapshot.devices.get(entry.busid)
        if not entry.ours or entry.intent or spot in entries or spot.domid not in domids:
            continue
        if device and device.number == entry.number and not _stands(entries, entry):
            found[place(device)] = Override("detach", domid=spot.domid, at=now)
    return found


def _stands(entries: Mapping[GuestPort, Entry], entry: Entry) -> bool:
    return any(e.busid == entry.busid for e in entries.values())
