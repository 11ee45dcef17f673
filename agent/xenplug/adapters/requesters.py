"""Who asks the agent at this moment: the control socket and the signal handlers say so, the history records it.

A context variable: each connection is served by a task of its own, so a request that waits does not change who asks in
another one. Names are looked up in a thread, because the host's name service may be on the network and hang.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from xenplug.core.reporting.orders import Requester, Way

PATIENCE = 0.5
"""Seconds to wait for a name; then the user has none."""
MAX_LOOKUPS = 8
"""Look-ups that may hang at a time; until one of them returns, users have no names."""

_NOBODY = Requester()
_current: ContextVar[Requester] = ContextVar("requester", default=_NOBODY)


def requester() -> Requester:
    """Who asks for what is being done now."""
    return _current.get()


@contextmanager
def requested_by(who: Requester) -> Iterator[None]:
    """What is done in this block was asked for by `who`."""
    token = _current.set(who)
    try:
        yield
    finally:
        _current.reset(token)


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, ValueError, OverflowError, OSError):
        return None


class UserNames:
    """Names of users, by uid."""

    def __init__(self, look_up: Callable[[int], str | None] = _name_of) -> None:
        self._look_up = look_up
        self._running = 0

    async def of(self, uid: int) -> str | None:
        """The user's name; None if it has none, or if it is not known in time."""
        if self._running >= MAX_LOOKUPS:
            return None
        loop = asyncio.get_running_loop()
        found: asyncio.Future[str | None] = loop.create_future()

        def done(name: str | None) -> None:
            self._running -= 1
            if not found.done():
                found.set_result(name)

        def work() -> None:
            name = self._look_up(uid)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done, name)

        try:
            threading.Thread(target=work, daemon=True).start()
        except RuntimeError:  # no thread can be started
            return None
        self._running += 1
        try:
            async with asyncio.timeout(PATIENCE):
                return await found
        except TimeoutError:
            return None

    async def own(self) -> Requester:
        """This process, as who asked for its start."""
        uid = os.getuid()
        return Requester(Way.CONSOLE, uid, await self.of(uid), os.getpid())
