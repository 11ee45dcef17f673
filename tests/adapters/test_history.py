"""The history: bounded, torn lines, unwritable places, full disks."""

from __future__ import annotations

import logging
import os
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplug.adapters.history import HistoryFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "history.jsonl"


def test_record_and_read(path: Path) -> None:
    history = HistoryFile(path)
    assert list(history.read()) == []
    events = [{"at": 1.5, "port": "1-4", "device": "046d:c016"}, {"at": 2.5, "port": "1-5", "note": "\x1b[2J\n\u202e"}]
    for event in events:
        history.record(event)
    assert list(HistoryFile(path).read()) == events
    assert path.read_bytes().isascii()
    assert path.read_bytes().count(b"\n") == 2


def test_of_one_device(path: Path) -> None:
    history = HistoryFile(path)
    events = [{"port": "1-4", "device": "046d:c016"}, {"controller": "0000:00:14.0"}, {"port": "1-5"}, {"guest": "1-4"}]
    for event in events:
        history.record(event)
    assert list(history.read("1-4")) == events[:1]
    assert list(history.read("046d:c016")) == events[:1]
    assert list(history.read("0000:00:14.0")) == events[1:2]
    assert list(history.read("1-6")) == []


def test_the_size_is_bounded_and_the_newest_is_kept(path: Path) -> None:
    history = HistoryFile(path, limit=2000)
    for number in range(1000):
        history.record({"n": number})
        total = sum(file.stat().st_size for file in path.parent.iterdir())
        assert total <= 2000
    numbers = [event["n"] for event in history.read()]
    assert numbers == list(range(numbers[0], 1000))
    assert len(numbers) > 60
    assert sorted(file.name for file in path.parent.iterdir()) == ["history.jsonl", "history.jsonl.1"]


def test_an_event_beyond_the_bound_is_dropped(path: Path) -> None:
    history = HistoryFile(path, limit=200)
    history.record({"n": 1})
    history.record({"x": "y" * 500})
    history.record({"n": 2})
    assert list(history.read()) == [{"n": 1}, {"n": 2}]


def test_a_torn_last_line_costs_only_itself(path: Path) -> None:
    history = HistoryFile(path)
    history.record({"n": 1})
    history.record({"n": 2})
    path.write_bytes(path.read_bytes()[:-4])
    assert list(history.read()) == [{"n": 1}]
    history.record({"n": 3})
    assert list(history.read()) == [{"n": 1}, {"n": 3}]


@settings(max_examples=50)
@given(garbage=st.binary(max_size=200))
def test_garbage_is_survived(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    path = tmp_path_factory.mktemp("h") / "history"
    path.write_bytes(garbage)
    history = HistoryFile(path)
    history.record({"n": 1})
    assert list(history.read())[-1] == {"n": 1}


def test_values_that_are_no_json(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    history = HistoryFile(path)
    history.record({"path": Path("/x"), "bytes": b"\xff"})
    assert list(history.read()) == [{"path": "/x", "bytes": "b'\\xff'"}]
    history.record({"key": {(1, 2): 3}})
    assert "history is not kept" in caplog.text


def test_a_full_disk_is_logged_once_and_so_is_its_end(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    history = HistoryFile(path)
    history.record({"n": 1})
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 3, was[1]))  # a part of the next line fits
    try:
        history.record({"n": 2})
        history.record({"n": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(caplog.records) == 1
    history.record({"n": 4})
    assert list(history.read()) == [{"n": 1}, {"n": 4}]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "kept again" in caplog.text


def test_places_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "file" / "h", tmp_path / "link"):
        caplog.clear()
        HistoryFile(path).record({"n": 1})
        assert "history is not kept" in caplog.text
    assert list(HistoryFile(tmp_path / "none").read()) == []


def test_a_removed_file_is_made_again(path: Path) -> None:
    history = HistoryFile(path)
    history.record({"n": 1})
    path.unlink()
    history.record({"n": 2})
    assert list(history.read()) == [{"n": 2}]
