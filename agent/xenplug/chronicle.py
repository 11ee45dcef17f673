"""The history as the agent keeps it: told by the reconciler, asked by the control socket, on disk over restarts.

After a restart every device is told anew; what stands as it did before is not written down a second time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from xenplug.core.faces import Clock
from xenplug.core.planning.changes import Change
from xenplug.core.telling.views import moment
from xenplug.shell.history import NAMES, History

Event = dict[str, Any]
IN_MEMORY = 2000
"""Events kept by an agent that writes no file (simulated, dry)."""
UNREAD = 1000
"""Events that wait for one who follows."""
PORTS = 4096
"""Ports whose last event is remembered."""
STANDING = ("address", "state", "guest", "line")
"""The keys of an event that make two of them the same."""


def names(event: Event, device: str) -> bool:
    """Whether the event is about what `device` names."""
    return device in [event.get(name) for name in NAMES]


class Record(Protocol):
    """Where events are kept: shell/history, or memory."""

    def record(self, event: Event) -> None:
        """Append one. Never raises."""

    def read(self, device: str | None = None) -> Iterator[Event]:
        """The events, oldest first, perhaps of one device."""


class InMemory:
    """A history that ends with the agent."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=IN_MEMORY)

    def record(self, event: Event) -> None:
        """Append one."""
        self._events.append(event)

    def read(self, device: str | None = None) -> Iterator[Event]:
        """The events, oldest first."""
        return (event for event in list(self._events) if device is None or names(event, device))


class Chronicle:
    """A Journal for the reconciler, which the service can read and follow."""

    def __init__(self, clock: Clock, record: History | InMemory | None = None) -> None:
        self._clock = clock
        self._record: Record = record or InMemory()
        self._last = {event.get("port"): event for event in self._record.read()}
        self._listeners: set[asyncio.Queue[Event | None]] = set()

    def record(self, change: Change) -> None:
        """Write one change down, and tell those who follow. Never raises."""
        event = {"at": moment(self._clock.wall()), **change.view()}
        before = self._last.get(event["port"], {})
        if all(before.get(key) == event.get(key) for key in STANDING):
            return
        self._last.pop(event["port"], None)
        self._last[event["port"]] = event
        if len(self._last) > PORTS:
            del self._last[next(iter(self._last))]
        self._record.record(event)
        for queue in list(self._listeners):
            if queue.full():  # it reads slower than things happen: its stream ends, and it may ask again
                self._listeners.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    def read(self, device: str | None = None) -> Iterator[Event]:
        """What happened, oldest first, to all devices or to those that `device` names (port, address, path, tag)."""
        return self._record.read(device)

    @contextmanager
    def listen(self) -> Iterator[asyncio.Queue[Event | None]]:
        """What happens from now on; None at the end, for one that let too much wait."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(UNREAD)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)
