"""What the ledger remembers of whole host controllers: those the agent gave away, with what went along, and why.

Like the rest of the ledger it never says where a controller is (sysfs and xenstore do). `absorb_pci` brings it into
line with a snapshot; core/planning/pci_plan plans from both. The facts of devices that went with a controller are kept here
because dom0 sees nothing of them any more: status shows them, and a new policy is tried on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from xenplug.core.model import PCIBACK, Bdf, BusId, Device, Guest, GuestState, PciController, Snapshot
from xenplug.core.ledger.device_json import device_from, device_record

LIVE = (GuestState.RUNNING, GuestState.PAUSED)

DEATH_THROES = 30.0
"""A domain that goes within so many seconds after it lost a controller did not have it taken off: libxl takes PCI
devices off before it takes the domain away (xen-facts 2.7)."""

GRACE = 20.0
"""Seconds for which a controller is kept for a guest that is gone. A rebooting guest has it in its configuration, and
libxl cannot make the new domain if it is not with pciback then."""


def _none() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Given:
    """A controller that is with a guest, or on its way there or back, by our doing."""

    guest: str
    driver: str
    """dom0's driver, which gets it back."""
    asker: BusId
    """The device for whose sake it went."""
    devices: tuple[Device, ...]
    """Everything that was on it, hubs too."""
    since: float
    """When it was taken from dom0 (monotonic seconds)."""
    condition: str | None = None
    """The condition of the policy's `fallback` that held; None where the rule says via: pci."""
    intent: str | None = None
    """What is being done with it now, begun and its end not yet noted."""
    domid: int | None = None
    """The domain that was seen to have it."""
    gone: float | None = None
    """Since when there is no domain of its guest's name."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An order that a controller stays with the host, until it is released."""

    at: float = 0.0
    domid: int | None = None
    """Not ordered but concluded at that time: this domain, which had it, has it no more."""


@dataclass(frozen=True, slots=True)
class PciBook:
    """All that is remembered of controllers."""

    given: Mapping[Bdf, Given] = field(default_factory=_none)
    kept: Mapping[Bdf, Kept] = field(default_factory=_none)
    asked: Mapping[str, float] = field(default_factory=_none)
    """Places of devices for which a condition of their fallback holds, and since when."""
    caps: frozenset[str] | None = None
    """`virt_caps` of `xl info`; None: not asked yet."""
    open: Mapping[int, bool | None] = field(default_factory=_none)
    """By domid: whether the guest was made to take PCI devices; None: xl does not tell."""


def holder(snapshot: Snapshot, bdf: Bdf) -> Guest | None:
    """The guest that has the controller, as xenstore says."""
    return next((guest for guest in snapshot.guests.values() if bdf in guest.pci), None)


def at_home(controller: PciController) -> bool:
    """dom0 drives it."""
    return controller.driver not in (None, PCIBACK)


def absorb_pci(book: PciBook, snapshot: Snapshot, now: float) -> PciBook:
    """The book brought into line with what is: nothing of controllers that are home again or with somebody else.

    One that a living guest was seen to have and has no more, with no act of ours under way, was taken off by somebody
    at the console: that is respected like an order by hand.
    """
    there = {controller.bdf: controller for controller in snapshot.controllers}
    domids = {guest.domid: guest for guest in snapshot.guests.values()}
    kept = {bdf: order for bdf, order in book.kept.items() if bdf in there and not _died(order, domids, now)}
    given = {}
    for bdf, entry in book.given.items():
        known = entry if entry.intent else _seen(bdf, entry, there.get(bdf), snapshot, now)
        if known is None:
            continue
        given[bdf] = known
        if known.intent is None and _dropped(known, bdf, snapshot):
            kept.setdefault(bdf, Kept(now, known.domid))
    opened = {domid: told for domid, told in book.open.items() if domid in domids}
    return replace(book, given=given, kept=kept, open=opened)


def _died(order: Kept, domids: Mapping[int, Guest], now: float) -> bool:
    """What was concluded was wrong: the domain was on its way out."""
    if order.domid is None or now - order.at > DEATH_THROES:
        return False
    return order.domid not in domids or domids[order.domid].state not in LIVE


def _seen(bdf: Bdf, entry: Given, controller: PciController | None, snapshot: Snapshot, now: float) -> Given | None:
    has = holder(snapshot, bdf)
    if controller is None or (has is None and at_home(controller)) or (has and has.name != entry.guest):
        return None
    domid = has.domid if has else entry.domid
    gone = None if entry.guest in snapshot.guests else (now if entry.gone is None else entry.gone)
    return replace(entry, domid=domid, gone=gone)


def _dropped(entry: Given, bdf: Bdf, snapshot: Snapshot) -> bool:
    guest = snapshot.guests.get(entry.guest)
    return guest is not None and guest.state in LIVE and guest.domid == entry.domid and bdf not in guest.pci


def note(book: PciBook, bdf: Bdf, entry: Given | None) -> PciBook:
    """The book with a new word on one controller; None: nothing more is to be known of it."""
    others = {other: known for other, known in book.given.items() if other != bdf}
    return replace(book, given=others if entry is None else others | {bdf: entry})


def lasting_pci(book: PciBook) -> dict[str, Any]:
    """What must survive a restart of the agent, as JSON; the rest is asked again."""
    return {
        "given": {
            bdf: {
                "guest": entry.guest,
                "driver": entry.driver,
                "asker": entry.asker,
                "devices": [device_record(device) for device in entry.devices],
                "since": entry.since,
                "condition": entry.condition,
                "domid": None if entry.intent == "take back" else entry.domid,
            }
            for bdf, entry in book.given.items()
        },
        "kept": {bdf: [order.at, order.domid] for bdf, order in book.kept.items()},
    }


def pci_from_lasting(kept: Mapping[str, Any]) -> PciBook:
    """The book from what `lasting_pci` gave; KeyError, TypeError, ValueError or AttributeError if it is not that.

    What was under way is not taken up from here: sysfs and xenstore tell how far it got, and the plan goes on there.
    """
    given = {
        Bdf(str(bdf)): Given(
            str(item["guest"]),
            str(item["driver"]),
            BusId(str(item["asker"])),
            tuple(map(device_from, item["devices"])),
            float(item["since"]),
            item["condition"] and str(item["condition"]),
            domid=None if item["domid"] is None else int(item["domid"]),
        )
        for bdf, item in kept["given"].items()
    }
    orders = {
        Bdf(str(bdf)): Kept(float(at), None if domid is None else int(domid))
        for bdf, (at, domid) in kept["kept"].items()
    }
    return PciBook(given, orders)
