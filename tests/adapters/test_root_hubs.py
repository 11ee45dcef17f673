"""The root hubs: closed, and restored to their earlier values, over crashes and damaged files."""

import json
import logging
from pathlib import Path

import pytest

from xenplug.adapters.root_hubs import RootHubs
from xenplug.core.protocols import Guard

CLOSED, OPEN = Guard(devices=True, interfaces=True), Guard()
NAMES = ("authorized_default", "interface_authorized_default")


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    hub(tmp_path, 1)
    hub(tmp_path, 2, devices="2")
    return tmp_path


def hub(sys: Path, bus: int, devices: str = "1") -> None:
    folder = sys / f"devices/pci0000:00/0000:00:14.0/usb{bus}"
    folder.mkdir(parents=True)
    for name, value in zip(NAMES, (devices, "1"), strict=True):
        (folder / name).write_text(f"{value}\n")
    by_name = sys / "bus/usb/devices"
    by_name.mkdir(parents=True, exist_ok=True)
    (by_name / f"usb{bus}").symlink_to(folder)


def values(sys: Path, bus: int) -> tuple[str, ...]:
    return tuple((sys / f"bus/usb/devices/usb{bus}" / name).read_text().strip() for name in NAMES)


def test_closed_and_opened_again(sys: Path) -> None:
    hubs = RootHubs(sys)
    hubs.set(Guard(interfaces=True))
    assert (values(sys, 1), values(sys, 2)) == (("1", "0"), ("2", "0"))
    hubs.set(CLOSED)
    assert (values(sys, 1), values(sys, 2)) == (("0", "0"), ("0", "0"))
    hubs.set(OPEN)
    assert (values(sys, 1), values(sys, 2)) == (("1", "1"), ("2", "1"))


def test_a_root_hub_that_appears_later(sys: Path) -> None:
    hubs = RootHubs(sys)
    hubs.again()
    assert values(sys, 1) == ("1", "1")
    hubs.set(CLOSED)
    hub(sys, 3)
    hubs.again()
    assert values(sys, 3) == ("0", "0")


def test_what_was_closed_before_stays_so(sys: Path, tmp_path: Path) -> None:
    hub(sys, 4, devices="0")
    hubs = RootHubs(sys)
    hubs.set(CLOSED)
    hubs.set(OPEN)
    assert values(sys, 4) == ("0", "1")


def test_a_crash_in_between(sys: Path, tmp_path: Path) -> None:
    note = tmp_path / "guard.json"
    RootHubs(sys, note).set(CLOSED)
    again = RootHubs(sys, note)
    again.set(CLOSED)
    again.set(OPEN)
    assert (values(sys, 1), values(sys, 2)) == (("1", "1"), ("2", "1"))
    assert json.loads(note.read_text()) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": {}}', '{"x": "1; rm"}', "[" * 5000, "\xff"])
def test_a_damaged_file_opens_nothing(sys: Path, tmp_path: Path, text: str) -> None:
    note = tmp_path / "guard.json"
    RootHubs(sys, note).set(CLOSED)
    note.write_text(text)
    again = RootHubs(sys, note)
    again.set(OPEN)
    assert values(sys, 1) == ("0", "0")


def test_a_symlink_is_not_followed(sys: Path, tmp_path: Path) -> None:
    precious, note = tmp_path / "precious", tmp_path / "guard.json"
    precious.write_text("{}")
    note.symlink_to(precious)
    RootHubs(sys, note).set(CLOSED)
    assert precious.read_text() == "{}"
    assert not note.is_symlink()


def test_what_cannot_be_written_is_logged(
    sys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("xenplug"), "propagate", True)
    folder = sys / "bus/usb/devices/usb9/authorized_default"
    folder.mkdir(parents=True)
    (tmp_path / "none").write_text("a file")
    RootHubs(sys, tmp_path / "none/guard.json").set(CLOSED)
    assert values(sys, 1) == ("0", "0")
    assert "cannot be written" in caplog.text
