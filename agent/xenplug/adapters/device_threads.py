"""Runs what may block in the kernel over one USB device, so that a device that blocks costs nobody else anything.

The kernel makes readers and writers of some attributes wait while a driver probes the device, and a driver or a device
that hangs lets them wait for ever. adapters/udev.py has two of these: one to read devices, one to write. A thread that
does not come back is replaced by another one; nothing more is begun for its device. The threads are daemons: the end of
the process waits for none of them (concurrent.futures joins its threads when the interpreter ends).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

THREADS = 8
"""Operations at a time, those that hang not counted."""
OVERDUE = 1.5
"""Seconds after which an operation counts as hanging."""
MOST = 64
"""Hanging operations whose threads are replaced."""
AGAIN = 1.0
"""Seconds after which a thread that the host would not let us have is tried for again."""

log = logging.getLogger(__name__)


class DeviceStuck(Exception):
    """An earlier operation on the device hangs in the kernel."""


@dataclass(slots=True, eq=False)
class _Job:
    device: str
    work: Callable[[], Any]
    result: asyncio.Future[Any]
    timer: asyncio.TimerHandle | None = None


class DeviceThreads:
    """At most one hanging operation for each device. `name` is that of the threads. For the loop's own thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop, self._name = loop, name
        self._waiting: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._hanging: set[_Job] = set()
        """Those of the running ones that are overdue."""
        self._threads = 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()

    def stuck(self, device: str) -> bool:
        """Whether an operation on this device hangs."""
        return any(job.device == device for job in self._hanging)

    def forget(self, device: str) -> None:
        """The device is gone: what hangs over it is no longer the next one's at its port."""
        for job in self._hanging:
            if job.device == device:
                job.device = ""

    async def run(self, device: str, work: Callable[[], Any]) -> Any:
        """What `work` returns or raises. Raises DeviceStuck if an earlier operation hangs. Cancelled, it goes on."""
        if self.stuck(device):
            raise DeviceStuck(device)
        job = _Job(device, work, self._loop.create_future())
        self._waiting.append(job)
        self._start()
        return await job.result

    def stop(self) -> None:
        """Begin nothing more. Threads that hang are left alone."""
        self._waiting.clear()
        for _ in range(self._threads):
            self._jobs.put(None)

    def _start(self) -> None:
        while self._waiting and len(self._running) < THREADS + min(len(self._hanging), MOST):
            job = self._waiting.popleft()
            if job.result.done():
                continue
            if self._threads <= len(self._running) and not self._one_more():
                self._waiting.appendleft(job)
                self._loop.call_later(AGAIN, self._start)
                return
            self._running.add(job)
            job.timer = self._loop.call_later(OVERDUE, self._overdue, job)
            self._jobs.put(job)

    def _one_more(self) -> bool:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError as error:
            log.debug("%s: %s", self._name, error)
            return False
        self._threads += 1
        return True

    def _overdue(self, job: _Job) -> None:
        self._hanging.add(job)
        log.warning("%s: the kernel has not come back for %g s; unplug the device, or see dmesg", job.device, OVERDUE)
        if len(self._hanging) == MOST + 1:
            log.error("more than %d operations on USB devices hang in the kernel; restart the host", MOST)
        self._start()

    def _work(self) -> None:
        while job := self._jobs.get():
            result, error = None, None
            try:
                result = job.work()
            except BaseException as raised:  # raised again where it is waited for
                error = raised
            try:
                self._loop.call_soon_threadsafe(self._finished, job, result, error)
            except RuntimeError:  # the loop has ended meanwhile
                return

    def _finished(self, job: _Job, result: Any, error: BaseException | None) -> None:
        if job.timer:
            job.timer.cancel()
        if job in self._hanging and job.device:
            log.warning("%s: the kernel came back", job.device)
        self._running.discard(job)
        self._hanging.discard(job)
        if not job.result.done():
            job.result.set_exception(error) if error else job.result.set_result(result)
        if self._threads > THREADS + len(self._hanging):
            self._threads -= 1
            self._jobs.put(None)
        self._start()
