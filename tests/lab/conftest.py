"""Fixtures of the lab's tests. They are skipped when the lab is not up; XENPLUG_LAB=required makes that an error."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from labkit import Lab, LabDownError, lifecycle
from labkit.build import current

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; only with `lab run --long`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the lab."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The lab, as clean as it was saved: restored before each module, or only emptied when nothing is saved."""
    try:
        running = Lab()
    except LabDownError as reason:
        if os.environ.get("XENPLUG_LAB") == "required":
            raise
        pytest.skip(str(reason))
    if lifecycle.saved(current()):
        running.restore()
    else:
        running.unplug_all()
    yield running
    if running.machine.pid is not None:
        running.unplug_all()
