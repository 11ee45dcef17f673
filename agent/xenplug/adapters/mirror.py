"""A copy of the parts of xenstore that concern guests and USB, kept up to date by watches; nothing is polled.

xenstored -> watch events -> Mirror -> changed(domid) -> the reconciler reads tree() through core/guests.py. An event
only marks a path as stale. One worker reads the stale paths, in passes. A change during a pass marks its path again,
and a later pass reads it, so no change is missed and no old value stays. A pass reads a few paths of each domain, and a
caller that waits for `sync` gets its turn between two passes: a domain that writes all the time does not delay the
others.
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
RELEASE = "@releaseDomain"
COMINGS = ("@introduceDomain", RELEASE)
"""Watches without a domid, which also fire at registration and without reason: each event means "list the domains and
compare" (T25)."""
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
"""Maximum number of stale paths of one domain that one pass reads."""
DOMAINS_IN_PASS = 32
MANY = 256
"""Maximum number of stale paths of one domain that are remembered; if there are more, everything of the domain is
read."""
DEPTH = 4
"""How many levels of folders below a watched path are read (the deepest: CONTROLLER/port/PORT)."""

_LEAF = re.compile(r"/(?:state|name|vm|target|type|device-model-(?:pid|domid)|usb-ver|num-ports|online|port/[0-9]+)\Z")
"""Nodes that are never folders: reading one is a single request."""
_FRONTENDS = re.compile(r"/local/domain/([0-9]+)/device/vusb\Z")
_IN_FRONTENDS = re.compile(r"/local/domain/[0-9]+/device/vusb(?:/|\Z)")


class Mirror:
    """The copy. `changed` is called after the tree is up to date again: with the domid that changed, or None if any
    domain may have changed. It is called only if a value really changed, or with None if xenstored reported that some
    domain ended, shut down or was suspended.
    """

    def __init__(self, store: Store, changed: Callable[[int | None], None] = lambda _domid: None) -> None:
        self._store = store
        self.changed = changed
        self._tree: dict[str, str] = {}
        self._holders: dict[str, dict[str, PortPlace]] = {}
        """Busid to the port paths that hold it, including libxl's dead copies (`occupied` leaves these out)."""
        self._watched: set[int] = set()
        self._introduced: frozenset[int] = frozenset()
        self._stale: dict[int | None, dict[str, None]] = {}
        """Paths to read again, by domain, in the order in which they were marked; None: the list of domains."""
        self._frontends = Frontends(store, self._fired)
        self._touched: set[int] = set()
        self._released = False
        """A domain ended or shut down since the last report. One that has shut down may be kept: then nothing in the
        tree changes, and only `xl list` shows it."""
        self._loaded = False
        """Everything was read since the last connect: only then does another reading prove anything."""
        self._reading = asyncio.Lock()
        self._worker: asyncio.Task[None] | None = None

    @property
    def introduced(self) -> frozenset[int]:
        """Domids of the domains that xenstored knows to be alive."""
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
        """Whether the domain is alive and has this name."""
        return domid in self._introduced and self._tree.get(f"/local/domain/{domid}/name") == name

    async def load(self) -> None:
        """Set all watches and read everything again; to be called after every connect. Raises StoreLost."""
        async with self._reading:
            self._loaded = False
            self._stale.clear()
            self._watched.clear()
            self._frontends.reset()
            await asyncio.gather(*(self._store.watch(path, self._fired) for path in COMINGS))
            await self._everything()
            self._loaded = True
            self._touched.clear()
            self._released = False
            self.changed(None)

    async def sync(self, what: int | GuestPort | None = None) -> None:
        """Read one guest (by its domid), one guest port or everything (None) again, with the watches in place. Raises
        StoreLost, also after a `load` that failed, until one succeeds.

        Changes made before the call are in the tree after it. Only reading guarantees that: oxenstored may answer a
        request before it sends the events of earlier changes.
        """
        async with self._reading:
            if not self._loaded:
                raise StoreLost("xenstore has not been read since the connection broke")
            if what is None:
                await self._everything()
            else:
                await self._read(_roots(what) if isinstance(what, int) else _homes(what))
            self._report_changes()

    async def _everything(self) -> None:
        await self._list_domains()
        await self._read(path for domid in self._watched for path in _roots(domid))

    def _fired(self, path: str) -> None:
        self._released = self._released or path == RELEASE
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
        # Why passes, instead of reading until nothing is stale: a guest can write its nodes faster than they are read,
        # so that would never end. A pass takes a share of each of a few domains (`_next`), so a guest that writes
        # without rest delays only itself. The lock is released after each pass and granted in order: a `sync`, which
        # needs only its own paths read once after the call, waits for at most the pass that is under way. What was
        # marked stale during a pass stays marked, so no change is lost.
        while self._stale:
            async with self._reading:
                paths = self._next()
                if DOMAINS in paths:
                    paths += [path for domid in await self._list_domains() for path in _roots(domid)]
                await self._read(paths)
                self._report_changes()

    def _worked(self, worker: asyncio.Task[None]) -> None:
        self._worker = None
        if worker.cancelled() or isinstance(worker.exception(), StoreLost):
            return  # the store calls `lost`; the reconciler connects and calls load
        if self._stale:
            self._begin()
        worker.result()

    def _report_changes(self) -> None:
        if self._released and None not in self._stale:
            self._released = False
            self.changed(None)
        touched, self._touched = self._touched, set()
        for domid in sorted(touched):
            self.changed(domid)

    def _next(self) -> list[str]:
        """The paths of the next pass; they are no longer stale. A domain with more stale paths goes to the end of the
        queue.
        """
        taken: list[str] = []
        for domid in list(self._stale)[:DOMAINS_IN_PASS]:
            paths = list(self._stale.pop(domid))
            taken += paths[:SHARE]
            if paths[SHARE:]:
                self._stale[domid] = dict.fromkeys(paths[SHARE:])
        return taken

    async def _read(self, paths: Iterable[str]) -> None:
        """Read these paths once. The guests' sides come last: dom0's nodes show which of them count."""
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
        """Follow the domains that exist. Returns the new ones."""
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
        """The node and everything below it; empty if it does not exist."""
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
        """A node that xenstored refuses to show counts as missing: one bad node must not stop the rest."""
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
        """Replace the tree at and below a path by what was read there."""
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
        """Whether the path is live: libxl's own copy of a port is so for devicemodel controllers only (T44)."""
        if place.type is not ControllerType.DEVICEMODEL:
            return True
        return self._tree.get(type_path(place.guest_port)) == ControllerType.DEVICEMODEL


def _roots(domid: int) -> list[str]:
    return [*_dom0s(domid), FRONTENDS.format(domid)]


def _dom0s(domid: int) -> list[str]:
    """The folders that dom0 writes for a guest."""
    return [form.format(domid) for form in (*LEAVES, *TREES)]


def _homes(guest_port: GuestPort) -> list[str]:
    """The possible paths of a guest port's value, for all types of controllers."""
    return [port_path(type_, guest_port) for type_ in ControllerType]


def _topmost(paths: Iterable[str]) -> list[str]:
    """The paths without those below another one, which are read with it."""
    kept: list[str] = []
    for path in sorted(paths, key=lambda path: path.split("/")):
        if not kept or not path.startswith(kept[-1] + "/"):
            kept.append(path)
    return kept
