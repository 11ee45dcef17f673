"""`xenplug xl-cfg`: the lines it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xenplug.cli.main import main

POLICY = """version: 1
guests: {win11: {controller: {type: devicemodel}}}
rules: [{match: {kind: [mouse, keyboard]}, attach: win11, via: pci}]
"""


@pytest.fixture
def host() -> str:
    """A recorded host with a mouse or a keyboard on some PCI controller."""
    folder = Path(__file__).parent.parent / "data" / "umockdev"
    return str(sorted(folder.glob("*.umockdev"))[0])


def test_lines_for_a_guest(tmp_path: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(POLICY)
    words = ["xl-cfg", "win11", "--policy", str(file), "--host", host]
    assert main(words) in (0, 1)
    assert 'usbctrl = ["type=devicemodel,version=3,ports=15"]\npassthrough = "enabled"' in capsys.readouterr().out
    assert main([*words, "--type", "pv", "--json"]) in (0, 1)
    report = json.loads(capsys.readouterr().out)
    assert (report["guest"], report["type"]) == ("win11", "pv")
    assert main(["xl-cfg", "-x11", "--policy", str(file), "--host", host]) == 2
    assert main(["xl-cfg", "12", "--policy", str(file), "--host", host]) == 1
    assert "digits only" in capsys.readouterr().err
