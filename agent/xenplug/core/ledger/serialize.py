"""What of the ledger must survive a restart of the agent, as JSON, and the way back; adapters/ledger keeps it on disk.

The keys of the JSON are older than the names of the fields and stay, so that an agent can be replaced while guests run:
homes is last_guest, born first_running, made controllers_made, built last_made_at, opened released_to_dom0, trails
follow_until, and pci's given and kept are passed and stay_orders. There is one map for each field, not one for each
record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.pci import PciLedger, pci_from_json, pci_to_json
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
from xenplug.core.model import BusId, DeviceKey, GuestPort, Tag, Use

Json = Mapping[str, Any]


def to_json(ledger: Ledger) -> dict[str, Any]:
    """What must survive a restart of the agent, as JSON; the rest is seen again or may be tried again."""
    return {
        "entries": [_entry_to_json(guest_port, entry) for guest_port, entry in ledger.entries.items()],
        **_devices_to_json(ledger.devices),
        **_domains_to_json(ledger.domains),
        **_orders_to_json(ledger.orders),
        "leftovers": [[o.domid, o.bus, o.number] for o in sorted(ledger.leftovers)],
        "pci": pci_to_json(ledger.pci),
        "followed": {str(key): rule for key, rule in ledger.followed.items()},
        "follow_ends": {str(key): until for key, until in ledger.follow_ends.items()},
        "trails": {port: list(trail) for port, trail in ledger.follow_until.items()},
    }


def from_json(kept: Json, now: float) -> Ledger:
    """The ledger that `to_json` wrote. Raises KeyError, TypeError, ValueError or AttributeError if it is not that."""
    trails = kept.get("trails", {})
    return Ledger(
        entries=dict(_entry_from_json(item) for item in kept["entries"]),
        devices=_devices_from_json(kept),
        domains=_domains_from_json(kept),
        orders=_orders_from_json(kept),
        leftovers=frozenset(Leftover(*map(int, o)) for o in kept["leftovers"]),
        pci=pci_from_json(kept.get("pci", pci_to_json(PciLedger()))),
        followed={DeviceKey.parse(key): str(rule) for key, rule in kept.get("followed", {}).items()},
        follow_ends={DeviceKey.parse(key): float(until) for key, until in kept.get("follow_ends", {}).items()},
        follow_until={BusId(str(port)): (str(rule), float(until)) for port, (rule, until) in trails.items()},
        at=now,
    )


def _entry_to_json(guest_port: GuestPort, entry: Entry) -> dict[str, Any]:
    return {
        "domid": guest_port.domid,
        "controller": guest_port.controller,
        "port": guest_port.port,
        "guest": entry.guest,
        "busid": entry.busid,
        "bus": entry.bus,
        "number": entry.number,
        "tag": entry.tag,
        "ours": entry.ours,
        "intent": entry.intent and str(entry.intent),
        "delivered": entry.delivered,
        "was_used": entry.was_used,
    }


def _entry_from_json(item: Json) -> tuple[GuestPort, Entry]:
    """An act whose intent was noted but not its result was interrupted, and xenstore shows how it ended: an attach that
    is not there did not happen, nor did a detach whose device is still there. Neither counts as somebody else's act.
    """
    guest_port = GuestPort(int(item["domid"]), int(item["controller"]), int(item["port"]))
    entry = Entry(
        str(item["guest"]),
        BusId(str(item["busid"])),
        int(item["bus"]),
        int(item["number"]),
        Tag(str(item["tag"])),
        ours=bool(item["ours"]),
        intent=Intent.INTERRUPTED if item["intent"] else None,
        delivered=bool(item["delivered"]),
        was_used=bool(item["was_used"]),
    )
    return guest_port, entry


def _devices_to_json(devices: Mapping[DeviceKey, DeviceRecord]) -> dict[str, Any]:
    items = [(str(key), record) for key, record in devices.items()]
    return {
        "homes": {key: record.last_guest for key, record in items if record.last_guest is not None},
        "in_use": {key: sorted(record.in_use) for key, record in items if record.in_use},
        "blocked": sorted(key for key, record in items if record.blocked),
        "opened": sorted(key for key, record in items if record.released_to_dom0),
    }


def _devices_from_json(kept: Json) -> dict[DeviceKey, DeviceRecord]:
    parse = DeviceKey.parse
    last_guest = {parse(key): str(guest) for key, guest in kept["homes"].items()}
    in_use = {parse(key): frozenset(map(Use, uses)) for key, uses in kept["in_use"].items()}
    blocked, released = frozenset(map(parse, kept["blocked"])), frozenset(map(parse, kept.get("opened", ())))
    return {
        key: DeviceRecord(
            last_guest=last_guest.get(key),
            in_use=in_use.get(key, frozenset()),
            blocked=key in blocked,
            released_to_dom0=key in released,
        )
        for key in sorted({*last_guest, *in_use, *blocked, *released})
    }


def _domains_to_json(domains: Mapping[int, DomainRecord]) -> dict[str, Any]:
    items = [(str(domid), record) for domid, record in domains.items()]
    return {
        "born": {domid: record.first_running for domid, record in items if record.first_running is not None},
        "made": {domid: sorted(record.controllers_made) for domid, record in items if record.controllers_made},
        "built": {domid: record.last_made_at for domid, record in items if record.last_made_at is not None},
    }


def _domains_from_json(kept: Json) -> dict[int, DomainRecord]:
    first_running = {int(domid): float(at) for domid, at in kept["born"].items()}
    controllers_made = {int(domid): frozenset(map(int, ids)) for domid, ids in kept["made"].items()}
    last_made_at = {int(domid): float(at) for domid, at in kept["built"].items()}
    return {
        domid: DomainRecord(
            first_running=first_running.get(domid),
            controllers_made=controllers_made.get(domid, frozenset()),
            last_made_at=last_made_at.get(domid),
        )
        for domid in sorted({*first_running, *controllers_made, *last_made_at})
    }


def _orders_to_json(orders: Orders) -> dict[str, Any]:
    return {
        "overrides": {str(key): [str(o.action), o.guest, o.domid, o.at, o.back] for key, o in orders.overrides.items()},
        "paused": sorted([str(pause.scope), pause.name] for pause in orders.paused),
        "preferred": orders.preferred,
    }


def _orders_from_json(kept: Json) -> Orders:
    return Orders(
        overrides={DeviceKey.parse(key): _override(*order) for key, order in kept["overrides"].items()},
        paused=frozenset(Pause(PauseScope(scope), str(name)) for scope, name in kept["paused"]),
        preferred=None if kept["preferred"] is None else str(kept["preferred"]),
    )


def _override(action: str, guest: object, domid: Any, at: Any, back: object) -> Override:
    of_domain = None if domid is None else int(domid)
    return Override(
        OrderAction(action), str(guest) if guest else None, of_domain, float(at), str(back) if back else None
    )
