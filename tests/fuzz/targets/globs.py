"""Globs with sets: parsed like fnmatch, never missed by the index, with the same meaning in udev's form."""

from __future__ import annotations

import ctypes
import fnmatch
from collections.abc import Iterable

from tests.core.make import device
from tests.core.policy.test_glob import reversed_range

from xenplug.core.interop.udev_match import Inexpressible, any_case
from xenplug.core.matching.implication import meet, pattern_covers
from xenplug.core.matching.index import Index
from xenplug.core.matching.match import matches
from xenplug.core.policy.patterns import TextPattern
from xenplug.core.policy.rules import Condition

TOKENS = [
    b"[]]",
    b"[!]]",
    b"[]",
    b"[!]",
    b"[^]]",
    b"[a-",
    b"[z-a]",
    b"[a-z]",
    b"[A-_]",
    b"[!*]",
    b"?",
    b"*",
    b"-",
    b"]",
]
TOKENS += ["ß".encode(), "İ".encode(), "ſ".encode(), b"a", b"A", b"0"]
SLOW = 1.0
LIBC = ctypes.CDLL(None)


def seeds() -> Iterable[bytes]:
    """Globs, each with a text, separated by a NUL."""
    for glob, text in {
        "*optical mouse*": "Optical Mouse",
        "[!]]*": "ax",
        "a[]b-d]?": "A]x",
        "[A-_]x": "Qx",
        "ß*": "SS",
    }.items():
        yield f"{glob}\0{text}".encode()


def read(data: bytes) -> None:
    """Parse and match it in every way; all ways must agree."""
    glob, _, text = data.decode("utf-8", "replace").partition("\0")
    if not glob:
        return
    text = text[:126]
    pattern = TextPattern.parse(glob)
    fits = pattern.admits(text)
    if TextPattern.parse(str(pattern)) != pattern:
        raise AssertionError("the canonical form has another meaning")
    if glob == glob.casefold() and not reversed_range(glob):
        assert fits == fnmatch.fnmatchcase(text.casefold(), glob)
    rules = [(Condition("product", (pattern,)),)]
    here = device(product=text)
    assert not matches(rules[0], here) or list(Index(rules).candidates(here)) == [0]
    exact = TextPattern.parse("x")
    assert not pattern_covers(pattern, exact) or pattern.admits("x")
    assert meet(pattern, exact) or not pattern.admits("x")
    if glob.isascii() and text.isascii() and "\0" not in text:
        _as_udev(glob, text, fits)


def _as_udev(glob: str, text: str, fits: bool) -> None:
    try:
        written = any_case(glob)
    except Inexpressible:
        return
    if "\\" not in written:
        assert (LIBC.fnmatch(written.encode(), text.encode(), 0) == 0) == fits
