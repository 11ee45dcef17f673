"""Finds out whether dom0 has a console that only a USB keyboard can serve: then its last keyboard needs protection.

Used by adapters/udev for devices that are keyboards. A console is a virtual terminal of the kernel's or a display that
is plugged in; a headless host has neither. Sources: Documentation/ABI/testing/sysfs-tty (console/active), sysfs class
input and drm; the test for a keyboard is udev's own (systemd, udev-builtin-input_id.c: test_key).
"""

from __future__ import annotations

import re
from pathlib import Path

from xenplug.adapters import kernel_files

_TERMINAL = re.compile(r"tty[0-9]+")
_FIRST_KEYS = 0xFFFFFFFE
"""KEY_ESC (1) to KEY_D (31): a device with all of them is a keyboard, not a power button or a remote control."""


def console_needs_usb(sys: Path) -> bool:
    """dom0 has a console, and no keyboard that is not on USB. `sys` is /sys."""
    return _console(sys) and not any(map(_is_keyboard, _built_in(sys / "class/input")))


def _console(sys: Path) -> bool:
    active = kernel_files.read_text(sys / "class/tty/console/active").split()
    if any(_TERMINAL.fullmatch(name) for name in active):
        return True
    return any(
        kernel_files.read_text(sys / "class/drm" / name / "status").strip() == "connected"
        for name in kernel_files.names(sys / "class/drm")
    )


def _built_in(folder: Path) -> list[Path]:
    """Input devices that are neither on USB nor created by a program. Bluetooth ones may be out of reach and do not
    count.
    """
    inputs = [folder / name for name in kernel_files.names(folder) if name.startswith("input")]
    return [
        at
        for at in inputs
        if not {"usb", "virtual"} & {p.rstrip("0123456789") for p in (kernel_files.link(at) or "virtual").split("/")}
    ]


def _is_keyboard(at: Path) -> bool:
    """The bitmap's lowest word comes last: `402000007 ff803078f800d001 feffffdfffefffff fffffffffffffffe`."""
    words = kernel_files.read_text(at / "capabilities/key").split()
    try:
        return bool(words) and int(words[-1], 16) & _FIRST_KEYS == _FIRST_KEYS
    except ValueError:
        return False
