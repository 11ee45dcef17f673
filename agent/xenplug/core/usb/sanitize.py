"""Sanitizes the strings of a device, so they can be shown, logged and compared.

A USB device chooses its strings freely: they can contain terminal escapes, line breaks that forge log lines, or
characters that reverse the reading direction. Every string of a device passes through here before any other use.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 126
"""The most characters of a USB string descriptor: 255 bytes minus the header, two bytes each (USB 2.0, 9.6.7)."""

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and the like
    r"|\x1b[ -/]*[0-~]?"
)
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Invisible characters that Unicode classifies as letters, marks or symbols (Default_Ignorable_Code_Point)."""


def sanitize(raw: bytes | str | None, limit: int = MAX_CHARACTERS) -> str | None:
    """One printable line of at most `limit` characters; None if nothing is left.

    Bytes are decoded as UTF-8, invalid ones become U+FFFD. Escape sequences and format, control, private and unassigned
    characters are removed; each sequence of white space and line breaks becomes one space.
    """
    if raw is None:
        return None
    text = _decode(raw, limit)
    if not (text.isascii() and text.isprintable()):
        text = _UNSEEN.sub("", _ESCAPES.sub("", text))
        text = "".join(" " if char.isspace() else char for char in text if char.isprintable() or char.isspace())
    return " ".join(text.split())[:limit].rstrip() or None


def _decode(raw: bytes | str, limit: int) -> str:
    """The text of the first bytes, a fixed multiple of `limit`, so a huge value takes no more time."""
    raw = raw[: 16 * (limit + 16)]
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
