"""A person's orders: manual overrides for one device, what to leave alone (pause), which guest comes first (prefer).

They are kept in the ledger until they are taken back or dom0 reboots. A pause is of everything, of a guest or of a
port, whatever is plugged in there: a device that changes its address while its firmware is written stays paused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from xenplug.core.ledger.ledger import Ledger, clear_troubles, with_device
from xenplug.core.ledger.records import Override
from xenplug.core.model import BusId, Device, DeviceKey

ALL = "all"


def order(ledger: Ledger, key: DeviceKey, override: Override) -> Ledger:
    """Put a manual override in force. Earlier failures of the device do not count against it."""
    orders = replace(ledger.orders, overrides={**ledger.orders.overrides, key: override})
    return clear_troubles(replace(ledger, orders=orders), lambda trouble: trouble.device == key)


def release(ledger: Ledger, device: Device) -> Ledger:
    """Forget a device's manual override, its failures, and what dom0 used it for: the rules decide again."""
    overrides = {key: override for key, override in ledger.orders.overrides.items() if key != device.key}
    freed = replace(ledger, orders=replace(ledger.orders, overrides=overrides))
    if device.key in freed.devices:
        freed = with_device(freed, device.key, in_use=frozenset())
    return clear_troubles(freed, lambda trouble: trouble.concerns(device))


def paused(ledger: Ledger, port: BusId, guest: str | None) -> bool:
    """Whether nothing is done about the device at this port, which is with this guest."""
    return bool(ledger.orders.paused & {("all", ALL), ("port", port), ("guest", guest)})


def guest_paused(ledger: Ledger, guest: str) -> bool:
    """Whether nothing is attached to this guest."""
    return ("guest", guest) in ledger.orders.paused


def pause(ledger: Ledger, kind: str, name: str) -> Ledger:
    """Leave alone from now on. `kind` is all, guest or port."""
    return _with_paused(ledger, ledger.orders.paused | {(kind, name)})


def resume(ledger: Ledger, kind: str, name: str) -> Ledger:
    """End a pause; to end that of all ends every one."""
    return _with_paused(ledger, frozenset() if kind == ALL else ledger.orders.paused - {(kind, name)})


def _with_paused(ledger: Ledger, paused: frozenset[tuple[str, str]]) -> Ledger:
    return replace(ledger, orders=replace(ledger.orders, paused=paused))


def paused_names(ledger: Ledger) -> list[str]:
    """What is paused, as a person would name it."""
    return sorted(name for _kind, name in ledger.orders.paused)


def prefer(ledger: Ledger, guest: str | None) -> Ledger:
    """Give a guest priority in every list that names it; None: no guest."""
    return replace(ledger, orders=replace(ledger.orders, preferred=guest))


def preferred(ledger: Ledger, guests: Iterable[str]) -> tuple[str, ...]:
    """A list of guests with the preferred one, if it is in the list, moved to the front."""
    listed = tuple(guests)
    first = ledger.orders.preferred
    return listed if first not in listed else (first, *(name for name in listed if name != first))
