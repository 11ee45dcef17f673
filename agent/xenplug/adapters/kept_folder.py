"""A folder of the agent's own files (state, control socket, history) that may vanish while the agent runs.

It is made again as it was. A symlink or another user's folder in its place is refused: the agent, as root, would
write where others want it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

log = logging.getLogger("xenplug")

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class KeptFolder:
    """The folder at `path`: as it is when it is first used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._was: os.stat_result | None = None
        self._linked = False

    def ensure(self) -> None:
        """Make the folder if it is missing. Raises OSError, also if something else is in its place."""
        try:
            self._check(os.lstat(self._path))
        except FileNotFoundError:
            self._path.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self._was:
                self._as_before(self._was)
                log.warning("%s: the folder was removed while the agent ran; it was made again", self._path)
        if self._was is None:
            self._was, self._linked = self._path.stat(), self._path.is_symlink()

    def _check(self, now: os.stat_result) -> None:
        was = self._was
        if was is None or self._linked:
            return
        if stat.S_ISLNK(now.st_mode):
            raise self._refused("a symlink is in place of the folder")
        if not stat.S_ISDIR(now.st_mode):
            raise self._refused("something else is in place of the folder")
        if now.st_uid not in (was.st_uid, os.geteuid()) or now.st_mode & OTHERS_WRITE & ~was.st_mode:
            raise self._refused("another folder, which other users may write, is in its place")

    def _refused(self, fact: str) -> OSError:
        return OSError(errno.EPERM, f"{fact}; remove it, and the agent makes the folder again", str(self._path))

    def _as_before(self, was: os.stat_result) -> None:
        # Not by name: nothing that is put there in between may get the owner or the mode.
        number = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(number, stat.S_IMODE(was.st_mode))
            made = os.fstat(number)
            if (made.st_uid, made.st_gid) != (was.st_uid, was.st_gid):
                os.fchown(number, was.st_uid, was.st_gid)
        finally:
            os.close(number)
