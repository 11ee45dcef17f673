"""What of the ledger must survive a restart of the agent, as JSON, and the way back; adapters/ledger keeps it on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xenplug.core.ledger.ledger import INTERRUPTED, Entry, Ledger, Leftover, Override
from xenplug.core.ledger.pci import PciLedger, pci_from_json, pci_to_json
from xenplug.core.model import BusId, GuestPort, Tag, Use


def to_json(ledger: Ledger) -> dict[str, Any]:
    """What must survive a restart of the agent, as JSON; the rest is seen again or may be tried again."""
    return {
        "entries": [
            {
                "domid": guest_port.domid,
                "controller": guest_port.controller,
                "port": guest_port.port,
                "guest": e.guest,
                "busid": e.busid,
                "bus": e.bus,
                "number": e.number,
                "tag": e.tag,
                "ours": e.ours,
                "intent": e.intent,
                "delivered": e.delivered,
                "was_used": e.was_used,
            }
            for guest_port, e in ledger.entries.items()
        ],
        "overrides": {p: [o.action, o.guest, o.domid, o.at, o.back] for p, o in ledger.overrides.items()},
        "homes": dict(ledger.last_guest),
        "born": {str(domid): first_running for domid, first_running in ledger.first_running.items()},
        "made": {str(domid): sorted(ids) for domid, ids in ledger.controllers_made.items()},
        "built": {str(domid): at for domid, at in ledger.last_made_at.items()},
        "in_use": {p: sorted(uses) for p, uses in ledger.in_use.items()},
        "blocked": sorted(ledger.blocked),
        "paused": sorted(map(list, ledger.paused)),
        "preferred": ledger.preferred,
        "leftovers": [[o.domid, o.bus, o.number] for o in sorted(ledger.leftovers)],
        "pci": pci_to_json(ledger.pci),
        "opened": sorted(ledger.released_to_dom0),
        "followed": dict(ledger.followed),
        "follow_ends": dict(ledger.follow_ends),
        "trails": {port: list(trail) for port, trail in ledger.follow_until.items()},
    }


def from_json(kept: Mapping[str, Any], now: float) -> Ledger:
    """The ledger from what `to_json` gave. Raises KeyError, TypeError, ValueError or AttributeError if it is not that.

    An act whose intent was noted but not its result is left to xenstore to tell: an attach that is not there did not
    happen, a detach that is still there did not either; neither is taken for somebody else's doing.
    """
    entries = {}
    for item in kept["entries"]:
        guest_port = GuestPort(int(item["domid"]), int(item["controller"]), int(item["port"]))
        entries[guest_port] = Entry(
            str(item["guest"]),
            BusId(str(item["busid"])),
            int(item["bus"]),
            int(item["number"]),
            Tag(str(item["tag"])),
            ours=bool(item["ours"]),
            intent=item["intent"] and INTERRUPTED,
            delivered=bool(item["delivered"]),
            was_used=bool(item["was_used"]),
        )
    return Ledger(
        entries=entries,
        overrides={str(p): _override(*order) for p, order in kept["overrides"].items()},
        last_guest={str(p): str(g) for p, g in kept["homes"].items()},
        first_running={int(d): float(t) for d, t in kept["born"].items()},
        controllers_made={int(d): frozenset(map(int, ids)) for d, ids in kept["made"].items()},
        last_made_at={int(d): float(at) for d, at in kept["built"].items()},
        in_use={str(p): frozenset(map(Use, uses)) for p, uses in kept["in_use"].items()},
        blocked=frozenset(map(str, kept["blocked"])),
        paused=frozenset((str(kind), str(name)) for kind, name in kept["paused"]),
        preferred=None if kept["preferred"] is None else str(kept["preferred"]),
        leftovers=frozenset(Leftover(*map(int, o)) for o in kept["leftovers"]),
        pci=pci_from_json(kept.get("pci", pci_to_json(PciLedger()))),
        released_to_dom0=frozenset(map(str, kept.get("opened", ()))),
        followed={str(p): str(name) for p, name in kept.get("followed", {}).items()},
        follow_ends={str(p): float(until) for p, until in kept.get("follow_ends", {}).items()},
        follow_until={BusId(str(p)): (str(name), float(until)) for p, (name, until) in kept.get("trails", {}).items()},
        at=now,
    )


def _override(action: object, guest: object, domid: Any, at: Any, back: object) -> Override:
    here = None if domid is None else int(domid)
    return Override(str(action), str(guest) if guest else None, here, float(at), str(back) if back else None)
