"""A copy of the parts of xenstore that concern guests and USB, kept true by watches; nothing is polled.

xenstored -> watch events -> Mirror -> changed(domid) -> the reconciler reads tree() through core/guests.py. An event
only marks a path as stale. One worker reads what is stale, in passes: what changes while it reads marks its path again
and is read in a later pass, so no change is missed and no old value wins. A pass takes a few paths of each domain, and
whoever waits for a `sync` comes between two passes: writers that never rest hold nobody else up.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from xenplug.adapters.frontends import FRONTENDS, Frontends
from xenplug.adapters.xenstore import StoreError
from xenplug.core.guests import PortPlace, owner, port_path, port_place, type_path
from xenplug.core.model import ControllerType, GuestPort
from xenplug.core.protocols import Store, StoreLost

DOMAINS = "/local/domain"
COMINGS = ("@introduceDomain", "@releaseDomain")
"""They carry no domid and fire at registration and spuriously: each means "list the domains and compare" (T25)."""
LEAVES = (
    "/local/domain/{}/name",
    "/local/domain/{}/vm",
    "/local/domain/{}/target",
    "/local/domain/{}/image/device-model-pid",
    "/local/domain/{}/image/device-model-domid",
    "/libxl/{}/type",
)
TREES = (
    "/libxl/{}/device/vusb",
    "/local/domain/0/backend/qusb/{}",
    "/local/domain/0/backend/vusb/{}",
    "/local/domain/0/backend/pci/{}",
    "/local/domain/0/device-model/{}/backends",
)
SHARE = 16
"""Stale paths of one domain that one pass reads."""
DOMAINS_IN_PASS = 32
MANY = 256
"""Stale paths of one domain that are remembered one by one; if there are more, all of the domain is read."""
DEPTH = 4
"""Folders below a watched path that are looked into (the deepest: CONTROLLER/port/PORT)."""

_LEAF = re.compile(r"/(?:state|name|vm|target|type|device-model-(?:pid|domid)|usb-ver|num-ports|online|port/[0-9]+)\Z")
"""Nodes that are never folders: reading one is a single request."""
_FRONTENDS = re.compile(r"/local/domain/([0-9]+)/device/vusb\Z")
_IN_FRONTENDS = re.compile(r"/local/domain/[0-9]+/device/vusb(?:/|\Z)")


class Mirror:
    """The copy. `changed` is called after the tree is true again: with the domid concerned, with None when it may be
    all of them. It is called only where something really is another than before.
    """

    def __init__(self, store: Store, changed: Callable[[int | None], None] = lambda _domid: None) -> None:
        self._store = store
        self.changed = changed
        self._tree: dict[str, str] = {}
        self._holders: dict[str, dict[str, PortPlace]] = {}
        """Busid to the port paths that hold it, dead copies of libxl's included (told apart when asked)."""
        self._watched: set[int] = set()
        self._introduced: frozenset[int] = frozenset()
        self._stale: dict[int | None, dict[str, None]] = {}
        """Paths to be read again by domain, in the order they were marked; None: the list of domains."""
        self._frontends = Frontends(store, self._fired)
        self._touched: set[int] = set()
        self._loaded = False
        """All was read since the last connect began: only then does reading again prove anything."""
        self._reading = asyncio.Lock()
        self._worker: asyncio.Task[None] | None = None

    @property
    def introduced(self) -> frozenset[int]:
        """Domids that xenstored knows as live domains."""
        return self._introduced

    def tree(self) -> Mapping[str, str]:
        """Path to value, a live view. Folders are in it, most with the value ""."""
        return MappingProxyType(self._tree)

    @property
    def stale(self) -> int:
        """How many paths are to be read again; bounded for each domain."""
        return sum(map(len, self._stale.values()))

    def occupied(self, busid: str) -> list[tuple[GuestPort, str]]:
        """The guest ports that hold this busid now, each with the path of its live value."""
        held = self._holders.get(busid, {})
        return [(place.guest_port, path) for path, place in held.items() if self._live(place)]

    def alive(self, domid: int, name: str) -> bool:
        """The domain is a live one and goes by this name."""
        return domid in self._introduced and self._tree.get(f"/local/domain/{domid}/name") == name

    async def load(self) -> None:
        """Set all watches and read everything anew; to be called after every connect. Raises StoreLost."""
        async with self._reading:
            self._loaded = False
            self._stale.clear()
            self._watched.clear()
            self._frontends.reset()
            await asyncio.gather(*(self._store.watch(path, self._fired) for path in COMINGS))
            await self._everything()
            self._loaded = True
            self._touched.clear()
            self.changed(None)

    async def sync(self, what: int | GuestPort | None = None) -> None:
        """Read anew one guest (by its domid), one guest port or (None) everything, over the watches that stand. Raises
        StoreLost, also while a `load` that broke off has not been made good.

        What was changed before the call is in the tree after it. Reading is the only proof of that: oxenstored may
        answer a request before it sends the events of earlier changes.
        """
        async with self._reading:
            if not self._loaded:
                raise StoreLost("xenstore has not been read since the connection broke")
            if what is None:
                await self._everything()
            else:
                await self._read(_roots(what) if isinstance(what, int) else _homes(what))
            self._tell()

    async def _everything(self) -> None:
        await self._list_domains()
        await self._read(path for domid in self._watched for path in _roots(domid))

    def _fired(self, path: str) -> None:
        path = DOMAINS if path.startswith("@") else path
        domid = owner(path)
        if path != DOMAINS and domid not in self._watched:
            return
        paths = self._stale.setdefault(domid, {})
        paths[path] = None
        if domid is not None and len(paths) > MANY:
            self._stale[domid] = dict.fromkeys(_roots(domid))
        self._begin()

    def _begin(self) -> None:
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
            self._worker.add_done_callback(self._worked)

    async def _work(self) -> None:
        # The lock is left after each pass: it is handed on in order, so whoever waits for it comes before the next.
        while self._stale:
            async with self._reading:
                paths = self._next()
                if DOMAINS in paths:
                    paths += [path for domid in await self._list_domains() for path in _roots(domid)]
                await self._read(paths)
                self._tell()

    def _worked(self, worker: asyncio.Task[None]) -> None:
        self._worker = None
        if worker.cancelled() or isinstance(worker.exception(), StoreLost):
            return  # the store tells its owner, who connects and calls load
        if self._stale:
            self._begin()
        worker.result()

    def _tell(self) -> None:
        touched, self._touched = self._touched, set()
        for domid in sorted(touched):
            self.changed(domid)

    def _next(self) -> list[str]:
        """The paths of the next pass. They are no longer stale; a domain that has more goes to the end of the line."""
        taken: list[str] = []
        for domid in list(self._stale)[:DOMAINS_IN_PASS]:
            paths = list(self._stale.pop(domid))
            taken += paths[:SHARE]
            if paths[SHARE:]:
                self._stale[domid] = dict.fromkeys(paths[SHARE:])
        return taken

    async def _read(self, paths: Iterable[str]) -> None:
        """Read these paths once. The guests' own sides come last: dom0's tell which of them count."""
        wanted = [path for path in paths if owner(path) in self._watched]
        for theirs in (False, True):
            some = _topmost(path for path in wanted if bool(_IN_FRONTENDS.match(path)) is theirs)
            for path in some:
                self._no_longer_stale(path)
            fresh = await asyncio.gather(*map(self._fetch, some))
            for path, nodes in zip(some, fresh, strict=True):
                self._put(path, nodes)

    def _no_longer_stale(self, path: str) -> None:
        marked = self._stale.get(owner(path), {})
        for below in [other for other in marked if other == path or other.startswith(path + "/")]:
            del marked[below]

    async def _list_domains(self) -> set[int]:
        """Follow the domains there are; those that are new."""
        self._stale.pop(None, None)
        names = await self._store.directory(DOMAINS)
        domids = {int(name) for name in names if name.isascii() and name.isdigit() and len(name) <= 5} - {0}
        alive = await asyncio.gather(*map(self._store.introduced, sorted(domids)))
        introduced = frozenset(domid for domid, yes in zip(sorted(domids), alive, strict=True) if yes)
        self._touched |= introduced ^ self._introduced
        self._introduced = introduced
        for domid in self._watched - domids:
            await self._forget(domid)
        for path in [path for path in self._tree if owner(path) not in domids]:
            self._put(path, {})
        self._frontends.keep(domids)
        new = domids - self._watched
        for domid in sorted(new):
            await self._follow(domid)
        return new

    async def _follow(self, domid: int) -> None:
        self._watched.add(domid)
        watches = (self._store.watch(path, self._fired) for path in _dom0s(domid))
        await asyncio.gather(self._frontends.follow(domid), *watches)

    async def _forget(self, domid: int) -> None:
        self._watched.discard(domid)
        self._stale.pop(domid, None)
        await asyncio.gather(self._frontends.forget(domid), *(self._store.unwatch(path) for path in _dom0s(domid)))

    async def _fetch(self, path: str) -> dict[str, str]:
        """The node and what is below it; empty if it is not there."""
        nodes: dict[str, str] = {}
        if found := _FRONTENDS.match(path):
            states = self._frontends.states(int(found[1]))
            await asyncio.gather(*(self._fetch_below(state, nodes, 0) for state in states))
        else:
            await self._fetch_below(path, nodes, DEPTH)
        return nodes

    async def _fetch_below(self, path: str, nodes: dict[str, str], depth: int) -> None:
        names: list[str] = []
        if depth and not _LEAF.search(path):
            value, names = await asyncio.gather(self._value(path), self._names(path))
        else:
            value = await self._value(path)
        if value is None:
            return
        nodes[path] = value
        await asyncio.gather(*(self._fetch_below(f"{path}/{name}", nodes, depth - 1) for name in names))

    async def _value(self, path: str) -> str | None:
        """A node that xenstored will not show is none to us: one bad node must not stop the rest."""
        try:
            return await self._store.read(path)
        except (StoreError, ValueError):
            return None

    async def _names(self, path: str) -> list[str]:
        try:
            return await self._store.directory(path)
        except (StoreError, ValueError):
            return []

    def _put(self, path: str, nodes: Mapping[str, str]) -> None:
        """Make the tree at and below a path what was read there."""
        prefix = path + "/"
        here = (p for p in self._tree if p == path or p.startswith(prefix)) if not _LEAF.search(path) else (path,)
        for gone in [p for p in here if p in self._tree and p not in nodes]:
            self._set(gone, None)
        for changed, value in nodes.items():
            if self._tree.get(changed) != value:
                self._set(changed, value)

    def _set(self, path: str, value: str | None) -> None:
        domid = owner(path)
        if domid is not None:
            self._touched.add(domid)
        before = self._tree.pop(path, None) if value is None else self._tree.get(path)
        if value is not None:
            self._tree[path] = value
            self._frontends.note(path)
        if place := port_place(path):
            self._index(path, place, before, value)

    def _index(self, path: str, place: PortPlace, before: str | None, value: str | None) -> None:
        if before:
            paths = self._holders[before]
            del paths[path]
            if not paths:
                del self._holders[before]
        if value:
            self._holders.setdefault(value, {})[path] = place

    def _live(self, place: PortPlace) -> bool:
        """libxl's own copy of a port is live for devicemodel controllers only (T44)."""
        if place.type is not ControllerType.DEVICEMODEL:
            return True
        return self._tree.get(type_path(place.guest_port)) == ControllerType.DEVICEMODEL


def _roots(domid: int) -> list[str]:
    return [*_dom0s(domid), FRONTENDS.format(domid)]


def _dom0s(domid: int) -> list[str]:
    """What dom0 writes about a guest."""
    return [form.format(domid) for form in (*LEAVES, *TREES)]


def _homes(guest_port: GuestPort) -> list[str]:
    """Where the value of a guest port stands, whatever type its controller is of."""
    return [port_path(type_, guest_port) for type_ in ControllerType]


def _topmost(paths: Iterable[str]) -> list[str]:
    """Without those that lie below another one, which are read with it."""
    kept: list[str] = []
    for path in sorted(paths, key=lambda path: path.split("/")):
        if not kept or not path.startswith(kept[-1] + "/"):
            kept.append(path)
    return kept
