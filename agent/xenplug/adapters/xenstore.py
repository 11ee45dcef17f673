"""The agent's own connection to xenstore: read, write, replace and watch over xenstored's unix socket.

adapters/mirror.py uses it to keep a copy, and the reconciler to empty stale guest ports (the most urgent operation: the
port of an unplugged device must be empty within 0.5 s). Requests are sent at once and answered in order; a reply has
the id of its request. Wire format: xen/include/public/io/xs_wire.h, docs/misc/xenstore.txt.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

from xenplug.core.protocols import StoreLost

log = logging.getLogger(__name__)

HEADER = struct.Struct("=IIII")
"""Type, request id, transaction id, length of the payload; in the machine's own byte order."""
DIRECTORY, READ, WATCH, UNWATCH, START, END = 1, 2, 4, 5, 6, 7
WRITE, RM, WATCH_EVENT, ERROR, IS_INTRODUCED = 11, 13, 15, 16, 17
PAYLOAD_MAX = 4096
REPLACE_TRIES = 16
"""How often a transaction that conflicts with another writer is repeated."""
AT_ONCE_TIMEOUT = 0.05
"""Seconds that `replace_at_once` waits for each of its four answers; it blocks the whole agent."""
SOCKET_PATHS = ("/run/xenstored/socket", "/var/run/xenstored/socket")
START_XENSTORED = "start Xen, or use --toolstack simulated"

_PATH = re.compile(r"/|/?[A-Za-z0-9_@-]+(?:/[A-Za-z0-9_@-]+)*")


class NoStore(StoreLost):
    """xenstored cannot be reached; the text says why, and what to do."""


class StoreError(Exception):
    """xenstored refused a request. `code` is its errno name, such as EACCES or EINVAL."""

    def __init__(self, code: str, path: str) -> None:
        super().__init__(f"xenstore: {path}: {code}")
        self.code = code


class _Request(NamedTuple):
    kind: int
    path: str
    reply: asyncio.Future[bytes]


class _Watch(NamedTuple):
    token: str
    fired: Callable[[str], None]


def default_socket() -> str:
    """The path of xenstored's socket: $XENSTORED_PATH, else the first of the usual paths that exists."""
    from_environment = os.environ.get("XENSTORED_PATH")
    return from_environment or next((place for place in SOCKET_PATHS if Path(place).exists()), SOCKET_PATHS[0])


