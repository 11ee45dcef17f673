"""Makes what a device says of itself fit to be shown, logged and compared.

A USB device chooses its strings freely: they may hold terminal escapes, line breaks that forge log lines, or characters
that turn the reading direction round. Everything from a device passes here before any other room sees it.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 126
"""Characters a USB string descriptor can hold at most: 255 bytes less the header, two bytes each (USB 2.0, 9.6.7)."""

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and the like
    r"|\x1b[ -/]*[0-~]?"
)
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Blank to the eye though Unicode counts them as letters, marks or symbols (Default_Ignorable_Code_Point)."""


def sanitize(raw: bytes | str | None, limit: int = MAX_CHARACTERS) -> str | None:
    """One printable line of at most `limit` characters, blanks collapsed; None if nothing is left.

    Bytes are read as UTF-8, what is not becomes U+FFFD. Escape sequences, format and control characters, private and
    unassigned ones vanish; every kind of blank and line break becomes one space.
    """
    if raw is None:
        return None
    text = _decode(raw, limit)
    if not (text.isascii() and text.isprintable()):
        text = _UNSEEN.sub("", _ESCAPES.sub("", text))
        text = "".join(" " if char.isspace() else char for char in text if char.isprintable() or char.isspace())
    return " ".join(text.split())[:limit].rstrip() or None


def _decode(raw: bytes | str, limit: int) -> str:
    """At most a bounded multiple of `limit` is looked at, so that a huge value costs nothing."""
    raw = raw[: 16 * (limit + 16)]
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
