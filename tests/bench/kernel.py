"""The kernel's answer to writes into sysfs: authorized of devices and interfaces, drivers_probe. An inotify thread.

Read-write attributes of the testbed are plain files; what a write to them causes on a real host is done here.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Callable
from pathlib import Path

CLOSE_WRITE = 0x8
EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Written:
    """Calls `written(path)` in a thread whenever someone closes one of the watched files after writing to it."""

    def __init__(self, written: Callable[[Path], None]) -> None:
        self._written = written
        self._fd = _libc.inotify_init1(os.O_CLOEXEC)
        self._stop_read, self._stop_write = os.pipe()
        self._files: dict[int, Path] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def watch(self, file: Path) -> None:
        """Watch one more file, until it is deleted."""
        number = _libc.inotify_add_watch(self._fd, os.fsencode(file), CLOSE_WRITE)
        if number < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(file))
        self._files[number] = file

    def stop(self) -> None:
        """End the thread."""
        os.close(self._stop_write)
        self._thread.join()
        os.close(self._stop_read)
        os.close(self._fd)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._stop_read], [], [])
            if self._stop_read in ready:
                return
            data = os.read(self._fd, 65536)
            while data:
                number, mask, _, length = EVENT.unpack_from(data)
                data = data[EVENT.size + length :]
                file = self._files.get(number)
                if file is not None and mask & CLOSE_WRITE:
                    self._written(file)
