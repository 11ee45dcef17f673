"""What the agent must remember because no tool can tell it: a frozen value, kept on disk by shell/ledger.

The ledger never says what is attached (xenstore does); it says who did it, what was under way, which address a port's
device had, and what failed how often. `absorb` brings it into line with a new snapshot before anything is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from xenplug.core.model import BusId, Claim, Device, Guest, GuestPort, GuestState, Snapshot, Tag, Use

LIVE = (GuestState.RUNNING, GuestState.PAUSED)
"""States in which a guest can have devices."""

UNHELD_GRACE = 1.0
"""Seconds for which an attached device may be out of its guest's hands before it counts as lost: a guest that resets
the device lets go of it for a moment (xen-facts 3.2)."""

INTERRUPTED = "interrupted"
"""The intent of an act that the agent did not live to see the end of."""

DEATH_THROES = 30.0
"""A domain that goes within so many seconds after its ports fell empty emptied them itself: libxl takes every device
off before it takes the domain away (xen-facts 2.7)."""

BEGUN = 1e-6
"""Seconds at which a count begins: more than nothing, so that it is seen to have begun."""

STEADY = 60.0
"""Seconds an attached device must have been well for its earlier failures to be forgotten."""

REENUMERATION = 2.0
"""Seconds within which what appears where something left is taken for a re-enumeration, not for a person's replug."""

Place = str
"""A device's place and enumeration as one word, "1-4@6": what a replug ends."""


def place(device: Device) -> Place:
    """The word for this one enumeration of a device."""
    return f"{device.port}@{device.number}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One occupied guest port, foreign ones too."""

    guest: str
    busid: BusId
    bus: int
    number: int
    tag: Tag
    ours: bool
    intent: str | None = None
    """attach or detach while such an act is under way: begun, its result not yet recorded (or INTERRUPTED)."""
    waited: float = 0.0
    """Seconds the running guest had the chance to take the device; stands still while the guest is paused."""
    delivered: bool = False
    """The device was taken at some time since it was attached."""
    was_used: bool = False
    """The guest had configured it at some time since it was attached."""
    missing: float = 0.0
    """Seconds for which it has not been as it was (taken, or used) since."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Failures in a row of one act: its subject is a device in its place for one domain, or a domain's controller."""

    count: int
    cause: str
    text: str
    next_try: float
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Override:
    """What a person ordered for a device by hand; until it is unplugged, or `release`."""

    action: str
    """attach or detach."""
    guest: str | None = None
    domid: int | None = None
    """Not ordered but concluded: this domain's port was found empty, at the time `at`."""
    at: float = 0.0


def _empty() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything remembered. `at` is the monotonic time of the last absorb."""

    entries: Mapping[GuestPort, Entry] = field(default_factory=_empty)
    overrides: Mapping[Place, Override] = field(default_factory=_empty)
    homes: Mapping[Place, str] = field(default_factory=_empty)
    """The guest each device was last with, until that has been gone for longer than a reboot takes."""
    arrived: Mapping[Place, float] = field(default_factory=_empty)
    """When each device came, counted only for one that came back where something had just left (a re-enumeration);
    0 for all others."""
    left: Mapping[BusId, float] = field(default_factory=_empty)
    """When a place fell empty, for as long as what comes there may be the same device come back."""
    gone: Mapping[str, float] = field(default_factory=_empty)
    """Guests that went away, and when, until they run again."""
    born: Mapping[int, float] = field(default_factory=_empty)
    """When each domain was first seen running."""
    made: Mapping[int, int] = field(default_factory=_empty)
    """How many guest controllers the agent made for each domain."""
    built: Mapping[int, float] = field(default_factory=_empty)
    """When the agent last made one for it."""
    troubles: Mapping[str, Trouble] = field(default_factory=_empty)
    in_use: Mapping[Place, frozenset[Use]] = field(default_factory=_empty)
    """What dom0 used devices for at some time since they were plugged: they are protected until unplug, so that a
    stick does not jump to a guest at umount."""
    blocked: frozenset[Place] = frozenset()
    """Devices the agent deauthorised."""
    healed: frozenset[str] = frozenset()
    """Attachments (subject) already healed once after they fell out of use."""
    at: float = 0.0


def subject(device: Device, domid: int) -> str:
    """The key of a device's troubles with one domain."""
    return f"{place(device)}>{domid}"


