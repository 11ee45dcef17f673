"""The ledger's file: the agent starts whatever happened to it, and logs what it does instead."""

from __future__ import annotations

import json
import logging
import os
import resource
from pathlib import Path

import pytest
from tests.core.make import AT_KIOSK, MOUSE, NOW, entry, guest_port

from xenplug.adapters.ledger import MAX_LEDGER_BYTES, LedgerFile
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.serialize import to_json


class Clock:
    def now(self) -> float:
        return NOW

    def wall(self) -> float:
        return 0.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.json"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("xenplug"), "propagate", True)
    return caplog


def kept(path: Path, clock: Clock | None = None) -> LedgerFile:
    return LedgerFile(path, clock or Clock())


READ_BACK = {guest_port(): entry(MOUSE, waited=0.0, used_for=0.0)}
"""The entry of AT_KIOSK after a restart: seconds are counted again."""
GOOD = json.dumps(to_json(AT_KIOSK)).encode()


def test_kept_and_loaded(path: Path) -> None:
    kept(path).save(AT_KIOSK)
    assert kept(path).load().entries == READ_BACK
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        GOOD[: len(GOOD) // 2],
        b"\0" * 4096,
        b"[" * 100_000,
        b"[]",
        b"null",
        GOOD.replace(b'"domid": 1', b'"domid": 1e999'),
        GOOD.replace(b'"domid": 1', b'"domid": NaN'),
        GOOD.replace(b'"domid": 1', b'"domid": ' + b"9" * 5000),
        GOOD.replace(b'"domid": 1', b'"domid": null'),
        GOOD.replace(b'"homes"', b'"hovels"'),
        b"\xff" + GOOD,
        GOOD + b" " * MAX_LEDGER_BYTES,
    ],
    ids=lambda data: repr(data[:12]) + str(len(data)),
)
def test_an_unreadable_ledger_is_logged_and_survived(path: Path, data: bytes, log: pytest.LogCaptureFixture) -> None:
    path.write_bytes(data)
    assert kept(path).load() == Ledger(at=NOW)
    assert "the attachments are taken from xenstore" in log.text


def test_a_missing_ledger_is_not_logged(path: Path, log: pytest.LogCaptureFixture) -> None:
    assert kept(path).load() == Ledger(at=NOW)
    assert log.text == ""


def test_a_symlink_is_neither_read_nor_written_through(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(GOOD)
    path.symlink_to(other)
    assert kept(path).load() == Ledger(at=NOW)
    kept(path).save(Ledger(at=NOW))
    assert other.read_bytes() == GOOD
    assert not path.is_symlink()


def test_a_fifo_does_not_block_the_start(path: Path) -> None:
    os.mkfifo(path)
    assert kept(path).load() == Ledger(at=NOW)


def test_a_failing_write_is_logged_once_and_so_is_its_end(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    ledger_store = kept(tmp_path / "none/ledger.json")
    (tmp_path / "none").write_text("a file")
    ledger_store.save(AT_KIOSK)
    ledger_store.save(AT_KIOSK)
    assert log.text.count("cannot be written") == 1
    (tmp_path / "none").unlink()
    ledger_store.save(AT_KIOSK)
    assert ledger_store.load().entries == READ_BACK
    (tmp_path / "none/ledger.json").unlink()
    (tmp_path / "none").rmdir()
    (tmp_path / "none").write_text("a file")
    ledger_store.save(AT_KIOSK)
    assert log.text.count("cannot be written") == 2


def test_out_of_file_descriptors(path: Path) -> None:
    ledger_store = kept(path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))  # EMFILE for every file that is opened
    try:
        ledger_store.save(AT_KIOSK)
        found = ledger_store.load()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert found == Ledger(at=NOW)
    ledger_store.save(AT_KIOSK)
    assert ledger_store.load().entries == READ_BACK
