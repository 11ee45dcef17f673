"""What the agent left for itself: a ledger that somebody, or a dying disk, has changed."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tests.core.make import AT_KIOSK, FREE, MOUSE, NOW, absorbed, snapshot

from xenplug.adapters.ledger import UNREADABLE
from xenplug.core.ledger.ledger import Override
from xenplug.core.ledger.serialize import from_json, to_json

TOKENS = [b"null", b"true", b"-1", b"1e999", b"NaN", b'"1-1@5"', b"[]", b"{}", b'"attach"', b"9" * 5000, b"[" * 2000]


def seeds() -> Iterable[bytes]:
    """Ledgers as they are kept."""
    order = {"1-1@5": Override("attach", "kiosk"), "1-2@6": Override("detach", domid=3, at=1.0)}
    for ledger in (AT_KIOSK, absorbed(snapshot(MOUSE, FREE))):
        yield json.dumps(to_json(ledger)).encode()
    yield json.dumps(
        to_json(AT_KIOSK) | {"overrides": {p: [o.action, o.guest, o.domid, o.at] for p, o in order.items()}}
    ).encode()


def read(data: bytes) -> None:
    """Read as the keeper does; what is taken must serve for a look."""
    try:
        ledger = from_json(json.loads(data), NOW)
    except UNREADABLE:
        return
    absorbed(snapshot(MOUSE, FREE), before=ledger)
