"""The history: bounded, torn lines, unwritable places, full disks."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import socket
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplug.adapters.history import HistoryFile
from xenplug.cli.main import main
from xenplug.service.bootstrap import HostClock
from xenplug.service.history import History


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


def test_an_event_beyond_the_limit_is_dropped(path: Path) -> None:
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
    assert "history is not recorded" in caplog.text


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
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "recorded again" in caplog.text
    assert list(history.read()) == [{"n": 1}, {"n": 4}]


def test_places_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "file" / "h", tmp_path / "link"):
        caplog.clear()
        HistoryFile(path).record({"n": 1})
        assert "history is not recorded" in caplog.text
    assert list(HistoryFile(tmp_path / "none").read()) == []


def test_a_removed_file_is_made_again(path: Path) -> None:
    history = HistoryFile(path)
    history.record({"n": 1})
    path.unlink()
    history.record({"n": 2})
    assert list(history.read()) == [{"n": 2}]


BAD_LINES = [
    b'{"port":["x"]}', b'{"port":{"x":1}}', b'{"at":1e999}', b'{"at":-1e999}', b'{"at":NaN}', b'{"at":Infinity}',
    b'{"line":[]}', b'{"x":' + b"9" * 5000 + b"}", b"[" * 5000, b'{"a":' * 5000, b"[]", b"7", b'"x"', b"null", b"\xff",
    b'{"port":"1-1"', b"\0" * 100, b'{"state":[["x"]],"port":"1-1"}',
]  # fmt: skip


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_skipped_and_reported_once(path: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"n":1}\n' + line + b'\n{"n":2,"port":"1-1"}\n')
    history = HistoryFile(path)
    kept = History(HostClock(), history)
    assert list(kept.read()) == [{"n": 1}, {"n": 2, "port": "1-1"}]
    assert list(kept.read("1-1")) == [{"n": 2, "port": "1-1"}]
    assert [record.getMessage() for record in caplog.records] == [
        f"history: {path}: damaged lines skipped: 1; move the file away to start a new one"
    ]
    json.dumps(list(history.read()), allow_nan=False)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "socket", "device"])
def test_a_file_that_is_not_its_own_is_not_read(
    path: Path, kind: str, older: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    place = path.with_name(f"{path.name}.1") if older else path
    match kind:
        case "fifo":
            os.mkfifo(place)
        case "link":
            (path.parent / "other").write_text('{"n":1}\n')
            place.symlink_to("other")
        case "folder":
            place.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(place))
        case "device":
            place.symlink_to("/dev/zero")
    history = HistoryFile(path)
    assert list(history.read()) == list(history.read()) == []
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        f"history: {place}: cannot be read"
    ]
    caplog.clear()
    history.record({"n": 2})
    if not older:
        assert "history is not recorded" in caplog.text


def test_of_a_huge_file_only_the_end_is_read(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"n":0}\n')
    os.truncate(path, 3 << 30)
    with path.open("ab") as file:
        file.write(b'\n{"n":1}\n{"n":2}\n')
    tracemalloc.start()
    try:
        assert list(HistoryFile(path, 100_000).read()) == [{"n": 1}, {"n": 2}]
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    path.write_bytes(b"".join(b'{"n":%d}\n' % n for n in range(1000)))
    numbers = [event["n"] for event in HistoryFile(path, 2000).read()]
    assert numbers == list(range(numbers[0], 1000))
    assert numbers[0] > 0


def test_a_history_that_a_user_may_not_read_is_no_bug(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s").write_text(f"version: 1\ncontrol: {{socket: {tmp_path}/c}}\nhistory: {{file: {tmp_path}/x/h}}\n")
    (tmp_path / "x").write_text("no folder")
    assert main(["history", "--settings", str(tmp_path / "s")]) == 1
    assert "no agent answers" in capsys.readouterr().err
