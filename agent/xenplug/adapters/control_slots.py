"""Shares the control socket's connections and turns fairly between users, not between connections.

Used by control.py. A user who opens many connections, or sends requests without pause, does not harm other users: when
all slots are in use, this user loses a connection, and each waiting user gets a turn before any user gets two. Peers
that may act come first.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from xenplug.adapters.control_socket import Peer

SPACING = 0.001
"""Minimum seconds between two turns, in which the agent's own work comes first."""


class Work(IntEnum):
    """What a connection does now, ordered: a lower value is cheaper to lose."""

    REST = 0
    STREAM = 1
    CALL = 2


@dataclass(slots=True, eq=False)
class Seat:
    """A connection that has a slot. `leave` closes it."""

    peer: Peer
    acts: bool
    leave: Callable[[], object]
    work: Work = Work.REST
    turn: int = 0
    """When it last sent a request, or connected: a sequence number, not a time."""

    @contextmanager
    def at(self, work: Work) -> Iterator[None]:
        """Set what the connection does, for the duration of the block."""
        before, self.work = self.work, work
        try:
            yield
        finally:
            self.work = before


class Places:
    """At most `most` connections, half of them of peers that may only read."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seats: set[Seat] = set()
        self._turn = 0

    def admit(self, seat: Seat) -> bool:
        """Whether it gets a slot. If all are in use, the idlest connection of the user with the most connections is
        closed.
        """
        self.used(seat)
        readers = [other for other in self._seats if not other.acts]
        if len(self._seats) >= self._most or (not seat.acts and len(readers) >= self._most // 2):
            victim = _victim(readers or (list(self._seats) if seat.acts else []), seat)
            if victim is None:
                return False
            self._seats.discard(victim)
            victim.leave()
        self._seats.add(seat)
        return True

    def used(self, seat: Seat) -> None:
        """Note that the connection sent a request."""
        self._turn += 1
        seat.turn = self._turn

    def free(self, seat: Seat) -> None:
        """It left."""
        self._seats.discard(seat)


def _victim(candidates: list[Seat], new: Seat) -> Seat | None:
    """The connection to close for the new one; None if there is none. A running call of a peer that may act is never
    cut off.
    """
    counts = Counter(seat.peer.uid for seat in candidates)
    if not new.acts:
        counts[new.peer.uid] += 1
    can_go = [seat for seat in candidates if not (seat.acts and seat.work is Work.CALL)]
    return min(can_go, key=lambda seat: (-counts[seat.peer.uid], seat.work, seat.turn), default=None)


class RequestQueue:
    """Starts one request at a time. After each, the agent's own work gets the loop for as long as the request took, at
    least for SPACING.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[bool, int], deque[asyncio.Future[None]]] = {}
        """The waiting requests, by (may act, user); the user whose turn is next comes first."""
        self._resting = False

    async def wait(self, seat: Seat) -> None:
        """Wait for this connection's turn, which lasts until it next waits for something."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((seat.acts, seat.peer.uid), deque()).append(turn)
        self._next()
        await turn

    def _next(self) -> None:
        while self._waiting and not self._resting:
            user = next((user for user in self._waiting if user[0]), next(iter(self._waiting)))
            line = self._waiting.pop(user)
            turn = line.popleft()
            if line:
                self._waiting[user] = line
            if not turn.done():
                self._resting = True
                loop = asyncio.get_running_loop()
                turn.set_result(None)
                # Called right after the connection that got the turn has run and waits again.
                loop.call_soon(self._rest, loop.time())

    def _rest(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(max(SPACING, loop.time() - began), self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._next()
