"""If the machine lacks something that the bench needs: skip the test, or fail if the bench is required."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skip the test with this reason; with XENPLUG_BENCH=required fail it."""
    if os.environ.get("XENPLUG_BENCH") == "required":
        pytest.fail(reason)
    pytest.skip(reason)
