"""Whole files, bounded reading, and one agent at a time; on real files, full disks and other processes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from xenplug.adapters import files
from xenplug.adapters.files import Locked, Unfit, lock, read_bounded, read_end, write_atomic

STOP = "systemctl stop xenplug"

SOURCES = Path(files.__file__).parents[2]


def test_write_and_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    for data in (b"one", b"", b"x" * 100_000):
        write_atomic(path, data)
        assert read_bounded(path, 100_000, follow=False) == data
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.json"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_mode_is_as_given_under_any_umask(tmp_path: Path, mode: int) -> None:
    old = os.umask(0o077)
    try:
        write_atomic(tmp_path / "f", b"x", mode)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode


def test_a_symlink_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "f").symlink_to("target")
    write_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert (tmp_path / "f").read_bytes() == b"new"
    assert not (tmp_path / "f").is_symlink()


def test_a_failed_write_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, was[1]))  # the kernel cuts the write short, like a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_writers_that_were_killed_leave_nothing_for_good(tmp_path: Path) -> None:
    """Seen on the bench: each kill -9 in the middle of a write left a file behind."""
    (tmp_path / "target").write_bytes(b"precious")
    left = tmp_path / ".f.new"
    for half in (lambda: left.write_bytes(b"half"), lambda: left.symlink_to("target")):
        half()
        write_atomic(tmp_path / "f", b"new")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["f", "target"]
    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=_killed_in_the_middle, args=(tmp_path / "f",))
        process.start()
        process.join()
        assert sorted(file.name for file in tmp_path.iterdir()) == [".f.new", "f", "target"]
    assert (tmp_path / "f").read_bytes() == b"new"
    write_atomic(tmp_path / "f", b"newer")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["f", "target"]
    assert (tmp_path / "target").read_bytes() == b"precious"


def _killed_in_the_middle(path: Path) -> None:
    os.fsync = lambda _number: os.kill(os.getpid(), signal.SIGKILL)
    write_atomic(path, b"newest")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "f", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "folder", b"x")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_bounded(tmp_path / "f", 5) == b"12345"
    with pytest.raises(Unfit, match="the limit of 4 bytes"):
        read_bounded(tmp_path / "f", 4)


def test_reading_something_that_is_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(Unfit, match="not a regular file"):
            read_bounded(path, 10)
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path, 10)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 10)


def test_reading_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f")
    assert read_bounded(tmp_path / "link", 10) == b"x"
    with pytest.raises(OSError, match="symbolic links"):
        read_bounded(tmp_path / "link", 10, follow=False)


def test_the_end_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert [read_end(tmp_path / "f", limit) for limit in (2, 5, 9)] == [b"45", b"12345", b"12345"]
    (tmp_path / "link").symlink_to("f")
    with pytest.raises(OSError, match="symbolic links"):
        read_end(tmp_path / "link", 9)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Unfit, match="not a regular file"):
        read_end(tmp_path / "fifo", 9)


def test_a_lock_that_is_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(Locked, match="not a regular file, so it cannot be the agent's lock; remove it"):
        lock(tmp_path / "lock", STOP)


HOLDER = (
    "import sys; from pathlib import Path; from xenplug.adapters.files import lock; l = lock(Path(sys.argv[1]), '')\n"
)


def hold(path: Path) -> subprocess.Popen[str]:
    script = HOLDER + "print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        env={"PYTHONPATH": str(SOURCES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_agent_is_refused_by_the_firsts_number(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with hold(path) as first:
        with pytest.raises(Locked) as raised:
            lock(path, STOP)
        assert str(raised.value) == (
            f"{path}: another agent, process {first.pid}, holds this lock; stop it first ({STOP})"
        )
        first.kill()
    with lock(path, STOP):  # a killed agent's lock is free at once
        assert path.read_text() == f"{os.getpid()}\n"


def test_release_and_take_again(tmp_path: Path) -> None:
    first = lock(tmp_path / "lock", STOP)
    with pytest.raises(Locked):
        lock(tmp_path / "lock", STOP)
    first.release()
    first.release()
    with lock(tmp_path / "lock", STOP), pytest.raises(Locked):
        lock(tmp_path / "lock", STOP)


def test_a_holder_without_a_number(tmp_path: Path) -> None:
    with lock(tmp_path / "lock", STOP):
        (tmp_path / "lock").write_bytes(b"\xff\x1b[2J")
        with pytest.raises(Locked, match="another agent holds this lock"):
            lock(tmp_path / "lock", STOP)


def test_the_lock_is_no_symlink_and_not_for_others(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("lock")
    with pytest.raises(Locked, match="link: a symlink, so it cannot be the agent's lock; remove it"):
        lock(tmp_path / "link", STOP)
    with lock(tmp_path / "lock", STOP):
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_children_do_not_keep_the_lock(tmp_path: Path) -> None:
    held = lock(tmp_path / "lock", STOP)
    with subprocess.Popen(["sleep", "60"]) as child:
        held.release()
        lock(tmp_path / "lock", STOP).release()
        child.kill()
