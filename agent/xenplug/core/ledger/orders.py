"""What a person wishes of the agent as a whole: leave alone (pause), and whose lists come first (prefer).

Both are kept in the ledger until they are taken back or dom0 reboots. A pause is of everything, of a guest or of a
port, whatever is plugged in there: a device that changes its address while its firmware is written stays paused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.model import BusId

ALL = "all"


def paused(ledger: Ledger, port: BusId, guest: str | None) -> bool:
    """Whether nothing is done about the device at this port, which is with this guest."""
    return bool(ledger.paused & {("all", ALL), ("port", port), ("guest", guest)})


def guest_paused(ledger: Ledger, guest: str) -> bool:
    """Whether nothing is given to this guest."""
    return ("guest", guest) in ledger.paused


def pause(ledger: Ledger, kind: str, name: str) -> Ledger:
    """Leave alone from now on. `kind` is all, guest or port."""
    return replace(ledger, paused=ledger.paused | {(kind, name)})


def resume(ledger: Ledger, kind: str, name: str) -> Ledger:
    """The end of a pause; that of all ends every one."""
    return replace(ledger, paused=frozenset() if kind == ALL else ledger.paused - {(kind, name)})


def paused_names(ledger: Ledger) -> list[str]:
    """What is paused, as a person would name it."""
    return sorted(name for _kind, name in ledger.paused)


def preferred(ledger: Ledger, guests: Iterable[str]) -> tuple[str, ...]:
    """A list of guests, read as if the preferred one stood first in it."""
    listed = tuple(guests)
    first = ledger.preferred
    return listed if first not in listed else (first, *(name for name in listed if name != first))
