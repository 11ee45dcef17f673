"""A device's own texts in every command that prints devices: the output has only printable lines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.recordings import HOSTILE, hostile

from xenplug.cli.main import main

POLICY = "version: 1\nrules:\n  - {name: mice, match: {kind: mouse, product: '*'}, attach: kiosk}\n"
TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
COMMANDS = (
    ["devices"],
    ["devices", "--json"],
    ["devices", "--tree"],
    ["explain", "046d:c016"],
    ["explain", "046d:c016", "--json"],
    ["check"],
)
NAMES = HOSTILE | {"long": b"A" * 100_000, "nothing": b"\n\n\x00", "invisible": "\u3164\u200b\ufeff".encode()}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", NAMES)
def test_only_printable_lines(
    name: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XENPLUG_SOCKET", str(tmp_path / "none.sock"))
    hostile(tmp_path / "host.umockdev", NAMES[name])
    (tmp_path / "policy.yaml").write_text(POLICY)
    more = ["--host", str(tmp_path / "host.umockdev")] if command[0] != "check" else []
    policy = ["--policy", str(tmp_path / "policy.yaml")] if command[0] != "devices" else []
    assert main([*command, *more, *policy]) in (0, 1)
    output = capsys.readouterr()
    for line in (output.out + output.err).splitlines():
        assert line.isprintable(), line
        assert not TURNS.search(line)
        assert len(line) < 2000
    if "--json" in command:
        json.loads(output.out)


def test_a_first_policy_of_a_hostile_device_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in NAMES.items():
        hostile(tmp_path / "host.umockdev", words)
        file = tmp_path / name / "usb.yaml"
        file.parent.mkdir()
        host = ["--host", str(tmp_path / "host.umockdev")]
        assert main(["init", "--give", "046d:c016=kiosk", *host, str(file)]) == 0, capsys.readouterr()
        assert main(["check", "--policy", str(file)]) in (0, 1)
        assert "\x1b" not in file.read_text()
        assert all(line.isprintable() for line in file.read_text().splitlines())
