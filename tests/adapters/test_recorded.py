"""`record`: what is written is read back as the same devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.recordings import HOSTILE, MOUSE, hostile

from xenplug.adapters import recording
from xenplug.core.usb.device import describe
from xenplug.core.usb.recording import render, without_serials

RECORDINGS = [path for path in sorted(MOUSE.parent.glob("*.umockdev")) if recording.read(path)]


def again(path: Path, tmp_path: Path, text: str) -> list[object]:
    file = tmp_path / "again.umockdev"
    file.write_text(text)
    return [describe(raw) for raw in recording.read(file)]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_same_devices_come_back(path, tmp_path):
    raws = recording.read(path)
    text = render(raws, recording.controllers(path))
    before = {d.port: d for d in map(describe, raws) if d}
    after = {d.port: d for d in again(path, tmp_path, text) if d}
    assert after == before
    assert recording.controllers(tmp_path / "again.umockdev") == recording.controllers(path)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(name, tmp_path):
    path = hostile(tmp_path / "x.umockdev", HOSTILE[name])
    raws = recording.read(path)
    assert again(path, tmp_path, render(raws, ())) == [describe(raw) for raw in raws]


def test_without_serials(tmp_path):
    path = hostile(tmp_path / "x.umockdev", b"SECRET7")
    raws = recording.read(path)
    text = render(map(without_serials, raws), ())
    assert "serial" not in text.lower()
    expected = [replace(d, serial=None) for d in map(describe, raws) if d]
    assert again(path, tmp_path, text) == expected
