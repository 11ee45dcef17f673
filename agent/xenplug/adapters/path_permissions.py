"""Whether others than root can change what a path names: the file, its folders, the symlinks on the way.

An agent that runs as root reads its policy and settings only from where root alone decides what stands there. Whoever
may write a folder on the way, or owns a symlink in it, could put another file in the place of root's between two looks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

LINKS = 40
"""Symlinks that the kernel follows at most (path_resolution(7))."""


def faults(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Everything on the way to these paths that others than root may write, and how to mend it. Never raises.

    What is not there, or may not be looked at, is passed over: whoever reads the file tells.
    """
    for place in sorted({step for path in paths for step in way(path)}):
        try:
            found = place.lstat()
        except OSError:
            continue
        yield from ((place, words) for words in _words(place, found))


def way(path: Path) -> Iterator[Path]:
    """The folders and symlinks that decide what the path names, and what it names, from the root on."""
    here, links = Path("/"), 0
    todo = [*reversed(path.absolute().parts[1:])]
    yield here
    while todo:
        part = todo.pop()
        if part == "..":
            here = here.parent
            continue
        here /= part
        yield here
        target = _target(here)
        if target is not None:
            links += 1
            if links > LINKS:
                return
            todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            here = Path("/") if target.is_absolute() else here.parent


def _target(path: Path) -> Path | None:
    try:
        return path.readlink()
    except (OSError, ValueError):
        return None  # no symlink, or none that can be read


def _words(place: Path, found: os.stat_result) -> Iterator[str]:
    what = {stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}.get(stat.S_IFMT(found.st_mode), "file")
    if found.st_uid != 0:
        message = f"the {what} belongs to user {found.st_uid}, not to root, so the agent does not read it"
        yield f"{message}; `chown -h root:root {place}`"
    # In a folder with the sticky bit (/tmp) nobody can put another file in the place of root's.
    sticky = what == "folder" and found.st_mode & stat.S_ISVTX
    group = found.st_mode & stat.S_IWGRP and found.st_gid != 0
    if what != "symlink" and (group or found.st_mode & stat.S_IWOTH) and not sticky:
        message = (
            f"others than root may write this {what} (mode {stat.S_IMODE(found.st_mode):o}), so the agent does not"
        )
        yield f"{message} read it; `chmod go-w {place}`"
