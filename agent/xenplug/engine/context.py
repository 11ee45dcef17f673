"""What acts are done with: the faces of the floor, and the ledger, which is kept at every change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakValueDictionary

from xenplug.adapters.mirror import Mirror
from xenplug.adapters.xl import Xl
from xenplug.core.guests import read_guests
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.serialize import to_json
from xenplug.core.model import Guest, GuestPort
from xenplug.core.protocols import Clock, Domains, Store, StoreLost, UsbBus

RETRY_INTERVAL = 1.0
"""Seconds between tries to read what came of an act while xenstore is lost."""


class LedgerStore(Protocol):
    """Where the ledger is kept over restarts."""

    def load(self) -> Ledger:
        """The ledger as it was kept; an empty one (with a word in the log) if there is none to read."""

    def save(self, ledger: Ledger) -> None:
        """Keep it. Never raises: what cannot be kept is logged, and xenstore still knows what is attached."""


@dataclass(slots=True)
class LedgerWriter:
    """The ledger in use: every change goes through here and is kept before the act it announces."""

    ledger_store: LedgerStore
    ledger: Ledger
    _kept: dict[str, Any] | None = None
    """What was kept last; compared with at every look, so not made anew each time."""

    def set(self, ledger: Ledger) -> None:
        """The new ledger, kept if what must survive a restart changed."""
        old, self.ledger = self.ledger, ledger
        if ledger is old:
            return
        before, self._kept = self._kept or to_json(old), to_json(ledger)
        if self._kept != before:
            self.ledger_store.save(ledger)


class DomainLocks:
    """One xl call at a time per domain: libxl loses devices when two meet (xen-facts 2.10). 0: calls for no guest."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        """Those that a call holds or waits for: domids go up with every boot of a guest."""

    def __len__(self) -> int:
        """How many domains have a lock: those with a call under way or waiting."""
        return len(self._locks)

    def __getitem__(self, domid: int) -> asyncio.Lock:
        lock = self._locks.get(domid)
        if lock is None:
            lock = self._locks[domid] = asyncio.Lock()
        return lock


@dataclass(frozen=True, slots=True)
class EngineContext:
    """The faces the agent works with: real, simulated or on the bench."""

    bus: UsbBus
    store: Store
    mirror: Mirror
    domains: Domains
    xl: Xl
    clock: Clock
    domain_locks: DomainLocks = field(default_factory=DomainLocks)

    async def read_back(self, what: int | GuestPort) -> None:
        """See what came of a call, for a guest or for one of its ports. While xenstore cannot be reached nobody knows:
        wait, the reconciler reconnects.
        """
        await retry_until_connected(lambda: self.mirror.sync(what))

    def guest(self, domid: int, name: str) -> Guest | None:
        """The guest as xenstore has it now; None if this domain is gone."""
        seen = read_guests(self.mirror.tree(), {domid}, lambda _domid, _uuid: True, {}).get(name)
        return seen if seen and seen.domid == domid else None


async def retry_until_connected(ask: Callable[[], Awaitable[object]]) -> None:
    """Until it has been done over a connection that holds."""
    while True:
        try:
            await ask()
            return
        except StoreLost:
            await asyncio.sleep(RETRY_INTERVAL)
