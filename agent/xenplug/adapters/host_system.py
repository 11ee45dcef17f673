"""Reads which distribution and service manager a host has, for remedies. Quick to import, for errors of commands."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from xenplug.adapters.files import Unfit, read_bounded
from xenplug.core.host_system import HostSystem, Services, host_system

MAX_RELEASE_BYTES = 1 << 16
OS_RELEASES = ("etc/os-release", "usr/lib/os-release")
"""In this order: os-release(5)."""
MANAGERS = {"run/systemd/system": Services.SYSTEMD, "run/openrc": Services.OPENRC}
"""What exists only while this service manager runs: sd_booted(3); OpenRC's state folder."""


@cache
def this_host() -> HostSystem:
    """This host; read once."""
    return read_host_system(Path("/"))


def read_host_system(root: Path) -> HostSystem:
    """The host whose files are below `root`. What cannot be read is unknown. Never raises."""
    release = next((text for path in OS_RELEASES if (text := _text(root / path)) is not None), None)
    manager = next((known for path, known in MANAGERS.items() if os.path.lexists(root / path)), None)
    return host_system(release, manager)


def _text(path: Path) -> str | None:
    try:
        return read_bounded(path, MAX_RELEASE_BYTES).decode(errors="replace")
    except (OSError, Unfit, ValueError):
        return None
