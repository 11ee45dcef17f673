"""Text from elsewhere made fit for one line of output: every character that is not printable is replaced.

What a device says of itself goes through core/usb/sanitize instead, which also removes escape sequences.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with `?` in place of every unprintable character."""
    return "".join(char if char.isprintable() else "?" for char in text)


def escaped(text: str) -> str:
    """The text with unprintable characters written as Python escapes, so that a person can see what they are."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
