"""What happened, kept for people: JSON lines in a file of bounded size.

The reconciler's events come in through record(), `xenplug history` reads them back over the control socket. Losing
history is a nuisance, losing the agent is not one: record() never raises, and what a crash tore is skipped on reading.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DEVICE_KEYS = ("port", "address", "path", "device", "serial", "controller", "bdf")
"""The keys of an event that may name its device (design words: a tag is `device`)."""

log = logging.getLogger(__name__)


class HistoryFile:
    """The file at `path` and the one before it, `path`.1, together at most `limit` bytes."""

    def __init__(self, path: Path, limit: int = 2_000_000) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._half = limit // 2
        self._failing = False

    def record(self, event: Mapping[str, Any]) -> None:
        """Append an event. Values that are no JSON are kept as text. A failure is logged when it begins and ends."""
        try:
            self._append(json.dumps(dict(event), separators=(",", ":"), default=str).encode("ascii") + b"\n")
        except (OSError, TypeError, ValueError) as error:
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
        return os.open(self._path, flags, 0o640)

    def read(self, device: str | None = None) -> Iterator[dict[str, Any]]:
        """The events, oldest first; with `device`, those that name it in any of NAMES. Damaged lines are left out.

        What is recorded while this is read is not part of it. Files that cannot be read count as empty.
        """
        for data in [_content(self._older), _content(self._path)]:
            for line in data.splitlines():
                event = _event(line)
                if event is not None and (device is None or device in [event.get(name) for name in DEVICE_KEYS]):
                    yield event


def _write_all(number: int, data: bytes) -> None:
    """One write, so that a line is whole or torn at its end; a disk that took only a part is a full one."""
    if os.write(number, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
