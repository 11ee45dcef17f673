"""Fixtures of the bench floor.

Everything here is marked `bench` and skipped, with the reason, where a Debian package is missing; with
XENPLUG_BENCH=required it fails instead, so that a run which must cover it cannot pass without.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .need import unavailable
from .player import Player
from .shims import missing_packages
from .toolstack import BenchToolstack
from .usb import Testbed
from .usbspec import Bus, HostController

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.bench)


@pytest.fixture(scope="session")
def bench_packages() -> None:
    """The machine has what the bench needs."""
    missing = missing_packages()
    if missing:
        unavailable(f"the bench needs Debian packages: apt-get install {' '.join(missing)}")


@pytest.fixture
def scratch(bench_packages: None) -> Iterator[Path]:
    """A folder with a path short enough for the sockets below it (pytest's own are too long)."""
    folder = Path(tempfile.mkdtemp(prefix="xenplug-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def testbed(bench_packages: None) -> Iterator[Testbed]:
    """A host with one xHCI controller: bus 1 with 8 ports, bus 2 with 4 SuperSpeed ones; nothing plugged."""
    testbed = Testbed()
    testbed.add_host_controller(
        HostController(buses={1: Bus(8), 2: Bus(4, "super")}, peers={"2-1": "1-5", "2-2": "1-6"})
    )
    yield testbed
    testbed.close()


@pytest.fixture
def toolstack(scratch: Path, testbed: Testbed) -> Iterator[BenchToolstack]:
    """xenstored runs, xl works, both on the testbed's sysfs; no guest."""
    toolstack = BenchToolstack(scratch, testbed.root / "sys")
    with toolstack:
        yield toolstack


@pytest.fixture
def player(toolstack: BenchToolstack, testbed: Testbed) -> Iterator[Player]:
    """Plays the device models and frontends of the guests it boots."""
    player = Player(toolstack, testbed)
    player.start()
    yield player
    player.stop()