class Xenstore:
    """Store (core/protocols.py) over one connection. A refusal of xenstored raises StoreError; an invalid path or value
    ValueError. `lost` is called when an open connection breaks, not after close(). There is no time limit for
    xenstored's answers.
    """

    def __init__(self, path: str, lost: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self.lost = lost
        self._wire: Wire | None = None
        self._brisk = True
        """Whether xenstored answered the last request in time."""

    async def connect(self) -> None:
        """Connect or reconnect. Watches of an earlier connection are gone: set them again. Raises NoStore."""
        self.close()
        wire = Wire(lambda: self.lost())
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: wire, self._path)
        except OSError as error:
            raise NoStore(_unreachable(self._path, error)) from error
        self._wire = wire

    def close(self) -> None:
        """Close the connection. Pending calls raise StoreLost."""
        if self._wire:
            self._wire.close()
        self._wire = None

    async def read(self, path: str) -> str | None:
        value = await self._maybe(READ, path)
        return None if value is None else value.decode(errors="replace")

    async def directory(self, path: str) -> list[str]:
        names = await self._maybe(DIRECTORY, path)
        return names.rstrip(b"\0").decode(errors="replace").split("\0") if names else []

    async def write(self, path: str, value: str) -> None:
        await self._ask(WRITE, path, value.encode())

    async def remove(self, path: str) -> None:
        await self._maybe(RM, path)

    async def replace(self, path: str, expected: str, value: str) -> bool:
        """Raises StoreError EAGAIN if every attempt conflicted with another writer."""
        for _ in range(REPLACE_TRIES):
            try:
                done = await self._replace_once(path, expected.encode(), value.encode())
            except StoreError as error:
                if error.code != "EAGAIN":
                    raise
            else:
                self._brisk = True
                return done
        raise StoreError("EAGAIN", path)

    def replace_at_once(self, path: str, expected: str, value: str) -> bool:
        """Uses a separate connection. After xenstored took too long, it is not tried until a `replace` succeeded.

        Why it blocks: the port of a pulled device must be empty before anything else of the agent runs (see
        Reconciler._clear_at_once), and only a call that returns when it is done ensures that. Why a separate
        connection: on the shared one the answer would come behind those of requests that are under way, and only the
        loop, which is blocked, could read it. Why the short limit: a slow xenstored must not stop the agent; `replace`
        then does the same in its turn.
        """
        if self._wire is None or self._wire.gone or not self._brisk:
            return False
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(AT_ONCE_TIMEOUT)
                connection.connect(self._path)
                return _replace(connection, path, expected.encode(), value.encode())
        except (OSError, EOFError, ValueError, struct.error) as problem:
            log.debug("xenstore: %s: cannot be replaced at once: %s", path, problem)
            self._brisk = False
            return False

    async def introduced(self, domid: int) -> bool:
        return await self._connected().ask(IS_INTRODUCED, "/", b"%d\0" % domid) == b"T\0"

    async def watch(self, path: str, fired: Callable[[str], None]) -> None:
        """A path that is watched already only gets the new `fired`, which is also called at once."""
        wire = self._connected()
        if known := wire.watches.get(path):
            wire.watches[path] = known._replace(fired=fired)
            asyncio.get_running_loop().call_soon(fired, path)
            return
        watch = wire.watches[path] = _Watch(wire.new_token(), fired)
        wire.tokens[watch.token] = path
        try:
            await self._ask(WATCH, path, f"{watch.token}\0".encode())
        except (StoreError, ValueError):
            wire.forget(path)
            raise

    async def unwatch(self, path: str) -> None:
        """`fired` is not called after this returns, nor while it waits. An unknown path is ignored."""
        watch = self._connected().forget(path)
        if watch:
            await self._ask(UNWATCH, path, f"{watch.token}\0".encode())

    async def _replace_once(self, path: str, expected: bytes, value: bytes) -> bool:
        wire, reading, writing = self._connected(), _payload(path), _payload(path, value)
        transaction = await wire.begin(path)
        try:
            holds = await wire.ask(READ, path, reading, transaction) == expected
        except (StoreError, asyncio.CancelledError) as error:
            wire.end(transaction, path, False)
            if isinstance(error, StoreError) and error.code == "ENOENT":
                return False
            raise
        if not holds:
            wire.end(transaction, path, False)
            return False
        # Both are sent together: this saves a round trip.
        await asyncio.gather(wire.ask(WRITE, path, writing, transaction), wire.end(transaction, path, True))
        return True

    async def _ask(self, kind: int, path: str, rest: bytes = b"") -> bytes:
        return await self._connected().ask(kind, path, _payload(path, rest))

    async def _maybe(self, kind: int, path: str) -> bytes | None:
        """The answer; None if there is no such node."""
        try:
            return await self._ask(kind, path)
        except StoreError as error:
            if error.code == "ENOENT":
                return None
            raise

    def _connected(self) -> Wire:
        if self._wire is None or self._wire.gone:
            raise StoreLost("xenstore: the connection is closed; connect again")
        return self._wire


