"""What xenstore does not tell about a guest: whether libxl has finished making it, whether its device model lives, and
what USB devices that holds. Read anew at every question (design law: the machine says, not our memory).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from xenplug.adapters import kernel_files

MOST_OPEN = 8192
"""Open files of a process that are looked at, the oldest first: a hostile device model may open a million."""


class XenDomains:
    """faces.Domains on a real dom0. The roots are elsewhere for tests."""

    def __init__(
        self, xen_lib: Path = Path("/var/lib/xen"), proc: Path = Path("/proc"), dev: Path = Path("/dev")
    ) -> None:
        self._xen_lib, self._proc = xen_lib, proc
        self._node = re.compile(rf"{re.escape(str(dev))}/bus/usb/([0-9]{{3}})/([0-9]{{3}})")
        self.ended: Callable[[], None] = lambda: None
        self._watched: dict[int, int] = {}
        """Processes whose end is told, each with its descriptor (pidfd_open(2))."""
        self._gone: dict[int, str] = {}
        """Those whose end was told, each with the time of its start: a number may be used again. Forgotten when /proc
        no longer shows them."""

    def ready(self, domid: int, uuid: str) -> bool:
        """libxl writes this file last when it makes a domain, and removes it with the domain (libxl_internal.c)."""
        # Not Path.exists, which raises where a name is too long or the disk fails: such a domain is not ready.
        return "/" not in uuid and os.path.exists(f"{self._xen_lib}/userdata-d.{domid}.{uuid}.libxl-json")  # noqa: PTH110

    @property
    def remembered(self) -> int:
        """How many processes are watched, or known to have ended while their number may still be in use."""
        return len(self._watched) + len(self._gone)

    def lives(self, pid: int) -> bool:
        """A zombie does not. Must be called within a running loop."""
        if pid in self._watched:
            return True
        start = self._start(pid)
        if start is None or self._gone.get(pid) == start:
            return False
        with suppress(OSError):  # gone this moment, or no descriptors left: then its end is seen at the next look
            self._watched[pid] = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(self._watched[pid], self._end, pid, start)
        return True

    def _end(self, pid: int, start: str) -> None:
        number = self._watched.pop(pid)
        asyncio.get_running_loop().remove_reader(number)
        os.close(number)
        self._gone = {old: began for old, began in self._gone.items() if self._start(old) == began} | {pid: start}
        self.ended()

    def _start(self, pid: int) -> str | None:
        """When it started, in ticks (proc(5): field 22 of stat, counted behind the name, which may hold anything)."""
        try:
            told = (self._proc / str(pid) / "stat").read_text(errors="replace")
            state, *fields = told.rpartition(")")[2].split()
            return None if state in "ZX" else fields[18]
        except (OSError, ValueError, IndexError):
            return None

    def held(self, pid: int) -> frozenset[tuple[int, int]]:
        """None too where the process is gone or may not be looked at."""
        folder = f"{self._proc}/{pid}/fd"
        try:
            with os.scandir(folder) as entries:  # asked often, Path costs ten times as much
                names = [entry.name for entry in islice(entries, MOST_OPEN)]
        except OSError:
            return frozenset()
        found = (self._node.fullmatch(kernel_files.link(f"{folder}/{name}") or "") for name in names)
        return frozenset((int(node[1]), int(node[2])) for node in found if node)
