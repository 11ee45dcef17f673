"""What the ledger remembers of whole host controllers: those the agent gave away, with what went along, and why.

Like the rest of the ledger it never says where a controller is (sysfs and xenstore do). `update_pci` brings it into
line with a snapshot; core/planning/pci_plan plans from both. The facts of devices that went with a controller are kept here
because dom0 sees nothing of them any more: status shows them, and a new policy is tried on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from xenplug.core.ledger.device_json import device_from_json, device_to_json
from xenplug.core.model import PCIBACK, Bdf, BusId, Device, Guest, GuestState, PciController, Snapshot

LIVE_STATES = (GuestState.RUNNING, GuestState.PAUSED)

DOMAIN_END_TIME = 30.0
"""A domain that goes within so many seconds after it lost a controller did not have it taken off: libxl takes PCI
devices off before it takes the domain away (xen-facts 2.7)."""

RETURN_GRACE = 20.0
"""Seconds for which a controller is kept for a guest that is gone. A rebooting guest has it in its configuration, and
libxl cannot make the new domain if it is not with pciback then."""


def _none() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PassedController:
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
    guest_gone_since: float | None = None
    """Since when there is no domain of its guest's name."""


@dataclass(frozen=True, slots=True)
class StayOrder:
    """An order that a controller stays with the host, until it is released."""

    at: float = 0.0
    domid: int | None = None
    """Not ordered but concluded at that time: this domain, which had it, has it no more."""


@dataclass(frozen=True, slots=True)
class PciLedger:
    """All that is remembered of controllers."""

    passed: Mapping[Bdf, PassedController] = field(default_factory=_none)
    stay_orders: Mapping[Bdf, StayOrder] = field(default_factory=_none)
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


def update_pci(book: PciLedger, snapshot: Snapshot, now: float) -> PciLedger:
    """The book brought into line with what is: nothing of controllers that are home again or with somebody else.

    One that a living guest was seen to have and has no more, with no act of ours under way, was taken off by somebody
    at the console: that is respected like an order by hand.
    """
    there = {controller.bdf: controller for controller in snapshot.controllers}
    domids = {guest.domid: guest for guest in snapshot.guests.values()}
    stay_orders = {
        bdf: order for bdf, order in book.stay_orders.items() if bdf in there and not _died(order, domids, now)
    }
    passed = {}
    for bdf, entry in book.passed.items():
        known = entry if entry.intent else _seen(bdf, entry, there.get(bdf), snapshot, now)
        if known is None:
            continue
        passed[bdf] = known
        if known.intent is None and _dropped(known, bdf, snapshot):
            stay_orders.setdefault(bdf, StayOrder(now, known.domid))
    opened = {domid: told for domid, told in book.open.items() if domid in domids}
    return replace(book, passed=passed, stay_orders=stay_orders, open=opened)


def _died(order: StayOrder, domids: Mapping[int, Guest], now: float) -> bool:
    """What was concluded was wrong: the domain was on its way out."""
    if order.domid is None or now - order.at > DOMAIN_END_TIME:
        return False
    return order.domid not in domids or domids[order.domid].state not in LIVE_STATES


def _seen(
    bdf: Bdf, entry: PassedController, controller: PciController | None, snapshot: Snapshot, now: float
) -> PassedController | None:
    has = holder(snapshot, bdf)
    if controller is None or (has is None and at_home(controller)) or (has and has.name != entry.guest):
        return None
    domid = has.domid if has else entry.domid
    guest_gone_since = (
        None if entry.guest in snapshot.guests else (now if entry.guest_gone_since is None else entry.guest_gone_since)
    )
    return replace(entry, domid=domid, guest_gone_since=guest_gone_since)


def _dropped(entry: PassedController, bdf: Bdf, snapshot: Snapshot) -> bool:
    guest = snapshot.guests.get(entry.guest)
    return guest is not None and guest.state in LIVE_STATES and guest.domid == entry.domid and bdf not in guest.pci


def note(book: PciLedger, bdf: Bdf, entry: PassedController | None) -> PciLedger:
    """The book with a new word on one controller; None: nothing more is to be known of it."""
    others = {other: known for other, known in book.passed.items() if other != bdf}
    return replace(book, passed=others if entry is None else others | {bdf: entry})


def pci_to_json(book: PciLedger) -> dict[str, Any]:
    """What must survive a restart of the agent, as JSON; the rest is asked again."""
    return {
        "given": {
            bdf: {
                "guest": entry.guest,
                "driver": entry.driver,
                "asker": entry.asker,
                "devices": [device_to_json(device) for device in entry.devices],
                "since": entry.since,
                "condition": entry.condition,
                "domid": None if entry.intent == "take back" else entry.domid,
            }
            for bdf, entry in book.passed.items()
        },
        "kept": {bdf: [order.at, order.domid] for bdf, order in book.stay_orders.items()},
    }


def pci_from_json(stay_orders: Mapping[str, Any]) -> PciLedger:
    """The book from what `pci_to_json` gave; KeyError, TypeError, ValueError or AttributeError if it is not that.

    What was under way is not taken up from here: sysfs and xenstore tell how far it got, and the plan goes on there.
    """
    passed = {
        Bdf(str(bdf)): PassedController(
            str(item["guest"]),
            str(item["driver"]),
            BusId(str(item["asker"])),
            tuple(map(device_from_json, item["devices"])),
            float(item["since"]),
            item["condition"] and str(item["condition"]),
            domid=None if item["domid"] is None else int(item["domid"]),
        )
        for bdf, item in stay_orders["given"].items()
    }
    orders = {
        Bdf(str(bdf)): StayOrder(float(at), None if domid is None else int(domid))
        for bdf, (at, domid) in stay_orders["kept"].items()
    }
    return PciLedger(passed, orders)
