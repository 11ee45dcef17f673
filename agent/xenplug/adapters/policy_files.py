"""Policy files on disk -> their names and bytes, for core/policy/load to read.

A policy is one file, or a folder's *.yaml in C-locale order. A file that cannot be read is a Problem and is never
skipped silently: a rule that is not read sends a device to the wrong place. A folder is opened once and its files are
opened below it, so that a folder that is replaced during the reading is read in its old or its new state, not half of
each.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from xenplug.adapters.path_permissions import Opened, PermissionFault, Walk
from xenplug.core.documents.document import MAX_BYTES
from xenplug.core.documents.problems import Problem
from xenplug.core.printable import escaped


def read(path: Path, *, guarded: bool = False) -> tuple[dict[str, bytes], list[Problem]]:
    """The files of a policy in the order in which their rules are tried, and the files that cannot be read. Never
    raises.

    `guarded`: files that users other than root may change, also through a folder on the way, are problems too.
    """
    walk = Walk()
    files, problems = _read(path, walk)
    return files, [*problems, *fault_problems(walk.faults() if guarded else [])]


def fault_problems(faults: Sequence[PermissionFault]) -> list[Problem]:
    """Permissions that are too wide, as problems of the files."""
    return [_problem(place, message) for place, message in faults]


def _read(path: Path, walk: Walk) -> tuple[dict[str, bytes], list[Problem]]:
    files: dict[str, bytes] = {}
    try:
        with closing(walk.open(path)) as opened:
            if opened.is_folder:
                return _folder(path, opened, walk)
            files[_name(path)] = _bytes(opened)
    except (OSError, ValueError) as error:
        return {}, [_unreadable(path, error)]
    return files, []


def _folder(path: Path, folder: Opened, walk: Walk) -> tuple[dict[str, bytes], list[Problem]]:
    files: dict[str, bytes] = {}
    problems = []
    names = sorted(os.listdir(folder.number), key=os.fsencode)  # noqa: PTH208 - of a descriptor
    visible = [path / name for name in names if not name.startswith(".")]
    for file in (file for file in visible if file.suffix == ".yaml"):
        try:
            name = _name(file)
            with closing(walk.open(Path(file.name), folder)) as opened:
                files[name] = _bytes(opened)
        except (OSError, ValueError) as error:
            problems.append(_unreadable(file, error))
    problems += [
        _problem(file, "not read: only *.yaml files are; rename it to .yaml") for file in visible if _misnamed(file)
    ]
    if not files and not problems:
        problems = [_problem(path, "contains no *.yaml; write a policy there, or name another with --policy")]
    return files, sorted(problems, key=lambda problem: problem.file)


def _misnamed(file: Path) -> bool:
    return file.suffix.lower() in (".yml", ".yaml") and file.suffix != ".yaml"


def _name(path: Path) -> str:
    if not str(path).isprintable():
        raise ValueError("its name is not plain text")
    return str(path)


def _bytes(opened: Opened) -> bytes:
    """The content, up to one byte more than the limit of a document."""
    if opened.is_folder:
        raise ValueError("it is not a regular file")
    with os.fdopen(os.dup(opened.number), "rb") as file:
        return file.read(MAX_BYTES + 1)


def _unreadable(path: Path, error: Exception) -> Problem:
    return _problem(path, f"cannot be read ({_why(error)}); {_remedy(error)}")


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _remedy(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "write it, or name another with --policy"
    if isinstance(error, PermissionError):
        return "run as a user who may read it"
    return "put a regular file there"


def _problem(path: Path, message: str) -> Problem:
    shown = escaped(str(path))
    return Problem(shown, 1, 1, "", message)
