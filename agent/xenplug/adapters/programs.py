"""The programs that the settings name and root runs: where they are, and whether users other than root can change them.

xl is searched in PATH once, at the start, and then called by that path: a program put into another folder of PATH later
is not run. Hooks are named by absolute paths.
"""

from __future__ import annotations

import os
from pathlib import Path

from xenplug.adapters.path_permissions import ROOT, PermissionFault, faults
from xenplug.adapters.xl import past_wrapper
from xenplug.core.settings import Settings


def found_xl(xl: str, root: Path = ROOT) -> str:
    """The absolute path of the xl of the settings, without Debian's wrapper script; the name if it is not found."""
    return past_wrapper(_on_path(xl, root), root)


def _on_path(name: str, root: Path) -> str:
    """Search like execvp(3), but in absolute folders only: root does not control what `.` is."""
    if "/" in name:
        return name
    places = (f"{folder.rstrip('/')}/{name}" for folder in os.get_exec_path() if folder.startswith("/"))
    return next((place for place in places if _runs(root / place.lstrip("/"))), name)


def _runs(file: Path) -> bool:
    return file.is_file() and os.access(file, os.X_OK)


def unsafe(settings: Settings, root: Path = ROOT) -> list[PermissionFault]:
    """The programs of the settings that users other than root may replace: the file, a folder above it, a symlink on
    the way.
    """
    named = _on_path(settings.toolstack.xl, root)
    programs = {named, past_wrapper(named, root), *(hook.run[0] for hook in settings.hooks)}
    return faults([Path(program) for program in sorted(programs) if program.startswith("/")], "run", root)
