"""Sets on every root hub whether new USB devices start authorised, and restores the earlier values.

`authorized_default` applies to devices, `interface_authorized_default` to the interfaces of authorised devices
(Documentation/ABI/stable/sysfs-bus-usb). The earlier values are stored in a file: otherwise, after an agent was killed,
the next one would take its 0 for the earlier value. Used by adapters/udev; every write is small and never waits.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

from xenplug.adapters import kernel_files
from xenplug.adapters.files import Unfit, read_bounded, write_atomic
from xenplug.adapters.kept_folder import KeptFolder
from xenplug.core.protocols import Guard

log = logging.getLogger("xenplug")

MAX_NOTE_BYTES = 1 << 16


class RootHubs:
    """The root hubs below `sys` (/sys); `note` is the file of the earlier values; None: keep them in memory only."""

    def __init__(self, sys: Path = Path("/sys"), note: Path | None = None) -> None:
        self._devices = sys / "bus/usb/devices"
        self._note = note
        self._folder = KeptFolder(note.parent) if note else None
        self._failed = False
        self._guard: Guard | None = None
        self._found = self._read_note()

    def set(self, guard: Guard) -> None:
        """Put this guard in force, also on root hubs that appear later (`again`)."""
        self._guard = guard
        self.again()

    def again(self) -> None:
        """Put the guard in force on the current root hubs: a controller that returns from a guest creates new ones."""
        if self._guard is None:
            return
        before = dict(self._found)
        for hub in self._hubs():
            self._one(hub, "authorized_default", self._guard.devices)
            self._one(hub, "interface_authorized_default", self._guard.interfaces)
        if self._found != before:
            self._keep_note()

    def restore_note(self) -> None:
        """Write the earlier values again if their file was removed."""
        if self._found and self._note and not os.path.lexists(self._note):
            self._keep_note()

    def _hubs(self) -> list[Path]:
        try:
            names = os.listdir(self._devices)  # noqa: PTH208 - Path.glob raises where an entry vanishes
        except OSError:
            return []
        return [self._devices / name for name in sorted(names) if re.match("usb[0-9]", name)]

    def _one(self, hub: Path, attribute: str, closed: bool) -> None:
        # By device path: bus numbers are reassigned, and may then belong to another controller.
        key, file = f"{os.path.realpath(hub)}/{attribute}", hub / attribute
        now = _setting(file)
        if closed and now is not None and now != "0":
            if self._write(file, "0"):
                self._found[key] = now
        elif not closed and key in self._found and self._write(file, self._found[key]):
            del self._found[key]

    def _write(self, file: Path, value: str) -> bool:
        try:
            file.write_text(value)
        except OSError as error:
            log.warning(
                "%s: cannot be set to %s (%s); new devices there start with the kernel's own setting",
                file,
                value,
                error,
            )
            return False
        return True

    def _read_note(self) -> dict[str, str]:
        if self._note is None:
            return {}
        try:
            stored = json.loads(read_bounded(self._note, MAX_NOTE_BYTES, follow=False))
            return {str(key): value for key, value in stored.items() if value in ("1", "2", "-1")}
        except FileNotFoundError:
            return {}
        except (OSError, Unfit, ValueError, AttributeError, RecursionError) as error:
            log.warning("%s: cannot be read (%s); the earlier settings of the root hubs are unknown", self._note, error)
            return {}

    def _keep_note(self) -> None:
        if self._note is None:
            return
        try:
            if self._folder:
                self._folder.ensure()
            write_atomic(self._note, json.dumps(self._found).encode(), 0o600)
            self._failed = False
        except OSError as error:
            if not self._failed:
                text = "%s: cannot be written (%s); after a crash the root hubs keep their current settings"
                log.error(text, self._note, error)
            self._failed = True


def _setting(file: Path) -> str | None:
    value = kernel_files.read(file)
    return None if value is None else value.decode("ascii", "replace").strip()
