"""Text from other programs and users for one line of output: every unprintable character is replaced.

A device's own texts go through core/usb/sanitize instead, which also removes escape sequences.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with `?` in place of every unprintable character."""
    return "".join(char if char.isprintable() else "?" for char in text)


def escaped(text: str) -> str:
    """The text with unprintable characters written as Python escapes, which show what they are."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
