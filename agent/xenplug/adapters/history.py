"""What happened, kept for people: JSON lines in a file of bounded size.

The reconciler's events come in through record(), `xenplug history` reads them back over the control socket. Losing
history is a nuisance, losing the agent is not one: record() never raises, and what a crash tore is skipped on reading.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xenplug.adapters.files import Unfit, check_regular, read_end

DEVICE_KEYS = ("port", "address", "path", "device", "serial", "controller", "bdf")
"""The keys of an event that may name its device (design words: a tag is `device`)."""

log = logging.getLogger(__name__)


Event = dict[str, Any]


class HistoryFile:
    """The file at `path` and the one before it, `path`.1, together at most `limit` bytes."""

    def __init__(self, path: Path, limit: int = 2_000_000) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._half = limit // 2
        self._failing = False
        self._reported: set[Path] = set()

    def record(self, event: Mapping[str, Any]) -> None:
        """Append an event. Values that are no JSON are kept as text. A failure is logged when it begins and ends."""
        try:
            self._append(json.dumps(dict(event), separators=(",", ":"), default=str).encode("ascii") + b"\n")
        except (OSError, Unfit, TypeError, ValueError) as error:
            if not self._failing:
                log.warning("history is not kept: %s: %s; make room there, or repair it", self._path, error)
            self._failing = True
        else:
            if self._failing:
                log.warning("history is kept again: %s", self._path)
            self._failing = False

    def _append(self, line: bytes) -> None:
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        number = self._open()
        try:
            size = os.fstat(number).st_size
            if size + len(line) >= self._half:
                self._path.replace(self._older)
                os.close(number)
                number, size = self._open(), 0
            if len(line) < self._half:
                torn = size > 0 and os.pread(number, 1, size - 1) != b"\n"
                _write_all(number, b"\n" + line if torn else line)
        finally:
            os.close(number)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        number = os.open(self._path, flags, 0o640)
        try:
            check_regular(number, self._path)
        except BaseException:
            os.close(number)
            raise
        return number

    def read(self, device: str | None = None) -> Iterator[Event]:
        """The events, oldest first; with `device`, those that name it in any of NAMES. Damaged lines are left out.

        What is recorded while this is read is not part of it. Files that cannot be read count as empty. Both are
        logged, once for as long as they last. Of files beyond the bound only the end is read.
        """
        for path, data in [(path, self._content(path)) for path in (self._older, self._path)]:
            damaged = 0
            for line in data.splitlines():
                event = event_of(line)
                damaged += event is None
                if event is not None and (device is None or device in [event.get(name) for name in DEVICE_KEYS]):
                    yield event
            self._report(path, f"skipped what is no event ({damaged} times)" if damaged else None)

    def _content(self, path: Path) -> bytes:
        try:
            data = read_end(path, self._half)
        except FileNotFoundError:
            return b""
        except (OSError, Unfit) as error:
            self._report(path, f"not read ({error})")
            return b""
        # Of a file that was longer the first line is a part of one.
        return data if len(data) < self._half else data.partition(b"\n")[2]

    def _report(self, path: Path, fault: str | None) -> None:
        """Log what is wrong with a file, unless it was logged before."""
        if fault and path not in self._reported:
            log.warning("history: %s: %s; move the file away to begin a new one", path, fault)
            self._reported.add(path)


def _write_all(number: int, data: bytes) -> None:
    """One write, so that a line is whole or torn at its end; a disk that took only a part is a full one."""
    if os.write(number, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def event_of(line: bytes) -> Event | None:
    """The event in a line; None if it is none that record() writes: an object of plain values.

    Lists, objects and numbers beyond all bounds (`1e999`) would break whoever compares events or sends them on.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and all(map(_plain, event.values())) else None


def _plain(value: object) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
