"""Reads and writes the agent's own files: completely or not at all, with a size limit, and by one agent at a time.

The ledger, the history and the daemon use it, so that after a crash, a full disk or a planted symlink a file has either
the old content or the new, and the caller gets a clear error.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from xenplug.adapters.kept_folder import KeptFolder


class Unfit(Exception):
    """A file that is not read: it is not a regular file, or too large. The text names it and the reason."""


class Locked(Exception):
    """Another process holds the lock; the text names it."""


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` at `path` so that a reader, even after a power cut, finds the old content or the new.

    A symlink at `path` is replaced, not followed. For one writer at a time: the next writer removes the incomplete file
    of one that was killed. Raises OSError, with the old content untouched.
    """
    made_at = path.with_name(f".{path.name}.new")
    made_at.unlink(missing_ok=True)
    number = os.open(made_at, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(number, "wb") as made:
            made.write(data)
            made.flush()
            os.fchmod(number, mode)
            os.fsync(number)
        made_at.replace(path)
    except BaseException:
        with suppress(OSError):
            made_at.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable (fsync(2): a file's fsync does not cover its name)."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read_bounded(path: Path, limit: int, *, follow: bool = True) -> bytes:
    """The content of a regular file of at most `limit` bytes. Never waits, as opening a FIFO would.

    Without `follow` a symlink at `path` is an OSError (ELOOP). Raises OSError or Unfit.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    number = os.open(path, flags)
    try:
        return read_opened(number, path, limit)
    finally:
        os.close(number)


def read_opened(number: int, path: Path, limit: int) -> bytes:
    """As read_bounded, of an open file; `path` is its name in messages. Raises OSError or Unfit."""
    check_regular(number, path)
    data = bytearray()
    while len(data) <= limit and (chunk := os.read(number, min(1 << 20, limit + 1 - len(data)))):
        data += chunk
    if len(data) > limit:
        raise Unfit(f"{path}: larger than the limit of {limit} bytes; shorten or split it")
    return bytes(data)


def read_end(path: Path, limit: int) -> bytes:
    """The last `limit` bytes of a regular file. Symlinks are not followed. Never waits. Raises OSError or Unfit."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW)
    try:
        check_regular(number, path)
        return os.pread(number, limit, max(0, os.fstat(number).st_size - limit))
    finally:
        os.close(number)


def check_regular(number: int, path: Path) -> None:
    """Raises Unfit if the open file is not a regular one but a FIFO, a device …, IsADirectoryError if it is a
    folder.
    """
    mode = os.fstat(number).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise Unfit(f"{path}: not a regular file; put a regular file there")


class Lock:
    """A lock that is held until release() or the end of the process, however it ends."""

    def __init__(self, number: int, path: Path, stop: str) -> None:
        self._number = number
        self._path, self._stop = path, stop
        self._folder = KeptFolder(path.parent)
        self._folder.ensure()

    def restore(self) -> bool:
        """Take the lock again if its file was removed. False if that fails, or another process took it by now."""
        try:
            self._folder.ensure()
            there = os.lstat(self._path)
        except FileNotFoundError:
            try:
                taken = lock(self._path, self._stop)
            except (OSError, Locked):
                return False
            os.close(self._number)
            self._number, taken._number = taken._number, -1
            return True
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._number))

    def release(self) -> None:
        """Release the lock. The file stays: if it were removed, two processes could hold a lock of the same name."""
        if self._number >= 0:
            os.close(self._number)
            self._number = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def _check_lock(number: int, path: Path) -> None:
    try:
        check_regular(number, path)
    except Unfit:
        raise Locked(f"{path}: not a regular file, so it cannot be the agent's lock; remove it") from None


def lock(path: Path, stop: str) -> Lock:
    """Take the lock at `path` (created with its folder if missing), without waiting. Raises Locked or OSError.

    `stop`: how a person stops the process that holds it.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # 0600: a process that can open the file, even for reading, could take the lock and keep the agent from starting.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        number = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise Locked(f"{path}: a symlink, so it cannot be the agent's lock; remove it") from None
    try:
        _check_lock(number, path)
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(OSError):  # only for messages; a full disk must not keep the agent from starting
            os.ftruncate(number, 0)
            os.pwrite(number, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        holder = os.pread(number, 20, 0).decode("ascii", "replace").strip()
        os.close(number)
        who = f"agent, process {holder}," if holder.isdecimal() else "agent"
        raise Locked(f"{path}: another {who} holds this lock; stop it first ({stop})") from None
    except BaseException:
        os.close(number)
        raise
    return Lock(number, path, stop)
