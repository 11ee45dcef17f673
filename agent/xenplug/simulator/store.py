"""xenstored and one connection to it.

StoreTree is the daemon with its nodes, watches and live domains; the simulated xl, device models and guests work on it
directly. SimStore is the agent's connection (Store in core/protocols), which can be lost.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from xenplug.core.protocols import StoreLost
from xenplug.simulator.loop import soon

ALLOWED = re.compile(r"(?:@[A-Za-z]+|/|(?:/[A-Za-z0-9_@-]+)+)\Z")
"""What xenstored accepts as a path; anything else is EINVAL."""
INTRODUCE = "@introduceDomain"
RELEASE = "@releaseDomain"
WatchCallback = Callable[[str], None]


@dataclass(slots=True)
class _Node:
    value: str = ""
    children: dict[str, _Node] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Watch:
    """A registered watch. `live` becomes False at unwatch, so that pending events are dropped."""

    path: str
    fired: WatchCallback
    live: bool = True

    def send(self, path: str) -> None:
        soon(self._deliver, path)

    def _deliver(self, path: str) -> None:
        if self.live:
            self.fired(path)


class StoreTree:
    """xenstored: nodes, watches, introduced domains. Every call is one atomic request."""

    def __init__(self) -> None:
        self._root = _Node()
        self._watches: list[Watch] = []
        self.domains: set[int] = {0}
        """The domains that xenstored knows to be alive."""

    def read(self, path: str) -> str | None:
        node = self._find(path)
        return None if node is None else node.value

    def directory(self, path: str) -> list[str]:
        node = self._find(path)
        return [] if node is None else list(node.children)

    def write(self, path: str, value: str) -> None:
        node = self._root
        for name in _names(path):
            node = node.children.setdefault(name, _Node())
        node.value = value
        self._fire(path)

    def remove(self, path: str) -> None:
        """Remove the node and all below it; watches below fire too, as in xenstored."""
        names = _names(path)
        parent = self._find("/" + "/".join(names[:-1])) if names else None
        if parent is None or names[-1] not in parent.children:
            return
        gone = [path, *(f"{path}/{below}" for below in _below(parent.children[names[-1]]))]
        del parent.children[names[-1]]
        self._fire(path)
        for watch in self._watches:
            if watch.path in gone[1:]:
                watch.send(watch.path)

    def items(self, path: str) -> dict[str, str]:
        """Every node at and below the path, with its value."""
        node = self._find(path)
        if node is None:
            return {}
        base = "" if path == "/" else path
        return {path: node.value} | {f"{base}/{below}": self.read(f"{base}/{below}") or "" for below in _below(node)}

    def watch(self, path: str, fired: WatchCallback) -> Watch:
        """Fires once at registration."""
        if not ALLOWED.match(path):
            raise ValueError(f"{path!r}: xenstored does not accept this path (EINVAL)")
        watch = Watch(path, fired)
        self._watches.append(watch)
        watch.send(path)
        return watch

    def unwatch(self, watch: Watch) -> None:
        watch.live = False
        if watch in self._watches:
            self._watches.remove(watch)

    def introduce(self, domid: int) -> None:
        self.domains.add(domid)
        self._fire(INTRODUCE)

    def release(self, domid: int) -> None:
        """The domain is destroyed."""
        self.domains.discard(domid)
        self._fire(RELEASE)

    def shut_down(self) -> None:
        """Some domain shut down or crashed: the same event as for its end, and it names no domain (xen-facts T25)."""
        self._fire(RELEASE)

    def _find(self, path: str) -> _Node | None:
        node: _Node | None = self._root
        for name in _names(path):
            node = node.children.get(name) if node else None
        return node

    def _fire(self, path: str) -> None:
        for watch in self._watches:
            if watch.path == path or path.startswith(watch.path.rstrip("/") + "/"):
                watch.send(path)


def _names(path: str) -> list[str]:
    if not ALLOWED.match(path):
        raise ValueError(f"{path!r}: xenstored does not accept this path (EINVAL)")
    return [name for name in path.split("/") if name]


def _below(node: _Node) -> Iterator[str]:
    for name, child in node.children.items():
        yield name
        for deeper in _below(child):
            yield f"{name}/{deeper}"


class SimStore:
    """The agent's connection to xenstored (Store in core/protocols), which behaves like Xenstore of
    adapters/xenstore.py.

    Each call lets other tasks run, as a socket would. `lost` is called when an open connection breaks.
    """

    def __init__(self, tree: StoreTree, lost: Callable[[], None] = lambda: None) -> None:
        self.tree = tree
        self.lost = lost
        self.connected = True
        self.refuses = False
        """Whether xenstored accepts no connections either: then connect raises StoreLost."""
        self.changes: list[tuple[str, str | None]] = []
        """The writes through this connection: path and value, None for a removal."""
        self._watches: dict[str, Watch] = {}

    def lose(self) -> None:
        """The connection breaks: pending and later calls raise StoreLost until the next connect()."""
        if self.connected:
            self.close()
            soon(self.lost)

    def close(self) -> None:
        self.connected = False
        for watch in self._watches.values():
            self.tree.unwatch(watch)
        self._watches.clear()

    async def connect(self) -> None:
        """A new connection; it has no watches."""
        self.close()
        await asyncio.sleep(0)
        if self.refuses:
            raise StoreLost("xenstored accepts no connections")
        self.connected = True

    async def read(self, path: str) -> str | None:
        await self._turn()
        return self.tree.read(path)

    async def directory(self, path: str) -> list[str]:
        await self._turn()
        return self.tree.directory(path)

    async def write(self, path: str, value: str) -> None:
        await self._turn()
        self._write(path, value)

    async def remove(self, path: str) -> None:
        await self._turn()
        self.changes.append((path, None))
        self.tree.remove(path)

    async def replace(self, path: str, expected: str, value: str) -> bool:
        await self._turn()
        return self._replace(path, expected, value)

    def replace_at_once(self, path: str, expected: str, value: str) -> bool:
        return self.connected and self._replace(path, expected, value)

    async def introduced(self, domid: int) -> bool:
        await self._turn()
        return domid in self.tree.domains

    async def watch(self, path: str, fired: WatchCallback) -> None:
        await self._turn()
        if path in self._watches:
            self.tree.unwatch(self._watches.pop(path))
        self._watches[path] = self.tree.watch(path, fired)

    async def unwatch(self, path: str) -> None:
        await self._turn()
        if path in self._watches:
            self.tree.unwatch(self._watches.pop(path))

    def _replace(self, path: str, expected: str, value: str) -> bool:
        if self.tree.read(path) != expected:
            return False
        self._write(path, value)
        return True

    def _write(self, path: str, value: str) -> None:
        self.changes.append((path, value))
        self.tree.write(path, value)

    async def _turn(self) -> None:
        self._check()
        await asyncio.sleep(0)
        self._check()

    def _check(self) -> None:
        if not self.connected:
            raise StoreLost("the connection to xenstored is closed")
