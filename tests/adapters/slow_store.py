"""A store for the mirror's tests whose answers come late and out of step, and which can break."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from xenplug.adapters.xenstore import StoreError
from xenplug.core.protocols import StoreLost


class SlowStore:
    """A store whose answers take a while and come late: each tells of the moment the request was served."""

    def __init__(self, nodes: dict[str, str], domains: set[int], seed: int = 1) -> None:
        self.nodes: dict[str, str] = {}
        self.implied: set[str] = set()
        """Folders nobody wrote: they came with a node below them, and stay when it goes."""
        for path, value in nodes.items():
            self._make(path, value)
        self.domains = set(domains)
        self.watches: dict[str, Callable[[str], None]] = {}
        self.reads: Counter[str] = Counter()
        self.broken = False
        self.secret: set[str] = set()
        self.asked = asyncio.Event()
        self._random = random.Random(seed)

    async def _late(self) -> None:
        if self.broken:
            raise StoreLost("gone")
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)

    async def read(self, path: str) -> str | None:
        await self._late()
        self.reads[path] += 1
        if path in self.secret:
            raise StoreError("EACCES", path)
        value = self.nodes.get(path)
        await self._late()
        return value

    async def directory(self, path: str) -> list[str]:
        await self._late()
        if path in self.secret:
            raise StoreError("E2BIG", path)
        below = {p[len(path) + 1 :].split("/")[0] for p in self.nodes if p.startswith(path + "/")}
        await self._late()
        return sorted(below)

    async def introduced(self, domid: int) -> bool:
        await self._late()
        return domid in self.domains

    async def watch(self, path: str, fired: Callable[[str], None]) -> None:
        await self._late()
        self.watches[path] = fired
        fired(path)

    async def unwatch(self, path: str) -> None:
        await self._late()
        self.watches.pop(path, None)

    async def write(self, path: str, value: str) -> None:
        self.put(path, value)

    async def remove(self, path: str) -> None:
        self.put(path, None)

    async def replace(self, path: str, expected: str, value: str) -> bool:
        await self._late()
        fits = self.nodes.get(path) == expected
        if fits:
            self.put(path, value)
        return fits

    def put(self, path: str, value: str | None) -> None:
        """Change a node (None: remove it and all below) and fire, as xenstored does."""
        gone = [p for p in self.nodes if p == path or p.startswith(path + "/")] if value is None else []
        for each in gone:
            del self.nodes[each]
        if value is not None:
            self._make(path, value)
        for watched, fired in list(self.watches.items()):
            if path == watched or path.startswith(watched + "/"):
                fired(path)
            elif watched in gone:
                fired(watched)

    def _make(self, path: str, value: str) -> None:
        self.nodes[path] = value
        self.implied.discard(path)
        while path := path.rpartition("/")[0]:
            if path not in self.nodes:
                self.nodes[path] = ""
                self.implied.add(path)

    def domain(self, domid: int, lives: bool) -> None:
        (self.domains.add if lives else self.domains.discard)(domid)
        watch = "@introduceDomain" if lives else "@releaseDomain"
        self.watches[watch](watch)
