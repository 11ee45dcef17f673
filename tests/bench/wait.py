"""Waiting for a condition, without fixed sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(holds: Callable[[], object], seconds: float = 5.0, what: str = "the condition") -> float:
    """Return as soon as the condition is true, with the seconds it took; AssertionError after `seconds`."""
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > seconds:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.005)
    return time.monotonic() - start
