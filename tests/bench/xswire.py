"""A small blocking xenstore client for the bench: requests, transactions and watches on one connection.

Kept apart from the agent's own client on purpose: the two must not share a misreading. Format: xen's
docs/misc/xenstore.txt and xs_wire.h.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEADER = struct.Struct("=IIII")
DIRECTORY, READ, WATCH, UNWATCH, BEGIN, END = 1, 2, 4, 5, 6, 7
INTRODUCE, RELEASE, WRITE, RM, EVENT, ERROR, IS_INTRODUCED = 8, 9, 11, 13, 15, 16, 17


class XenstoreError(Exception):
    """xenstored refused; the text is its error name (ENOENT, EEXIST, EAGAIN ...)."""


class Xenstore:
    """One connection to xenstored's socket. Values are text; paths may be relative to nothing."""

    def __init__(self, path: Path) -> None:
        self.events: deque[tuple[str, str]] = deque()
        self._serial = 0
        self._transaction = 0
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For select; readable means pump() has something to do."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the connection; its watches and open transaction go with it."""
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("xenstored closed the connection")
            data += piece
        return data

    def _message(self) -> tuple[int, int, bytes]:
        kind, serial, _, length = HEADER.unpack(self._exactly(HEADER.size))
        payload = self._exactly(length)
        if kind == EVENT:
            path, token = payload.decode().split("\0")[:2]
            self.events.append((path, token))
        return kind, serial, payload

    def pump(self) -> None:
        """Read one waiting message, which between requests can only be an event."""
        self._message()

    def request(self, kind: int, *parts: str, tail: str = "") -> bytes:
        """Send a request, return the reply's payload; XenstoreError if refused."""
        self._serial += 1
        payload = "".join(f"{part}\0" for part in parts).encode() + tail.encode()
        self._socket.sendall(HEADER.pack(kind, self._serial, self._transaction, len(payload)) + payload)
        while True:
            got, serial, data = self._message()
            if got == ERROR and serial == self._serial:
                raise XenstoreError(data.rstrip(b"\0").decode())
            if got != EVENT and serial == self._serial:
                return data

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; XenstoreError EAGAIN when another write came between (no retry here)."""
        self._transaction = int(self.request(BEGIN, "").rstrip(b"\0"))
        verdict = "F"
        try:
            yield
            verdict = "T"
        finally:
            try:
                self.request(END, verdict)
            finally:
                self._transaction = 0

    def read(self, path: str) -> str | None:
        """The node's value, None without such a node."""
        try:
            return self.request(READ, path).decode()
        except XenstoreError:
            return None

    def ls(self, path: str) -> list[str]:
        """The node's children, [] without such a node."""
        try:
            return [name for name in self.request(DIRECTORY, path).decode().split("\0") if name]
        except XenstoreError:
            return []

    def write(self, path: str, value: str) -> None:
        """Set the node, making it if needed."""
        self.request(WRITE, path, tail=value)

    def rm(self, path: str) -> None:
        """Remove the node and all below; fine if it is not there."""
        try:
            self.request(RM, path)
        except XenstoreError as refusal:
            if str(refusal) != "ENOENT":
                raise

    def watch(self, path: str) -> None:
        """Events of the path (token: the path) are queued in `events`; one comes at once.

        One that comes during a request is queued unseen by select: who waits for events needs a connection for them.
        """
        self.request(WATCH, path, path)
