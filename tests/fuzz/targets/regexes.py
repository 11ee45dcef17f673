"""Regular expressions: compiled or refused quickly, with the same matches as Python's where both support the syntax."""

from __future__ import annotations

import re
from collections.abc import Iterable

from xenplug.core.policy.conditions import MAX_VALUE
from xenplug.core.policy.patterns import parse_text
from xenplug.core.policy.regex import MAX_EXPRESSION_STATES

TOKENS = [b"{999}", b"{0,999}", b"{2,}", b"{000002}", b"{0}", b"(", b")", b"(?:", b"|", b"*", b"+", b"?", b"^", b"$"]
TOKENS += [b"\\b", b"\\d", b"\\W", b"[^a]", b"[]a]", b"[a-", b"()", b".", b"a", "ß".encode(), "İ".encode(), b"\\"]
SLOW = 1.0
PLAIN = re.compile(r"[ab1 ().|^$]*\Z")
"""Expressions with the same meaning in both, without repetitions: Python's would take too long with some of those."""


def seeds() -> Iterable[bytes]:
    """Expressions, each with a text, separated by a NUL."""
    yield b"^(usb|ps/?2) mouse( [0-9]{1,3})?$\0USB mouse 12"
    yield b"(((a{3}){3}){3}){3}[bc]\0" + b"a" * 126
    yield b"(a|(b1| )1)$\0ab1"
    yield "straße|[ß-ü]\0STRASSE".encode()


def read(data: bytes) -> None:
    """Compile it as in a policy; its state count must be right, and its matches those of Python."""
    expression, _, text = data.decode("utf-8", "replace").partition("\0")
    written = f"/{expression}/"[:MAX_VALUE]
    try:
        pattern = parse_text(written)
    except ValueError as refused:
        assert "; " in str(refused)
        return
    text = text[:126]
    fits = pattern.admits(text)
    regex = getattr(pattern, "regex", None)
    if regex is None:
        return
    assert regex.size in (0, len(regex.program.states)) or regex.size <= MAX_EXPRESSION_STATES
    assert not fits or regex.literal in text.casefold()
    if PLAIN.match(expression) and written.endswith("/") and text.isascii() and "\n" not in text:
        assert fits == bool(re.search(expression, text.casefold()))
