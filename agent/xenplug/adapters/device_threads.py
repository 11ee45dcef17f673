"""Runs operations on USB devices that may block in the kernel, so that one blocked device does not delay the others.

The kernel makes readers and writers of some attributes wait while a driver probes the device, and for ever if a driver
or a device hangs. adapters/udev.py has two instances: one to read devices, one to write. A thread that hangs is
replaced by another one, and no further operation starts for its device. The threads are daemon threads: the process
does not wait for them when it ends (concurrent.futures would join its threads).
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
"""Operations at a time, not counting those that hang."""
OVERDUE = 1.5
"""Seconds after which an operation counts as hanging."""
MAX_THREADS = 64
"""Maximum number of hanging threads that are replaced."""
RETRY_AFTER = 1.0
"""Seconds until the next attempt to start a thread, after the host refused one."""

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
    """Threads with at most one hanging operation for each device. `name`: the name of the threads. To be used in the
    loop's thread only.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop, self._name = loop, name
        self._waiting: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._hanging: set[_Job] = set()
        """The running operations that are overdue."""
        self._threads = 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()

    def stuck(self, device: str) -> bool:
        """Whether an operation on this device hangs."""
        return any(job.device == device for job in self._hanging)

    def forget(self, device: str) -> None:
        """The device is gone: an operation that hangs on it must not block the next device at its port."""
        for job in self._hanging:
            if job.device == device:
                job.device = ""

    async def run(self, device: str, work: Callable[[], Any]) -> Any:
        """Run `work`; return or raise what it does. Raises DeviceStuck if an earlier operation hangs. If cancelled,
        `work` continues.
        """
        if self.stuck(device):
            raise DeviceStuck(device)
        job = _Job(device, work, self._loop.create_future())
        self._waiting.append(job)
        self._start()
        return await job.result

    def stop(self) -> None:
        """Start nothing more. Threads that hang are left alone."""
        self._waiting.clear()
        for _ in range(self._threads):
            self._jobs.put(None)

    def _start(self) -> None:
        while self._waiting and len(self._running) < THREADS + min(len(self._hanging), MAX_THREADS):
            job = self._waiting.popleft()
            if job.result.done():
                continue
            if self._threads <= len(self._running) and not self._one_more():
                self._waiting.appendleft(job)
                self._loop.call_later(RETRY_AFTER, self._start)
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
        log.warning(
            "%s: an operation hangs in the kernel for %g s; unplug the device, or see dmesg", job.device, OVERDUE
        )
        if len(self._hanging) == MAX_THREADS + 1:
            log.error("more than %d operations on USB devices hang in the kernel; restart the host", MAX_THREADS)
        self._start()

    def _work(self) -> None:
        while job := self._jobs.get():
            result, error = None, None
            try:
                result = job.work()
            except BaseException as raised:  # raised again in the task that waits for it
                error = raised
            try:
                self._loop.call_soon_threadsafe(self._finished, job, result, error)
            except RuntimeError:  # the loop has ended
                return

    def _finished(self, job: _Job, result: Any, error: BaseException | None) -> None:
        if job.timer:
            job.timer.cancel()
        if job in self._hanging and job.device:
            log.warning("%s: the operation that hung in the kernel has ended", job.device)
        self._running.discard(job)
        self._hanging.discard(job)
        if not job.result.done():
            job.result.set_exception(error) if error else job.result.set_result(result)
        if self._threads > THREADS + len(self._hanging):
            self._threads -= 1
            self._jobs.put(None)
        self._start()
