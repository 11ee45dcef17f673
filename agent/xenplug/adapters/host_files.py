"""The host's files and the guests' configurations among them, for the doctor and for `check`. Quick to import."""

from __future__ import annotations

import os
from pathlib import Path

from xenplug.adapters.files import Unfit, read_bounded
from xenplug.core.doctor.facts import GuestConfigFile
from xenplug.core.interop.xl_cfg import read as read_xlcfg

MAX_FILE_BYTES = 1 << 18
"""Bytes of a configuration file that are read."""


class HostFiles:
    """The host's files; below another root for tests and images."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def at(self, path: str) -> Path:
        """The real location of an absolute path of the host."""
        return self.root / path.lstrip("/")

    def exists(self, path: str) -> bool:
        """Whether the path exists; also True if it may not be read."""
        return os.path.lexists(self.at(path))

    def text(self, path: str) -> str | None:
        """The content of a file; None if it cannot be read."""
        try:
            return read_bounded(self.at(path), MAX_FILE_BYTES).decode(errors="replace")
        except (OSError, Unfit):
            return None

    def names(self, folder: str) -> list[str] | None:
        """The names in a folder, sorted; None if it may not be read, empty if it does not exist."""
        try:
            return sorted(entry.name for entry in self.at(folder).iterdir())
        except PermissionError:
            return None
        except OSError:
            return []


def configs(tree: HostFiles) -> tuple[GuestConfigFile, ...] | None:
    """The guests' configurations: *.cfg in /etc/xen and the targets of the links in /etc/xen/auto."""
    names, auto = tree.names("/etc/xen"), tree.names("/etc/xen/auto")
    if names is None or auto is None:
        return None
    boot = {_target(tree, f"/etc/xen/auto/{name}") for name in auto}
    files = [f"/etc/xen/{name}" for name in names if name.endswith(".cfg")]
    found = []
    for file in [*files, *sorted(boot - set(files))]:
        text = tree.text(file)
        if text is not None:
            found.append(GuestConfigFile(file, read_xlcfg(text), file in boot))
    return tuple(config for config in found if config.settings)


def _target(tree: HostFiles, path: str) -> str:
    try:
        return os.path.normpath(Path(path).parent / os.readlink(tree.at(path)))  # noqa: PTH115
    except OSError:
        return path
