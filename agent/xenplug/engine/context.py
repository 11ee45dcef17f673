"""What steps work with: the backends, and the ledger, which is saved at every change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
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
"""Seconds between attempts to read the result of a step while the connection to xenstore is lost."""


log = logging.getLogger("xenplug")

STOP_TIMEOUT = 30.0
"""Maximum seconds that running steps have to end when the agent stops: a step that waits for a lost xenstore would
never end."""


class LedgerStore(Protocol):
    """Where the ledger is stored so that it survives restarts."""

    def load(self) -> Ledger:
        """The saved ledger; an empty one, with a log message, if none can be read."""

    def save(self, ledger: Ledger) -> None:
        """Save it. Never raises: a failure is logged, and xenstore still knows what is attached."""


@dataclass(slots=True)
class LedgerWriter:
    """The ledger in use: every change is made through it, and saved before the step that it announces."""

    ledger_store: LedgerStore
    ledger: Ledger
    _saved: dict[str, Any] | None = None
    """What was saved last. It is compared in every round, so it is not computed again each time."""

    def set(self, ledger: Ledger) -> None:
        """Use the new ledger; save it if anything changed that must survive a restart."""
        old, self.ledger = self.ledger, ledger
        if ledger is old:
            return
        before, self._saved = self._saved or to_json(old), to_json(ledger)
        if self._saved != before:
            self.ledger_store.save(ledger)


class DomainLocks:
    """One xl call at a time per domain: libxl loses devices if two calls overlap (xen-facts 2.10). Domid 0: calls that
    concern no guest.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        """Only locks that a call holds or waits for: every boot of a guest gets a new domid, so the others must go."""

    def __len__(self) -> int:
        """The number of domains with a call that runs or waits."""
        return len(self._locks)

    def __getitem__(self, domid: int) -> asyncio.Lock:
        lock = self._locks.get(domid)
        if lock is None:
            lock = self._locks[domid] = asyncio.Lock()
        return lock


@dataclass(frozen=True, slots=True)
class EngineContext:
    """The backends that the agent works with: real, simulated or of the bench."""

    bus: UsbBus
    store: Store
    mirror: Mirror
    domains: Domains
    xl: Xl
    clock: Clock
    domain_locks: DomainLocks = field(default_factory=DomainLocks)

    async def read_back(self, what: int | GuestPort) -> None:
        """Read the result of a call from xenstore, for a guest or for one of its ports. While xenstore cannot be
        reached, wait: the reconciler reconnects.
        """
        await retry_until_connected(lambda: self.mirror.sync(what))

    def guest(self, domid: int, name: str) -> Guest | None:
        """The guest as xenstore has it now; None if this domain is gone."""
        seen = read_guests(self.mirror.tree(), {domid}, lambda _domid, _uuid: True, {}).get(name)
        return seen if seen and seen.domid == domid else None


async def retry_until_connected(ask: Callable[[], Awaitable[object]]) -> None:
    """Repeat `ask` until it succeeds; while the connection is lost, try again every RETRY_INTERVAL."""
    while True:
        try:
            await ask()
            return
        except StoreLost:
            await asyncio.sleep(RETRY_INTERVAL)


async def wait_for_end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for the tasks to end, at most STOP_TIMEOUT seconds; then cancel those that still run."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=STOP_TIMEOUT)
    if late:
        log.warning("%d steps did not end within %.0f s and were cancelled", len(late), STOP_TIMEOUT)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
