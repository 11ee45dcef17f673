"""Waits until a condition is true, instead of sleeping for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_until(look: Callable[[], Value], seconds: float, what: str = "", every: float = 0.3) -> Value:
    """Calls `look` until it returns something true, and returns that.

    Raises AssertionError with the last value seen when `seconds` have passed.
    """
    end = time.monotonic() + seconds
    while not (value := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or look}; last seen: {value!r}")
        time.sleep(every)
    return value
