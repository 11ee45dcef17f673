"""Whether users other than root can change what a path names: the file, its folders, the symlinks on the way.

An agent that runs as root reads its policy and settings, and runs its programs, only from places that root alone
controls. A user who may write a folder on the way, or owns a symlink in it, could replace root's file between the check
and the use. So a path is walked one component at a time, each opened below the descriptor of the one before it
(openat(2), O_NOFOLLOW), and the permissions checked are those of the opened file: nothing can be replaced between the
check and the reading.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

LINKS = 40
"""Maximum number of symlinks that the kernel follows (path_resolution(7))."""
ROOT = Path("/")
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

PermissionFault = tuple[Path, str]
"""A file, folder or symlink; what is wrong with its permissions, and how to fix it."""


def faults(paths: Iterable[Path], verb: str = "read", root: Path = ROOT) -> list[PermissionFault]:
    """Everything on the way to these paths that users other than root may write, and how to fix it. Never raises.

    Files that do not exist or may not be read are skipped: the code that opens them reports that. `verb`: what the
    agent does not do with such a file. `root`: the folder that stands for `/`.
    """
    walk = Walk(root)
    for path in paths:
        try:
            os.close(walk.locate(path)[0])
        except (OSError, ValueError):
            continue
    return walk.faults(verb)


class Walk:
    """Opens paths component by component, and notes the permissions of each."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._met: dict[tuple[Path, int, int], os.stat_result] = {}

    def open(self, path: Path, folder: Opened | None = None) -> Opened:
        """Open a regular file or a folder for reading. A relative path begins at `folder`, else at the current one.

        Never waits. Raises OSError or ValueError; the components opened before are noted even then.
        """
        number, place = self.locate(path, folder)
        try:
            mode = os.fstat(number).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise OSError(errno.EINVAL, "it is not a regular file", str(path))
            # Not by its name, which may name another file by now: proc(5), /proc/self/fd.
            return Opened(os.open(f"/proc/self/fd/{number}", _READ), place, is_folder=stat.S_ISDIR(mode))
        finally:
            os.close(number)

    def locate(self, path: Path, folder: Opened | None = None) -> tuple[int, Path]:
        """An O_PATH descriptor of the path's target, which the caller must close, and its real path."""
        if folder is not None and not path.is_absolute():
            steps = _Steps(self._root, os.dup(folder.number), folder.place, [*reversed(path.parts)])
        else:
            steps = _Steps(self._root, os.open(self._root, _LOOK), ROOT, [*reversed(path.absolute().parts[1:])])
        try:
            self._note(steps.place, steps.number)
            while steps.todo:
                self._note(*steps.go())
        except BaseException:
            os.close(steps.number)
            raise
        return steps.number, steps.place

    def _note(self, place: Path, met: int | os.stat_result) -> None:
        found = os.fstat(met) if isinstance(met, int) else met
        self._met[place, found.st_dev, found.st_ino] = found

    def faults(self, verb: str = "read") -> list[PermissionFault]:
        """The components that users other than root may change, by path. `verb`: what the agent therefore does not
        do.
        """
        met = sorted(self._met.items(), key=lambda entry: entry[0][0])
        return [(key[0], words) for key, found in met for words in _words(key[0], found, verb)]


@dataclass(frozen=True, slots=True)
class Opened:
    """A file or folder open for reading: it stays the same even if its name is reused. `place`: its real path."""

    number: int
    place: Path
    is_folder: bool = True

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.number)


@dataclass(slots=True)
class _Steps:
    """The state of a walk: the descriptor and real path reached, and the remaining components, the next one last."""

    root: Path
    number: int
    place: Path
    todo: list[str]
    links: int = field(default=0)

    def go(self) -> tuple[Path, os.stat_result]:
        """Walk one component and return what was found. A symlink's target is put before the rest."""
        part = self.todo.pop()
        if part == ".." and self.place == ROOT:
            return ROOT, os.fstat(self.number)
        place = self.place.parent if part == ".." else self.place / part
        below = os.open(part, _LOOK, dir_fd=self.number)
        try:
            found = os.fstat(below)
            if stat.S_ISLNK(found.st_mode):
                self._follow(Path(os.readlink("", dir_fd=below)))
            else:
                self.number, below, self.place = below, self.number, place
        finally:
            os.close(below)
        return place, found

    def _follow(self, target: Path) -> None:
        self.links += 1
        if self.links > LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(target))
        self.todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        if target.is_absolute():
            old, self.number, self.place = self.number, os.open(self.root, _LOOK), ROOT
            os.close(old)


def _words(place: Path, found: os.stat_result, verb: str) -> Iterable[str]:
    what = {stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}.get(stat.S_IFMT(found.st_mode), "file")
    if found.st_uid != 0:
        message = f"the {what} belongs to user {found.st_uid}, not to root, so the agent does not {verb} it"
        yield f"{message}; `chown -h root:root {place}`"
    # In a folder with the sticky bit (/tmp) other users cannot replace root's file.
    sticky = what == "folder" and found.st_mode & stat.S_ISVTX
    group = found.st_mode & stat.S_IWGRP and found.st_gid != 0
    if what != "symlink" and (group or found.st_mode & stat.S_IWOTH) and not sticky:
        mode = stat.S_IMODE(found.st_mode)
        message = f"users other than root may write this {what} (mode {mode:o}), so the agent does not {verb} it"
        yield f"{message}; `chmod go-w {place}`"
