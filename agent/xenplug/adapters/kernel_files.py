"""Small files of the kernel (sysfs, proc) and of udev: one place that reads, lists and writes them.

Such files vanish at any moment, and a broken device can make a read fail. So nothing here raises: a file that cannot be
read is None or empty, and a failed write is False. System calls instead of pathlib: one device takes dozens of them,
and pathlib costs ten times as much.
"""

from __future__ import annotations

import os
from itertools import islice

PAGE = 4096
"""Bytes of one read: what sysfs returns at most for an ordinary attribute (PAGE_SIZE)."""
MAX_TEXT_BYTES = 4 << 20
"""Bytes of a text that are read at most: a mountinfo or a routing table may be long."""


def read(path: str | os.PathLike[str], limit: int = PAGE) -> bytes | None:
    """The content, up to the end of the page in which `limit` lies; None if it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        content = chunk = os.read(handle, PAGE)
        while len(chunk) == PAGE and len(content) < limit:
            chunk = os.read(handle, PAGE)
            content += chunk
        return content
    except OSError:
        return None
    finally:
        os.close(handle)


def read_text(path: str | os.PathLike[str]) -> str:
    """The whole file as text, bytes that are no UTF-8 as surrogates; empty if it cannot be read."""
    content = read(path, MAX_TEXT_BYTES)
    return "" if content is None else content.decode("utf-8", "surrogateescape")


def names(folder: str | os.PathLike[str]) -> list[str]:
    """The names in a folder, in no order; none if it cannot be listed."""
    try:
        return os.listdir(folder)  # noqa: PTH208
    except (OSError, ValueError):
        return []


def link(path: str | os.PathLike[str]) -> str | None:
    """The text of a symlink; None if there is none to read."""
    try:
        return os.fspath(os.readlink(path))  # noqa: PTH115
    except (OSError, ValueError):
        return None


def links(folder: str | os.PathLike[str], most: int) -> list[str]:
    """The texts of the first `most` symlinks in a folder of symlinks (/proc/PID/fd); none if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:  # not listdir: a hostile process may have a million
            paths = [entry.path for entry in islice(entries, most)]
    except (OSError, ValueError):
        return []
    return [text for path in paths if (text := link(path)) is not None]


def write(path: str | os.PathLike[str], text: bytes) -> bool:
    """Write to a file that exists, in one system call, as sysfs requires. Whether the kernel accepted it."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return False
    try:
        return os.write(handle, text) == len(text)
    except OSError:
        return False
    finally:
        os.close(handle)
