"""The recordings in ../data/umockdev load with umockdev's own tools, and are what the catalogue says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .catalogue import DESK, recordings
from .need import unavailable

FOLDER = Path(__file__).parent.parent / "data/umockdev"
FILES = sorted(recordings())


def mocked(recording: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the recording's devices in place of the machine's."""
    runner = shutil.which("umockdev-run")
    if runner is None or shutil.which(command[0]) is None:
        unavailable(f"needs umockdev-run and {command[0]} (Debian: umockdev, usbutils, udev)")
    arguments = [runner, "-d", str(FOLDER / recording), "--", *command]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", FILES)
def test_matches_the_catalogue(name: str) -> None:
    """Written by `python -m bench.catalogue`, not manually."""
    assert (FOLDER / name).read_text() == recordings()[name]


def test_nothing_else_lies_there() -> None:
    """Every recording belongs to the catalogue."""
    assert sorted(path.name for path in FOLDER.glob("*.umockdev")) == FILES


@pytest.mark.parametrize("name", FILES)
def test_udevadm_reads_it(name: str) -> None:
    """libudev finds every device of the recording, without a warning."""
    output = mocked(name, "udevadm", "info", "--export-db")
    paths = {line[3:] for line in output.stdout.splitlines() if line.startswith("P: ")}
    wanted = {line[3:] for line in (FOLDER / name).read_text().splitlines() if line.startswith("P: ")}
    assert (output.returncode, output.stderr) == (0, "")
    assert paths == wanted


@pytest.mark.parametrize("name", sorted(DESK))
def test_lsusb_understands_the_descriptors(name: str) -> None:
    """libusb parses them from sysfs; nothing is left over, too short or out of place."""
    for device in DESK[name].values():
        output = mocked(f"{name}.umockdev", "lsusb", "-v", "-d", device.tag)
        assert f"bNumInterfaces {len(device.interfaces):10d}" in output.stdout
        text = output.stdout + output.stderr
        assert not [word for word in ("Warning", "junk", "UNRECOGNIZED", "INVALID", "short") if word in text]
