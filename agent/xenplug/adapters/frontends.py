"""Follows the guests' side of their USB controllers in xenstore, and limits the load that a guest can cause there.

A guest may write anything below its device/vusb, as often as it wants, and xenstored sends the agent an event for each
write. adapters/mirror.py follows each domain with this module. Only the states of controllers that dom0 knows are read,
and the watch of a domain that sends too many events is removed for a while.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from xenplug.adapters.xenstore import StoreError
from xenplug.core.protocols import Store, StoreLost

FRONTENDS = "/local/domain/{}/device/vusb"
LOUD = 200
"""Maximum number of events of one domain within WINDOW. Eight controllers that connect send fewer than a hundred."""
WINDOW = 1.0
DEAF = 2.0
"""Seconds for which the events of a domain that sent more are ignored; afterwards its states are read."""

_FRONTEND = re.compile(r"/local/domain/[0-9]+/device/vusb/([0-9]{1,5})(?:/state)?\Z", re.A)
_KNOWN = re.compile(
    r"/(?:libxl/([0-9]+)/device/vusb|local/domain/0/backend/[qv]usb/([0-9]+))/([0-9]{1,5})(?:/|\Z)", re.A
)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Domain:
    """A domain that is followed."""

    controllers: set[int] = field(default_factory=set)
    since: float = 0.0
    """When the current window began."""
    events: int = 0
    deaf: asyncio.Task[None] | None = None
    """Set while its events are ignored."""

    def stop(self) -> None:
        if self.deaf:
            self.deaf.cancel()
        self.deaf = None


class Frontends:
    """Follows the frontends of domains. `stale` is called with each path that must be read again."""

    def __init__(self, store: Store, stale: Callable[[str], None]) -> None:
        self._store, self._stale = store, stale
        self._domains: dict[int, _Domain] = {}

    def reset(self) -> None:
        """The connection is new, and has no watches."""
        for domain in self._domains.values():
            domain.stop()

    def keep(self, domids: Collection[int]) -> None:
        """Forget all other domains, whose watches are gone."""
        self._domains = {domid: domain for domid, domain in self._domains.items() if domid in domids}

    async def follow(self, domid: int) -> None:
        """Set the watch. Raises StoreLost."""
        self._domains.setdefault(domid, _Domain())
        await self._listen(domid)

    async def forget(self, domid: int) -> None:
        """End the watch. Raises StoreLost."""
        domain = self._domains.pop(domid, None)
        if domain:
            domain.stop()
        await self._store.unwatch(FRONTENDS.format(domid))

    def states(self, domid: int) -> list[str]:
        """The paths that are read: the state of each controller that dom0 knows of this domain."""
        domain = self._domains.get(domid)
        return [_state(domid, number) for number in sorted(domain.controllers)] if domain else []

    def note(self, path: str) -> None:
        """dom0 wrote a node: it may belong to a controller that was not known yet."""
        found = _KNOWN.match(path)
        domain = self._domains.get(int(found[1] or found[2])) if found else None
        if found and domain and int(found[3]) not in domain.controllers:
            domain.controllers.add(int(found[3]))
            self._stale(_state(int(found[1] or found[2]), int(found[3])))

    async def _listen(self, domid: int) -> None:
        await self._store.watch(FRONTENDS.format(domid), partial(self._fired, domid))

    def _fired(self, domid: int, path: str) -> None:
        domain = self._domains.get(domid)
        if domain is None or domain.deaf:
            return
        if self._loud(domain):
            domain.deaf = asyncio.get_running_loop().create_task(self._ignore(domid, domain))
        elif path == FRONTENDS.format(domid):
            self._stale(path)
        elif (found := _FRONTEND.match(path)) and int(found[1]) in domain.controllers:
            self._stale(_state(domid, int(found[1])))

    def _loud(self, domain: _Domain) -> bool:
        now = asyncio.get_running_loop().time()
        if now - domain.since > WINDOW:
            domain.since, domain.events = now, 0
        domain.events += 1
        return domain.events > LOUD

    async def _ignore(self, domid: int, domain: _Domain) -> None:
        log.info("domain %d writes too often below its device/vusb; its events are ignored for %g s", domid, DEAF)
        with suppress(StoreLost, StoreError):  # lost: everything is set up again after the next connect
            await self._store.unwatch(FRONTENDS.format(domid))
            await asyncio.sleep(DEAF)
            domain.deaf, domain.events = None, 0
            await self._listen(domid)  # the new watch fires at once, so the states are read


def _state(domid: int, controller: int) -> str:
    return f"{FRONTENDS.format(domid)}/{controller}/state"
