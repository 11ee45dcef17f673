"""An asyncio loop whose time is virtual: when nothing is ready it jumps to the next timer instead of sleeping.

The simulator, the policy tests and the narration run on it, so a ten-minute backoff takes no time and every run is the
same. Nothing in simulator/ depends on it: on an ordinary loop the simulated host runs in real time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
MAX_VIRTUAL_TIME = 400 * 86400.0


class Deadlock(RuntimeError):
    """The main task waits for something that can never happen: nothing is scheduled any more."""


class _Jumper(selectors.DefaultSelector):
    """A selector that never waits: the time it would have waited is added to `now`."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None:
            raise Deadlock(f"nothing is scheduled at {self.now:.3f} s and the main task still waits")
        self.now += timeout
        if self.now > MAX_VIRTUAL_TIME:
            raise Deadlock(f"{self.now / 86400:.0f} virtual days have passed and the main task still waits")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time starts at 0 and moves only from timer to timer."""

    def __init__(self) -> None:
        self._jumper = _Jumper()
        super().__init__(self._jumper)
        # Added to the time to find due timers. asyncio's own 1 ns is lost in rounding after some 90 days, and then a
        # due timer would never be run.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._jumper.now

    def stand_still(self, seconds: float) -> None:
        """Let time pass while nothing runs, as on a machine that is stopped."""
        self._jumper.now += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Run the function at once: the end of a thread would be an event in real time."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # as an executor does: the caller that awaits it gets the failure
            future.set_exception(error)
        return future


def run(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run on a virtual loop. Raises Deadlock where an ordinary loop would hang for ever."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def later(delay: float, act: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
    """Call act(*args) after `delay` seconds of the running loop's time."""
    return asyncio.get_running_loop().call_later(delay, act, *args)


def soon(act: Callable[..., object], *args: Any) -> asyncio.Handle:
    """Call act(*args) in the loop's next iteration: like a message through a socket, never within the caller."""
    return asyncio.get_running_loop().call_soon(act, *args)


class LoopClock:
    """Clock (core/protocols) over the running loop's time."""

    def __init__(self, wall_at_zero: float = 1_700_000_000.0) -> None:
        self._wall = wall_at_zero

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self._wall + self.now()

    def suspend(self, seconds: float) -> None:
        """The host was suspended: the time of day moved on, monotonic time did not."""
        self._wall += seconds
