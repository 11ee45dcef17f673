"""Runs the user's hooks in the background: few at a time, each with a time limit; the agent never waits for them.

Changes arrive through record(), as for the history. If too many hooks wait, further ones are dropped and logged: a
device that reconnects every second must not fill the host with processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence

from xenplug.adapters.proc import Processes
from xenplug.core.printable import printable
from xenplug.core.protocols import Result
from xenplug.core.reporting.changes import Change
from xenplug.core.reporting.hooks import environment, event_of
from xenplug.core.settings import Hook

AT_ONCE = 4
"""Maximum number of hooks that run at the same time."""
WAITING = 64
"""Maximum number of hooks that wait; further ones are dropped."""

log = logging.getLogger("xenplug")


class Hooks:
    """The hooks of the settings. `seconds`: how long one may run before it is killed."""

    def __init__(self, hooks: Sequence[Hook], seconds: float) -> None:
        self._hooks = hooks
        self._seconds = seconds
        self._waiting: deque[tuple[Hook, Mapping[str, str]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dropped = 0

    def record(self, change: Change) -> None:
        """Start or queue the hooks for this change. Never raises."""
        event = event_of(change)
        for hook in self._hooks:
            if not hook.fires(event):
                continue
            if len(self._waiting) >= WAITING:
                self._drop()
                continue
            self._waiting.append((hook, environment(change)))
        while self._waiting and len(self._tasks) < AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Kill the running hooks, drop the waiting ones."""
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _drop(self) -> None:
        if not self._dropped:
            log.warning("hooks: more than %d are waiting; further ones are dropped", WAITING)
        self._dropped += 1

    async def _work(self) -> None:
        while self._waiting:
            hook, facts = self._waiting.popleft()
            result = await Processes(facts).run(hook.run, self._seconds)
            if not result.ok:
                log.warning("hook %s: %s", hook.run[0], _ending(result))
        if self._dropped:
            log.warning("hooks: %d were dropped", self._dropped)
            self._dropped = 0


def _ending(result: Result) -> str:
    if result.error:
        return result.error
    if result.timed_out:
        return f"killed after {result.seconds:.0f} s (times.hook)"
    words = result.stderr.strip().splitlines()
    how = f"killed by signal {result.signal}" if result.signal else f"exit code {result.code}"
    said = printable(words[-1][:200]) if words else ""
    return how + (f": {said}" if said else "")
