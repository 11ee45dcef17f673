"""A damaged ledger file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from tests.core.make import AT_KIOSK, FREE, MOUSE, NOW, absorbed, snapshot, to_guest_by_hand

from xenplug.adapters.ledger import UNREADABLE
from xenplug.core.ledger.records import OrderAction, Orders, Override
from xenplug.core.ledger.serialize import from_json, to_json
from xenplug.core.model import DeviceKey

TOKENS = [b"null", b"true", b"-1", b"1e999", b"NaN", b'"1-1@5"', b"[]", b"{}", b'"attach"', b"9" * 5000, b"[" * 2000]


def seeds() -> Iterable[bytes]:
    """Valid ledger files."""
    concluded = Override(OrderAction.DETACH, domid=3, at=1.0)
    orders = Orders({MOUSE.key: to_guest_by_hand("kiosk"), DeviceKey.parse("1-2@6"): concluded})
    for ledger in (AT_KIOSK, absorbed(snapshot(MOUSE, FREE)), replace(AT_KIOSK, orders=orders)):
        yield json.dumps(to_json(ledger)).encode()


def read(data: bytes) -> None:
    """Read it as the agent does; an accepted ledger must work in a round."""
    try:
        ledger = from_json(json.loads(data), NOW)
    except UNREADABLE:
        return
    absorbed(snapshot(MOUSE, FREE), before=ledger)