class Wire(asyncio.Protocol):
    """One connection: frames, request ids, tokens. Closes at the first violation of the protocol."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self.gone = False
        self.watches: dict[str, _Watch] = {}
        self.tokens: dict[str, str] = {}
        """Token to watched path. A token is never used twice, so events of an ended watch are ignored."""
        self._lost = lost
        self._pending: dict[int, _Request] = {}
        self._received = bytearray()
        self._request = 0
        self._token = 0
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone:
            self._break("xenstore: the connection broke" + (f": {exc}" if exc else ""))
            self._lost()

    def close(self) -> None:
        if not self.gone:
            self._break("xenstore: the connection was closed")

    def _break(self, why: str) -> None:
        self.gone = True
        if self._transport:
            self._transport.abort()
        pending, self._pending = self._pending, {}
        for request in pending.values():
            if not request.reply.done():
                request.reply.set_exception(StoreLost(why))

    def new_token(self) -> str:
        self._token += 1
        return str(self._token)

    def forget(self, path: str) -> _Watch | None:
        watch = self.watches.pop(path, None)
        if watch:
            self.tokens.pop(watch.token, None)
        return watch

    def ask(self, kind: int, path: str, payload: bytes, transaction: int = 0) -> asyncio.Future[bytes]:
        """Send a request; the future holds the reply's payload, StoreError or StoreLost. `path` is for the message."""
        reply: asyncio.Future[bytes] = self._loop.create_future()
        if self.gone or self._transport is None:
            reply.set_exception(StoreLost("xenstore: the connection is closed; connect again"))
            return reply
        self._request = (self._request + 1) & 0xFFFFFFFF
        self._pending[self._request] = _Request(kind, path, reply)
        self._transport.write(HEADER.pack(kind, self._request, transaction, len(payload)) + payload)
        return reply

    async def begin(self, path: str) -> int:
        """Start a transaction. A cancelled call leaves none open."""
        started = self.ask(START, path, b"\0")
        try:
            return int((await asyncio.shield(started)).rstrip(b"\0"))
        except asyncio.CancelledError:
            started.add_done_callback(lambda reply: self._undo(reply, path))
            raise

    def _undo(self, started: asyncio.Future[bytes], path: str) -> None:
        if not started.exception():
            self.end(int(started.result()[:-1]), path, False)

    def end(self, transaction: int, path: str, commit: bool) -> asyncio.Future[bytes]:
        """End a transaction without waiting for the reply."""
        reply = self.ask(END, path, b"T\0" if commit else b"F\0", transaction)
        reply.add_done_callback(lambda future: future.cancelled() or future.exception())
        return reply

    def data_received(self, data: bytes) -> None:
        self._received += data
        at = 0
        while len(self._received) - at >= HEADER.size and not self.gone:
            kind, request, _, length = HEADER.unpack_from(self._received, at)
            end = at + HEADER.size + length
            if length > PAYLOAD_MAX:
                self._garbled(f"a payload of {length} bytes")
            elif len(self._received) < end:
                break
            else:
                self._message(kind, request, bytes(self._received[at + HEADER.size : end]))
            at = end
        del self._received[:at]

    def _message(self, kind: int, request: int, payload: bytes) -> None:
        if kind == WATCH_EVENT:
            self._event(payload)
            return
        asked = self._pending.pop(request, None)
        if asked is None or kind not in (asked.kind, ERROR):
            if asked:
                self._pending[request] = asked
            self._garbled(f"a reply of type {kind} to request {request}")
        elif asked.reply.done():
            return  # its caller was cancelled
        elif kind == ERROR:
            asked.reply.set_exception(StoreError(payload.rstrip(b"\0").decode(errors="replace"), asked.path))
        else:
            asked.reply.set_result(payload)

    def _event(self, payload: bytes) -> None:
        path, token, *more = [*payload.decode(errors="replace").split("\0"), ""]
        if not more or not token:
            self._garbled("a watch event without its token")
        elif (watched := self.tokens.get(token)) is not None:
            self.watches[watched].fired(path)

    def _garbled(self, what: str) -> None:
        self._break(f"xenstore: unexpected data: {what}")
        self._lost()


def _replace(connection: socket.socket, path: str, expected: bytes, value: bytes) -> bool:
    """A complete transaction; closing the connection undoes one that was not ended. False, too, if xenstored refused
    something. Raises OSError or EOFError if it did not answer, or not in time.
    """
    reading, writing = _payload(path), _payload(path, value)
    kind, started = _ask_now(connection, START, b"\0")
    if kind == ERROR:
        return False
    transaction = int(started.rstrip(b"\0"))
    if _ask_now(connection, READ, reading, transaction) != (READ, expected):
        return False
    return (
        _ask_now(connection, WRITE, writing, transaction)[0] == WRITE
        and _ask_now(connection, END, b"T\0", transaction)[0] == END
    )


def _ask_now(connection: socket.socket, kind: int, payload: bytes, transaction: int = 0) -> tuple[int, bytes]:
    """Type and payload of the answer; without watches nothing else is received."""
    connection.sendall(HEADER.pack(kind, 0, transaction, len(payload)) + payload)
    answered, _, _, length = HEADER.unpack(_received(connection, HEADER.size))
    return answered, _received(connection, min(length, PAYLOAD_MAX))


def _received(connection: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length:
        part = connection.recv(length - len(found))
        if not part:
            raise EOFError("xenstored closed the connection")
        found += part
    return found


def _payload(path: str, rest: bytes = b"") -> bytes:
    if not _PATH.fullmatch(path):
        raise ValueError(f"xenstore: {path!r} is not a path; only letters, digits and -/_@ are allowed")
    payload = path.encode() + b"\0" + rest
    if len(payload) > PAYLOAD_MAX:
        raise ValueError(f"xenstore: {path}: {len(payload)} bytes; the limit is {PAYLOAD_MAX}")
    return payload


def _unreachable(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"xenstore: no socket at {path} (this host does not run Xen?); {START_XENSTORED}"
    if isinstance(error, PermissionError):
        return f"xenstore: no permission to open {path}; run as root, or use --toolstack simulated"
    if isinstance(error, ConnectionRefusedError):
        return f"xenstore: nothing listens at {path} (xenstored is not running?); {START_XENSTORED}"
    return f"xenstore: cannot connect to {path}: {error.strerror or error}; {START_XENSTORED}"
