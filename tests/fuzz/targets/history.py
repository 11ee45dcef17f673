"""Damaged lines of a history file: each is skipped, or becomes an event that all users of the history can handle."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

from xenplug.adapters.history import HistoryFile
from xenplug.cli.history import event_line
from xenplug.service.bootstrap import HostClock
from xenplug.service.history import History

TOKENS = [b"null", b"1e999", b"-1e999", b"NaN", b"Infinity", b'["x"]', b'{"x":1}', b"9" * 5000, b"[" * 2000, b"\\ud800"]
TOKENS += [b'"port":', b'"at":', b'"line":', b'"state":', b"\r", b"\x0b", b"\xe2\x80\xa8"]
EVENT = {"at": "2026-01-01T00:00:00.000+00:00", "port": "1-4", "address": "1.6", "path": None, "device": "046d:c016"}
EVENT |= {"serial": "A1", "state": "attached", "cause": "rule", "guest": "kiosk", "rule": "r", "line": "1-4: attached"}


def seeds() -> Iterable[bytes]:
    """Valid history files."""
    yield b"".join(json.dumps(EVENT | {"port": f"1-{n}", "state": "host"}).encode() + b"\n" for n in range(4))
    yield json.dumps(EVENT).encode() + b"\n"


logging.getLogger("xenplug.adapters.history").setLevel(logging.ERROR)


def read(data: bytes) -> None:
    """Read it as the agent does at its start, and show all events."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "h")
        path.write_bytes(data)
        history = History(HostClock(), HistoryFile(path))
        events = [*history.read(), *history.read("1-4")]
        json.dumps(events, allow_nan=False)
        assert all(event_line(event).isprintable() for event in events)
        HistoryFile(path).record({"port": "1-9"})
        assert list(HistoryFile(path).read())[-1] == {"port": "1-9"}
