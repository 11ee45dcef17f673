"""The history of events: JSON lines in a file of limited size.

The reconciler stores events with record(); `xenplug history` reads them over the control socket. A lost event must
never stop the agent: record() never raises, and lines damaged by a crash are skipped when read.
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
from xenplug.adapters.kept_folder import KeptFolder

DEVICE_KEYS = ("port", "address", "path", "device", "serial", "controller", "bdf")
"""The keys of an event that may name its device (`device` is its tag)."""

log = logging.getLogger(__name__)


Event = dict[str, Any]


class HistoryFile:
    """The file at `path` and its predecessor `path`.1, together at most `limit` bytes."""

    def __init__(self, path: Path, limit: int = 2_000_000) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._half = limit // 2
        self._folder = KeptFolder(path.parent)
        self._failing = False
        self._reported: set[Path] = set()

    def record(self, event: Mapping[str, Any]) -> None:
        """Append an event. Values that are not JSON are stored as text. A failure is logged when it begins and when it
        ends.
        """
        try:
            self._append(json.dumps(dict(event), separators=(",", ":"), default=str).encode("ascii") + b"\n")
        except (OSError, Unfit, TypeError, ValueError) as error:
            if not self._failing:
                log.warning(
                    "history is not recorded: %s: %s; free disk space there, or fix the file", self._path, error
                )
            self._failing = True
        else:
            if self._failing:
                log.warning("history is recorded again: %s", self._path)
            self._failing = False

    def _append(self, line: bytes) -> None:
        self._folder.ensure()
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

        Events recorded during the reading are not included. Files that cannot be read count as empty. Damage and
        unreadable files are logged, once each. Of a file beyond the limit only the end is read.
        """
        for path, data in [(path, self._content(path)) for path in (self._older, self._path)]:
            damaged = 0
            for line in data.splitlines():
                event = event_of(line)
                damaged += event is None
                if event is not None and (device is None or device in [event.get(name) for name in DEVICE_KEYS]):
                    yield event
            self._report(path, f"damaged lines skipped: {damaged}" if damaged else None)

    def _content(self, path: Path) -> bytes:
        try:
            data = read_end(path, self._half)
        except FileNotFoundError:
            return b""
        except (OSError, Unfit) as error:
            self._report(path, f"cannot be read ({error})")
            return b""
        # Of a longer file the first line read is incomplete.
        return data if len(data) < self._half else data.partition(b"\n")[2]

    def _report(self, path: Path, fault: str | None) -> None:
        """Log the fault of a file, unless it was logged before."""
        if fault and path not in self._reported:
            log.warning("history: %s: %s; move the file away to start a new one", path, fault)
            self._reported.add(path)


def _write_all(number: int, data: bytes) -> None:
    """Append in one write, so that a line is complete or cut off at its end. A partial write means that the disk is
    full.
    """
    if os.write(number, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def event_of(line: bytes) -> Event | None:
    """The event in a line; None if record() cannot have written it: an event is an object of plain values.

    Lists, objects and infinite numbers (`1e999`) would break code that compares or sends events.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and all(map(_plain, event.values())) else None


def _plain(value: object) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
