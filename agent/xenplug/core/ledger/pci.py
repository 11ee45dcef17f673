"""What the ledger remembers of whole host controllers: those the agent passed to guests, with which devices, and why.

Like the rest of the ledger it never says where a controller is (sysfs and xenstore do). `update_pci` brings it into
line with a snapshot; core/planning/pci_plan plans from both. The facts of devices that went with a controller are kept
here because dom0 cannot see them any more: status shows them, and a new policy is applied to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from xenplug.core.ledger.device_json import device_from_json, device_to_json
from xenplug.core.ledger.records import DOMAIN_END_TIME, no_items
from xenplug.core.model import (
    LIVE_STATES,
    PCIBACK,
    Bdf,
    BusId,
    Device,
    DeviceKey,
    Guest,
    PciController,
    Snapshot,
)

RETURN_GRACE = 20.0
"""Seconds for which a controller is kept for a guest that is gone. A rebooting guest has it in its configuration, and
libxl cannot make the new domain unless the controller is with pciback then."""


class PciIntent(StrEnum):
    """What is being done with a controller: noted before the act begins, removed when its result is known."""

    MAKE_ASSIGNABLE = "make assignable"
    ATTACH = "attach"
    DETACH = "detach"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class PassedController:
    """A controller that is with a guest, or on its way there or back, because the agent passed it."""

    guest: str
    driver: str
    """dom0's driver, to which it returns."""
    asker: BusId
    """The device that needed it passed."""
    devices: tuple[Device, ...]
    """Everything that was on it, hubs too."""
    since: float
    """When it was taken from dom0 (monotonic seconds)."""
    condition: str | None = None
    """The condition of the policy's `fallback` that was true; None if the rule says via: pci."""
    intent: PciIntent | None = None
    domid: int | None = None
    """The domain that was seen to have it."""
    guest_gone_since: float | None = None
    """Since when there is no domain of its guest's name."""


@dataclass(frozen=True, slots=True)
class StayOrder:
    """An order that a controller stays with the host, until it is released."""

    at: float = 0.0
    domid: int | None = None
    """Set if no person ordered it: it was concluded at the time `at`, because this domain had lost the controller."""


@dataclass(frozen=True, slots=True)
class PciLedger:
    """Everything remembered about controllers."""

    passed: Mapping[Bdf, PassedController] = field(default_factory=no_items)
    stay_orders: Mapping[Bdf, StayOrder] = field(default_factory=no_items)
    asked: Mapping[DeviceKey, float] = field(default_factory=no_items)
    """Devices for which a condition of their fallback holds, and since when."""
    caps: frozenset[str] | None = None
    """`virt_caps` of `xl info`; None: not asked yet."""
    open: Mapping[int, bool | None] = field(default_factory=no_items)
    """By domid: whether the guest was made to take PCI devices; None: xl does not say."""


def holder(snapshot: Snapshot, bdf: Bdf) -> Guest | None:
    """The guest that has the controller, according to xenstore."""
    return next((guest for guest in snapshot.guests.values() if bdf in guest.pci), None)


def driven_by_dom0(controller: PciController) -> bool:
    """Whether a driver of dom0 is bound to it."""
    return controller.driver not in (None, PCIBACK)


def update_pci(pci: PciLedger, snapshot: Snapshot, now: float) -> PciLedger:
    """The record brought into line with a snapshot."""
    domids = {guest.domid: guest for guest in snapshot.guests.values()}
    passed = _passed(pci, snapshot, now)
    return replace(
        pci,
        passed=passed,
        stay_orders=_concluded(passed, snapshot, now) | _stay_orders(pci, snapshot, domids, now),
        # A new domain may have been made with another passthrough setting: xl is asked again.
        open={domid: answer for domid, answer in pci.open.items() if domid in domids},
    )


def _passed(pci: PciLedger, snapshot: Snapshot, now: float) -> dict[Bdf, PassedController]:
    """Without those that are with dom0 again or with another guest. During an act of ours nothing is concluded: what
    the snapshot shows then is halfway.
    """
    there = {controller.bdf: controller for controller in snapshot.controllers}
    seen = {
        bdf: entry if entry.intent else _seen(bdf, entry, there.get(bdf), snapshot, now)
        for bdf, entry in pci.passed.items()
    }
    return {bdf: entry for bdf, entry in seen.items() if entry is not None}


def _stay_orders(pci: PciLedger, snapshot: Snapshot, domids: Mapping[int, Guest], now: float) -> dict[Bdf, StayOrder]:
    """Kept until they are released, but for conclusions that turned out wrong."""
    there = {controller.bdf for controller in snapshot.controllers}
    return {
        bdf: order for bdf, order in pci.stay_orders.items() if bdf in there and not _was_domain_end(order, domids, now)
    }


def _concluded(passed: Mapping[Bdf, PassedController], snapshot: Snapshot, now: float) -> dict[Bdf, StayOrder]:
    """A controller that a living guest was seen to have and has lost, with no act of ours under way, was detached by
    somebody at the console. That is respected like a manual override.
    """
    return {
        bdf: StayOrder(now, entry.domid)
        for bdf, entry in passed.items()
        if entry.intent is None and _dropped(entry, bdf, snapshot)
    }


def _was_domain_end(order: StayOrder, domids: Mapping[int, Guest], now: float) -> bool:
    """The conclusion was wrong: the domain was ending, and libxl detached the controller."""
    if order.domid is None or now - order.at > DOMAIN_END_TIME:
        return False
    return order.domid not in domids or domids[order.domid].state not in LIVE_STATES


def _seen(
    bdf: Bdf, entry: PassedController, controller: PciController | None, snapshot: Snapshot, now: float
) -> PassedController | None:
    has = holder(snapshot, bdf)
    if controller is None or (has is None and driven_by_dom0(controller)) or (has and has.name != entry.guest):
        return None
    domid = has.domid if has else entry.domid
    guest_gone_since = (
        None if entry.guest in snapshot.guests else (now if entry.guest_gone_since is None else entry.guest_gone_since)
    )
    return replace(entry, domid=domid, guest_gone_since=guest_gone_since)


def _dropped(entry: PassedController, bdf: Bdf, snapshot: Snapshot) -> bool:
    guest = snapshot.guests.get(entry.guest)
    return guest is not None and guest.state in LIVE_STATES and guest.domid == entry.domid and bdf not in guest.pci


def with_passed(pci: PciLedger, bdf: Bdf, entry: PassedController | None) -> PciLedger:
    """Replace what is remembered of one controller; None: forget it."""
    others = {other: known for other, known in pci.passed.items() if other != bdf}
    return replace(pci, passed=others if entry is None else others | {bdf: entry})


def pci_to_json(pci: PciLedger) -> dict[str, Any]:
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
                # A detach that was cut short must not be taken for somebody else's (_concluded).
                "domid": None if entry.intent is PciIntent.DETACH else entry.domid,
            }
            for bdf, entry in pci.passed.items()
        },
        "kept": {bdf: [order.at, order.domid] for bdf, order in pci.stay_orders.items()},
    }


def pci_from_json(kept: Mapping[str, Any]) -> PciLedger:
    """What `pci_to_json` wrote. Raises KeyError, TypeError, ValueError or AttributeError if it is not that.

    Intents are not restored: sysfs and xenstore show how far an act got, and the plan continues from there.
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
        for bdf, item in kept["given"].items()
    }
    stay_orders = {
        Bdf(str(bdf)): StayOrder(float(at), None if domid is None else int(domid))
        for bdf, (at, domid) in kept["kept"].items()
    }
    return PciLedger(passed, stay_orders)
