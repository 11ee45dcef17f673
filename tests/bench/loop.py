"""A tiny event loop for the played device models: readable files and timers, one thread."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable
from typing import Protocol


class HasFileno(Protocol):
    """A file, a socket, a connection."""

    def fileno(self) -> int:
        """Its descriptor."""


class Loop:
    """run() until stop()."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._running = True

    def reader(self, source: HasFileno | int, ready: Callable[[], None]) -> None:
        """Call ready() whenever the source can be read."""
        self._selector.register(source, selectors.EVENT_READ, ready)

    def forget(self, source: HasFileno | int) -> None:
        """No more of this source."""
        self._selector.unregister(source)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Call act() once, after so many seconds."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), act))

    def stop(self) -> None:
        """Leave run() after the present callback."""
        self._running = False

    def run(self) -> None:
        """Serve until stop()."""
        while self._running:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, _ in self._selector.select(timeout):
                key.data()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
