"""What xenstore does not show of a guest: whether libxl has finished creating it, whether its device model runs, and
which USB devices that holds open.

Read again at every call: the facts come from the host, not from memory (docs/dev/architecture.md).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xenplug.adapters import kernel_files

MOST_OPEN = 8192
"""Maximum number of open files of a process that are read, the oldest first: a hostile device model may open a
million."""


class XenDomains:
    """Domains (core/protocols) of a real dom0. Tests pass other root folders."""

    def __init__(
        self, xen_lib: Path = Path("/var/lib/xen"), proc: Path = Path("/proc"), dev: Path = Path("/dev")
    ) -> None:
        self._xen_lib, self._proc = xen_lib, proc
        self._node = re.compile(rf"{re.escape(str(dev))}/bus/usb/([0-9]{{3}})/([0-9]{{3}})")
        self.ended: Callable[[], None] = lambda: None
        self._watched: dict[int, int] = {}
        """Processes whose end is reported, each with its descriptor (pidfd_open(2))."""
        self._gone: dict[int, str] = {}
        """Processes whose end was reported, each with its start time, because a number may be used again. Forgotten
        when /proc no longer shows them."""

    def ready(self, domid: int, uuid: str) -> bool:
        """Whether libxl has written this file, which it writes last when it creates a domain, and removes with it
        (libxl_internal.c).
        """
        # Not Path.exists, which raises if a name is too long or the disk fails: such a domain is not ready.
        return "/" not in uuid and os.path.exists(f"{self._xen_lib}/userdata-d.{domid}.{uuid}.libxl-json")  # noqa: PTH110

    @property
    def remembered(self) -> int:
        """How many processes are watched, or known to have ended while their number may still be in use."""
        return len(self._watched) + len(self._gone)

    def lives(self, pid: int) -> bool:
        """Whether the process runs; a zombie does not. Must be called within a running loop."""
        if pid in self._watched:
            return True
        start = self._start(pid)
        if start is None or self._gone.get(pid) == start:
            return False
        with suppress(OSError):  # just gone, or no descriptors left: then the next round sees its end
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
        """When it started, in ticks (proc(5): field 22 of stat, counted after the name, which may contain anything)."""
        try:
            stat = (self._proc / str(pid) / "stat").read_text(errors="replace")
            state, *fields = stat.rpartition(")")[2].split()
            return None if state in "ZX" else fields[18]
        except (OSError, ValueError, IndexError):
            return None

    def held(self, pid: int) -> frozenset[tuple[int, int]]:
        """Empty too if the process is gone or may not be read."""
        found = map(self._node.fullmatch, kernel_files.links(f"{self._proc}/{pid}/fd", MOST_OPEN))
        return frozenset((int(node[1]), int(node[2])) for node in found if node)
