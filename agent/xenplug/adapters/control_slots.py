"""Who may keep a connection to the control socket, and whose request is next: fair between users, not connections.

Used by control.py. A user who opens many connections, or sends requests without rest, costs other users nothing: when
all places are taken he loses one of his, and of those who wait each user has a turn before any has two. Whoever may act
comes first.
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
"""Seconds at least between two turns, whoever has them, in which the agent's own work comes first."""


class Work(IntEnum):
    """What a connection does now; what is cheaper to lose is less."""

    REST = 0
    STREAM = 1
    CALL = 2


@dataclass(slots=True, eq=False)
class Seat:
    """A connection that has a place. `leave` closes it."""

    peer: Peer
    acts: bool
    leave: Callable[[], object]
    work: Work = Work.REST
    turn: int = 0
    """When it last asked for something, or came: an order, not a time."""

    @contextmanager
    def at(self, work: Work) -> Iterator[None]:
        """It does this meanwhile."""
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
        """Whether it gets a place; if all are taken, the idlest connection of the user who has most loses its own."""
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
        """It asked for something."""
        self._turn += 1
        seat.turn = self._turn

    def free(self, seat: Seat) -> None:
        """It left."""
        self._seats.discard(seat)


def _victim(candidates: list[Seat], new: Seat) -> Seat | None:
    """None if nobody must give way to the new one. A call of a peer that may act is never broken off."""
    counts = Counter(seat.peer.uid for seat in candidates)
    if not new.acts:
        counts[new.peer.uid] += 1
    can_go = [seat for seat in candidates if not (seat.acts and seat.work is Work.CALL)]
    return min(can_go, key=lambda seat: (-counts[seat.peer.uid], seat.work, seat.turn), default=None)


class Turns:
    """One request at a time begins. Then the loop is left to the agent for as long as that took, at least SPACING."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[bool, int], deque[asyncio.Future[None]]] = {}
        """By whether it may act, and user; the user whose turn is next comes first."""
        self._resting = False

    async def wait(self, seat: Seat) -> None:
        """Until it is this connection's turn, which ends where it next waits for something."""
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
                # Called right after whoever waits for the turn has gone on and waits again.
                loop.call_soon(self._rest, loop.time())

    def _rest(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(max(SPACING, loop.time() - began), self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._next()
