"""Durations, sizes and counts as people type them: `10s`, `500ms`, `2m`, `1 MiB`. For policies, settings, scenarios.

Each reader raises ValueError with fact and remedy; its caller adds file, line and column.
"""

from __future__ import annotations

import re

DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h)?\Z")
SIZE = re.compile(r"([0-9]{1,12}) ?(B|KiB|MiB|GiB)?\Z")
COUNT = re.compile(r"[0-9]{1,9}\Z")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def duration(text: str) -> float:
    """Seconds of `10s`, `500ms`, `2m`, `1h` or `10`."""
    found = DURATION.match(text)
    if not found:
        raise ValueError(f"{text!r} is not a duration; write a number and ms, s, m or h, like 500ms or 10s")
    return round(float(found[1]) * SECONDS[found[2] or "s"], 9)


def size(text: str) -> int:
    """Bytes of `512 KiB`, `1MiB` or `1048576`."""
    found = SIZE.match(text)
    if not found:
        raise ValueError(f"{text!r} is not a size; write a number and KiB, MiB or GiB, like 1 MiB")
    return int(found[1]) * BYTES[found[2] or "B"]


def count(text: str) -> int:
    """A whole number of `8`."""
    if not COUNT.match(text):
        raise ValueError(f"{text!r} is not a count; write a whole number, like 8")
    return int(text)
