"""Policy files on disk -> their names and bytes, for core/policy/load to read.

A policy is one file, or a folder's *.yaml in C-locale order. What is there but cannot be read is a Problem, never
skipped in silence: a rule that a user wrote and nobody read is a device in the wrong place.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from xenplug.adapters.path_permissions import faults
from xenplug.core.documents.document import MAX_BYTES
from xenplug.core.documents.problems import Problem
from xenplug.core.printable import escaped


def read(path: Path) -> tuple[dict[str, bytes], list[Problem]]:
    """The files of a policy in the order in which they are tried, and what could not be read. Never raises."""
    try:
        if not path.is_dir():
            return _gather([path])
        names = sorted((entry.name for entry in path.iterdir()), key=os.fsencode)
    except (OSError, ValueError) as error:
        return {}, [_problem(path, f"cannot be read ({_why(error)}); {_remedy(error)}")]
    visible = [path / name for name in names if not name.startswith(".")]
    files, problems = _gather([file for file in visible if file.suffix == ".yaml"])
    problems += [_problem(file, "not read, only *.yaml is; rename it to .yaml") for file in visible if _misnamed(file)]
    if not files and not problems:
        problems = [_problem(path, "holds no *.yaml; write a policy there, or name another with --policy")]
    return files, sorted(problems, key=lambda problem: problem.file)


def unsafe(path: Path) -> list[Problem]:
    """Files and folders of a policy that others than root may change: whoever may, decides who gets which device."""
    places = [path]
    try:
        places += [entry for entry in path.iterdir() if entry.suffix == ".yaml"] if path.is_dir() else []
    except (OSError, ValueError):
        return []  # `read` tells why
    return [_problem(place, message) for place, message in faults(places)]


def _misnamed(file: Path) -> bool:
    return file.suffix.lower() in (".yml", ".yaml") and file.suffix != ".yaml"


def _gather(paths: list[Path]) -> tuple[dict[str, bytes], list[Problem]]:
    files: dict[str, bytes] = {}
    problems = []
    for path in paths:
        try:
            files[_name(path)] = _bytes(path)
        except (OSError, ValueError) as error:
            problems.append(_problem(path, f"cannot be read ({_why(error)}); {_remedy(error)}"))
    return files, problems


def _name(path: Path) -> str:
    if not str(path).isprintable():
        raise ValueError("its name is not plain text")
    return str(path)


def _bytes(path: Path) -> bytes:
    """The content, up to a byte more than a document may have."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _remedy(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "write it, or name another with --policy"
    if isinstance(error, PermissionError):
        return "run as a user who may read it"
    return "put a plain file there"


def _problem(path: Path, message: str) -> Problem:
    shown = escaped(str(path))
    return Problem(shown, 1, 1, "", message)
