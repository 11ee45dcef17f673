"""The history of the agent: filled by the reconciler, read by the control socket, kept on disk over restarts.

After a restart every device is reported again. A device whose state is the same as before gets no second event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from xenplug.adapters.history import DEVICE_KEYS, HistoryFile
from xenplug.core.protocols import Clock
from xenplug.core.reporting.changes import Change
from xenplug.core.reporting.views import moment

HistoryEvent = dict[str, Any]
IN_MEMORY = 2000
"""Events kept by an agent that writes no file (simulated, dry)."""
MAX_UNREAD_EVENTS = 1000
"""Maximum number of events that wait for one follower."""
MAX_REMEMBERED_PORTS = 4096
"""Maximum number of ports whose last event is remembered."""
SAME_STATE_KEYS = ("address", "state", "guest", "line")
"""Two events with the same values of these keys are the same."""


def is_about(event: HistoryEvent, device: str) -> bool:
    """Whether the event is about what `device` names."""
    return device in [event.get(name) for name in DEVICE_KEYS]


class HistoryStore(Protocol):
    """Where events are stored: in a file (adapters/history) or in memory."""

    def record(self, event: HistoryEvent) -> None:
        """Append one. Never raises."""

    def read(self, device: str | None = None) -> Iterator[HistoryEvent]:
        """The events, oldest first; with `device`, only those about it."""


class HistoryInMemory:
    """A history that ends with the agent."""

    def __init__(self) -> None:
        self._events: deque[HistoryEvent] = deque(maxlen=IN_MEMORY)

    def record(self, event: HistoryEvent) -> None:
        """Append one."""
        self._events.append(event)

    def read(self, device: str | None = None) -> Iterator[HistoryEvent]:
        """The events, oldest first."""
        return (event for event in list(self._events) if device is None or is_about(event, device))


class History:
    """A ChangeSink for the reconciler; the service reads and follows it."""

    def __init__(self, clock: Clock, record: HistoryFile | HistoryInMemory | None = None) -> None:
        self._clock = clock
        self._record: HistoryStore = record or HistoryInMemory()
        self._last = {event.get("port"): event for event in self._record.read() if event.get("state")}
        self._listeners: set[asyncio.Queue[HistoryEvent | None]] = set()

    def record(self, change: Change) -> None:
        """Store one change, and send it to the followers. Never raises."""
        event = self._now(change.view())
        before = self._last.get(event["port"], {})
        if all(before.get(key) == event.get(key) for key in SAME_STATE_KEYS):
            return
        self._last.pop(event["port"], None)
        self._last[event["port"]] = event
        if len(self._last) > MAX_REMEMBERED_PORTS:
            del self._last[next(iter(self._last))]
        self._store(event)

    def note(self, event: HistoryEvent) -> None:
        """Store an event that is not a change of a device, and send it to the followers. Never raises."""
        self._store(self._now(event))

    def _now(self, event: HistoryEvent) -> HistoryEvent:
        return {"at": moment(self._clock.wall()), **event}

    def _store(self, event: HistoryEvent) -> None:
        self._record.record(event)
        for queue in list(self._listeners):
            if queue.full():  # it reads too slowly: its stream ends, and it may ask again
                self._listeners.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    def read(self, device: str | None = None) -> Iterator[HistoryEvent]:
        """The events, oldest first, of all devices or of those that `device` names (port, address, path, tag)."""
        return self._record.read(device)

    @contextmanager
    def listen(self) -> Iterator[asyncio.Queue[HistoryEvent | None]]:
        """A queue of the events from now on; None ends it, for a follower that read too slowly."""
        queue: asyncio.Queue[HistoryEvent | None] = asyncio.Queue(MAX_UNREAD_EVENTS)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)