def detach_subject(device: Device, domid: int) -> str:
    """The key of the troubles with taking a device off a domain."""
    return f"-{place(device)}>{domid}"


def authorize_subject(device: Device) -> str:
    """The key of the tries to write a device's `authorized`; dom0's own matter."""
    return f"={place(device)}>0"


def about(key: str) -> str:
    """What a key of troubles is about: a device's place, or `controller`."""
    return key.partition(">")[0].lstrip("-=")


def controller_subject(domid: int) -> str:
    """The key of a domain's troubles with making a controller."""
    return f"controller>{domid}"


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
    return replace(
        ledger,
        entries=entries,
        arrived=_arrived(ledger, snapshot, now, left),
        left=left,
        overrides=kept,
        homes={p: g for p, g in ledger.homes.items() if p in places and g in homes}
        | {f"{e.busid}@{e.number}": e.guest for e in entries.values() if e.ours},
        gone=gone,
        born={
            d: ledger.born.get(d, now)
            for d, g in domids.items()
            if g.state is not GuestState.STARTING or d in ledger.born
        },
        made={d: n for d, n in ledger.made.items() if d in domids},
        built={d: at for d, at in ledger.built.items() if d in domids},
        troubles={k: t for k, t in ledger.troubles.items() if _alive(k, places, domids) and k not in steady},
        in_use=_uses(ledger, snapshot),
        blocked=ledger.blocked & places,
        healed=frozenset(k for k in ledger.healed if _alive(k, places, domids)),
        at=now,
    )


def _alive(key: str, places: set[str], domids: Mapping[int, Guest]) -> bool:
    domid = int(key.partition(">")[2])
    return (domid == 0 or domid in domids) and (about(key) == "controller" or about(key) in places)


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


def is_coming(ledger: Ledger, guest: Guest) -> bool:
    """The guest is being created. A domain that has run and seems to be starting is on its way out: libxl's userdata
    goes before the domain does.
    """
    return guest.state is GuestState.STARTING and guest.domid not in ledger.born


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
                entries[spot] = known
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
    domids = {g.domid for g in snapshot.guests.values()}
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


def lost(entry: Entry) -> bool:
    """A delivered device is out of its guest's hands for longer than a reset takes (design law 3)."""
    return entry.missing > UNHELD_GRACE


def begin(ledger: Ledger, spot: GuestPort, entry: Entry) -> Ledger:
    """Note the intent of an act on a guest port, before it is done."""
    return replace(ledger, entries={**ledger.entries, spot: entry})


def forget(ledger: Ledger, spot: GuestPort) -> Ledger:
    """Drop what is known of a guest port: it was cleared, or its attach did not happen."""
    return replace(ledger, entries={s: e for s, e in ledger.entries.items() if s != spot})


def settle(ledger: Ledger, spot: GuestPort) -> Ledger:
    """Note that the act on a guest port ended; what came of it shows in xenstore."""
    entry = ledger.entries.get(spot)
    if entry is None:
        return ledger
    return replace(ledger, entries={**ledger.entries, spot: replace(entry, intent=None)})


@dataclass(frozen=True, slots=True)
class Backoff:
    """When to try again: 1, 2, 4 … `most` seconds, `tries` in all."""

    first: float = 1.0
    most: float = 60.0
    tries: int = 8


def fail(ledger: Ledger, key: str, why: tuple[str, str], now: float, backoff: Backoff) -> Ledger:
    """Note one more failure of an act; `why` is its cause and the tool's own words."""
    count = ledger.troubles[key].count + 1 if key in ledger.troubles else 1
    delay = min(backoff.first * 2 ** (count - 1), backoff.most)
    trouble = Trouble(count, why[0], why[1], now + delay, given_up=count >= backoff.tries)
    return replace(ledger, troubles={**ledger.troubles, key: trouble})


def clear_troubles(ledger: Ledger, which: Callable[[str], bool]) -> Ledger:
    """Forget the failures of the subjects `which` says yes to."""
    return replace(ledger, troubles={k: t for k, t in ledger.troubles.items() if not which(k)})
