"""`status --watch`: redraws in place on a terminal; elsewhere prints one status after the other.

A thread reads the agent's stream (its socket blocks) and passes each status on. The main loop waits for statuses, keys
and changes of the terminal's size. The terminal is restored however the watch ends. If the agent goes away, the last
status and the error stay on the screen until the agent is back.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TextIO

from xenplug.adapters.client import ClientError
from xenplug.cli.layout import Terminal, clip, terminal_for

Json = dict[str, Any]
Draw = Callable[[Json, Terminal], list[str]]

RECONNECT_AFTER = 1.0
"""Seconds between two attempts to reach an agent that is away."""
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""The alternate screen without cursor, long lines cut, and back (xterm's; every terminal in use has them)."""
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
QUIT_KEYS = b"qQ\x1b\x03\x04"
"""Keys that quit: q, Escape, ^C and ^D."""


class Asks(Protocol):
    """The client of the agent."""

    def stream(self, method: str) -> Iterator[Json]:
        """The replies of a method that has many."""


class Feed:
    """Statuses as they arrive, and connection errors. `wake` is readable when there is something to take."""

    def __init__(self, client: Asks) -> None:
        self._client = client
        self._news: queue.SimpleQueue[Json | ClientError] = queue.SimpleQueue()
        self.wake, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def start(self) -> None:
        """Start the thread that reads the stream; it ends with the process."""
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> list[Json | ClientError]:
        """Everything that arrived since the last call."""
        with suppress(BlockingIOError):
            os.read(self.wake, 4096)
        found = []
        with suppress(queue.Empty):
            while True:
                found.append(self._news.get_nowait())
        return found

    def ring(self) -> None:
        """Wake the loop; safe in a signal handler."""
        with suppress(OSError):
            os.write(self._bell, b".")

    def _read(self) -> None:
        while True:
            try:
                for reply in self._client.stream("Monitor"):
                    self._put(reply["status"])
            except ClientError as error:
                self._put(error)
            time.sleep(RECONNECT_AFTER)

    def _put(self, item: Json | ClientError) -> None:
        self._news.put(item)
        self.ring()


def watch(client: Asks, draw: Draw, plain: Callable[[Json], str], out: TextIO = sys.stdout) -> None:
    """Show every status until a key is pressed, or for ever. `plain` makes the text if there is no terminal.

    Raises ClientError if the agent cannot be reached at first (and, without a terminal, whenever it is lost), and
    KeyboardInterrupt for ^C without a terminal.
    """
    if not (out.isatty() and sys.stdin.isatty()):
        for reply in client.stream("Monitor"):
            print(plain(reply["status"]), file=out, flush=True)
        return
    feed = Feed(client)
    feed.start()
    first = _first(feed)
    with _terminal(out, feed):
        _redraw(feed, draw, out, first)


def _first(feed: Feed) -> Json:
    """The first status, before the screen is switched. Raises ClientError if there is no agent."""
    while True:
        select.select([feed.wake], [], [])
        for item in feed.take():
            if isinstance(item, ClientError):
                raise item
            return item


def _redraw(feed: Feed, draw: Draw, out: TextIO, status: Json) -> None:
    trouble: ClientError | None = None
    keyboard = sys.stdin.fileno()
    while True:
        out.write(_frame(status, trouble, draw, terminal_for(out)))
        out.flush()
        ready, _, _ = select.select([feed.wake, keyboard], [], [])
        if keyboard in ready and _leaves(os.read(keyboard, 64)):
            return
        for item in feed.take():
            if isinstance(item, ClientError):
                trouble = item
            else:
                status, trouble = item, None


def _leaves(keys: bytes) -> bool:
    """Whether the keys quit. Escape alone does, but not as the start of an arrow key. No keys: the terminal is gone."""
    return not keys or (keys[0] in QUIT_KEYS and keys[:2] not in (b"\x1b[", b"\x1bO"))


def _frame(status: Json, trouble: ClientError | None, draw: Draw, terminal: Terminal) -> str:
    """A whole screen as one text, written at once to avoid flicker."""
    height = max(os.get_terminal_size(sys.stdout.fileno()).lines, 2)
    foot = terminal.paint("bad", clip(str(trouble), terminal.width or 80)) if trouble else _foot(status, terminal)
    lines = draw(status, terminal)
    if len(lines) > height - 1:
        hidden = len(lines) - height + 2
        lines = [*lines[: height - 2], terminal.paint("faint", f"… {hidden} more lines; make the terminal taller")]
    lines += [""] * (height - 1 - len(lines))
    return HOME + "".join(f"{line}{REST_OF_LINE}\r\n" for line in lines) + foot + REST_OF_LINE + REST_OF_SCREEN


def _foot(status: Mapping[str, Any], terminal: Terminal) -> str:
    words = f"xenplug {status['version']}, {time.strftime('%H:%M:%S')}; q quits"
    return terminal.paint("faint", clip(words, terminal.width or 80))


@contextmanager
def _terminal(out: TextIO, feed: Feed) -> Iterator[None]:
    """Switch the terminal to the alternate screen and raw keys; restore it at the end."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    ended = signal.getsignal(signal.SIGTERM)

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGWINCH, lambda *_: feed.ring())
    signal.signal(signal.SIGTERM, end)
    try:
        tty.setraw(keyboard, termios.TCSADRAIN)
        out.write(ENTER)
        yield
    finally:
        out.write(LEAVE)
        out.flush()
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, ended)
