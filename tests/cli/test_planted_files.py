"""Commands on unexpected files (FIFOs, devices, folders, huge files): each ends soon, with a fact and a remedy."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from xenplug.cli.main import main

COMMANDS = {
    "settings": ["config", "--settings", "{}"],
    "policy": ["check", "--elsewhere", "{}"],
    "policy folder": ["check", "--elsewhere", "{folder}"],
    "recording": ["devices", "--host", "{}"],
    "import": ["import", "{}"],
    "scenario": ["test", "{}"],
    "story": ["simulate", "{}"],
    "guests": ["run", "--toolstack", "simulated", "--dry-run", "--host", "{desk}", "--guests", "{}"],
    "run's recording": ["run", "--toolstack", "simulated", "--dry-run", "--host", "{}"],
}
DESK = Path(__file__).parents[1] / "data/umockdev/desk.umockdev"


def plant(kind: str, place: Path) -> None:
    match kind:
        case "fifo":
            os.mkfifo(place)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(place))
        case "device":
            place.symlink_to("/dev/zero")
        case "folder":
            place.mkdir()
        case "huge":
            place.touch()
            os.truncate(place, 3 << 30)
        case "loop":
            place.symlink_to(place.name)
        case "garbage":
            place.write_bytes(bytes(range(256)) * 100)


@pytest.fixture
def soon() -> Iterator[None]:
    """Ends a test that hangs, such as a command that waits for a FIFO's writer."""
    signal.alarm(120)
    yield
    signal.alarm(0)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder", "huge", "loop", "garbage"])
@pytest.mark.parametrize("what", COMMANDS)
def test_a_planted_file_is_refused_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, kind: str
) -> None:
    (tmp_path / "d").mkdir()
    place = tmp_path / "d/x.yaml"
    plant(kind, place)
    argv = [word.format(place, folder=tmp_path / "d", desk=DESK) for word in COMMANDS[what]]
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    argv += ["--policy", str(tmp_path / "policy.yaml")] if argv[0] == "run" else []
    assert main(argv) in (1, 2)
    ended = capsys.readouterr()
    output = ended.err + ended.out
    assert "Traceback" not in output
    assert "x.yaml" in output or "/d" in output
    assert "; " in output
