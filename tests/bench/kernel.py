"""The kernel's answer to writes into sysfs: authorized of devices and interfaces, drivers_probe. One thread.

Read-write attributes of a device are plain files, watched by inotify: the last write counts. drivers_probe is one file
for all devices and is written from several threads; it is a FIFO, because a plain file would show only the last name.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import struct
import threading
from collections.abc import Callable
from pathlib import Path

CLOSE_WRITE = 0x8
EVENT = struct.Struct("iIII")
INTERFACE = re.compile(r"\d+-[\d.]+:\d+\.\d")
"""A name in a FIFO, where one follows another without a separator. No device here has more than ten interfaces."""
_libc = ctypes.CDLL(None, use_errno=True)


class Written:
    """Calls `written(path)` in a thread whenever someone closes one of the watched files after writing to it, and
    `probed(name)` for each interface whose name is written to `probe`, which is made here.
    """

    def __init__(self, written: Callable[[Path], None], probe: Path, probed: Callable[[str], None]) -> None:
        self._written, self._probed = written, probed
        os.mkfifo(probe)
        self._probe = os.open(probe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # RDWR: it never ends
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
        for handle in (self._stop_read, self._fd, self._probe):
            os.close(handle)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._probe, self._stop_read], [], [])
            if self._stop_read in ready:
                return
            if self._probe in ready:
                for name in INTERFACE.findall(os.read(self._probe, 65536).decode()):
                    self._probed(name)
            data = os.read(self._fd, 65536) if self._fd in ready else b""
            while data:
                number, mask, _, length = EVENT.unpack_from(data)
                data = data[EVENT.size + length :]
                file = self._files.get(number)
                if file is not None and mask & CLOSE_WRITE:
                    self._written(file)
