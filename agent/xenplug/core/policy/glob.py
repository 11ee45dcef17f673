"""Globs over a device's own texts: the only module that defines the meaning of `*`, `?` and `[a-z]`.

A glob is parsed once into segments, the parts between its stars. Matching, the index (which literal text is required),
the lint and the udev rules all use these segments, so they cannot interpret a set in different ways.
The language is that of Python's fnmatch, case-insensitive: a `]` that comes first in a set is a member of it, `!`
negates, and a `[` without a closing `]` is a plain character. A range whose end is before its start is empty. (fnmatch
drops such a range and can then take the next characters for the beginning of the set: `[b-a!]` matches any character.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_PIECE = re.compile(r"\*+|\?|\[(?P<negated>!?+)(?P<members>\][^\]]*|[^\]]+)\]|\[|[^*?\[]+")
"""A star, a question mark, a set, a `[` that does not begin a set, plain text."""

Range = tuple[str, str]
"""First and last character."""


@dataclass(frozen=True, slots=True)
class CharSet:
    """One character that is in a set, or (`negated`) not in it. Without ranges and negated: any character (`?`)."""

    ranges: tuple[Range, ...]
    negated: bool
    both_cases: bool = False
    """The ranges are kept as written, because they have another meaning in lower case: capitals are tested too."""

    def admits(self, char: str) -> bool:
        """Whether one casefolded character matches."""
        forms = (char, char.upper()) if self.both_cases else (char,)
        inside = any(low <= form <= high for low, high in self.ranges for form in forms if len(form) == 1)
        return inside is not self.negated


ANY_TEXT = CharSet((), negated=True)
Piece = str | CharSet


@dataclass(frozen=True, slots=True)
class Segment:
    """The part between two stars. `length` in characters; `literal` is its text if it is plain text only."""

    pieces: tuple[Piece, ...]
    length: int
    literal: str | None

    def matches_at(self, text: str, at: int) -> bool:
        """Whether the segment matches the text at position `at`."""
        for piece in self.pieces:
            if isinstance(piece, str):
                if not text.startswith(piece, at):
                    return False
                at += len(piece)
            elif at >= len(text) or not piece.admits(text[at]):
                return False
            else:
                at += 1
        return True

    def find(self, text: str, start: int) -> int:
        """The first position from `start` on where the segment matches; -1 if there is none."""
        if self.literal is not None:
            return text.find(self.literal, start)
        return next((at for at in range(start, len(text) - self.length + 1) if self.matches_at(text, at)), -1)


@dataclass(frozen=True, slots=True)
class Glob:
    """A parsed glob. `text` is its canonical form; globs with the same canonical form have the same meaning."""

    text: str
    segments: tuple[Segment, ...]

    @property
    def exact(self) -> str | None:
        """The only text that the glob matches; None if it can match several, or none."""
        return self.segments[0].literal if len(self.segments) == 1 else None

    @property
    def literal(self) -> str:
        """The longest text that every matching text contains; empty if there is none."""
        found = [piece for segment in self.segments for piece in segment.pieces if isinstance(piece, str)]
        return max(found, key=len, default="")

    @property
    def searched(self) -> int:
        """The number of sets and question marks that are searched for everywhere in a text: the cost of the glob."""
        between = [segment for segment in self.segments[1:-1] if segment.literal is None]
        return sum(isinstance(piece, CharSet) for segment in between for piece in segment.pieces)

    def admits(self, text: str) -> bool:
        """Whether the glob matches the whole casefolded text."""
        first, *between = self.segments
        if not first.matches_at(text, 0):
            return False
        if not between:
            return len(text) == first.length
        last, at = between.pop(), first.length
        for segment in between:
            found = segment.find(text, at)
            if found < 0:
                return False
            at = found + segment.length
        return at <= len(text) - last.length and last.matches_at(text, len(text) - last.length)


def read_glob(text: str) -> Glob:
    """Parse a glob. Every text is a valid glob."""
    segments: list[list[Piece]] = [[]]
    canonical = ""
    for found in _PIECE.finditer(text):
        piece, written = _piece(found)
        canonical += written
        if piece is None:
            segments.append([])
        elif segments[-1] and isinstance(piece, str) and isinstance(segments[-1][-1], str):
            segments[-1][-1] += piece
        else:
            segments[-1].append(piece)
    return Glob(canonical, tuple(_segment(pieces) for pieces in segments))


def _segment(pieces: list[Piece]) -> Segment:
    length = sum(len(piece) if isinstance(piece, str) else 1 for piece in pieces)
    plain = all(isinstance(piece, str) for piece in pieces)
    return Segment(tuple(pieces), length, "".join(map(str, pieces)) if plain else None)


def _piece(found: re.Match[str]) -> tuple[Piece | None, str]:
    """One piece and its canonical text; None for a star."""
    text = found[0]
    if text[0] == "*":
        return None, "*"
    if text == "?":
        return ANY_TEXT, text
    if found["members"] is None:
        return text.casefold(), text.casefold()
    members, negated = found["members"], bool(found["negated"])
    if _keeps_meaning(members):
        return CharSet(tuple(ranges(members.casefold())), negated), text.casefold()
    return CharSet(tuple(ranges(members)), negated, both_cases=True), text


def ranges(members: str) -> Iterator[Range]:
    """The ranges of a set's members; a single character is a range of one."""
    at = 0
    while at < len(members):
        if members[at + 1 : at + 2] == "-" and at + 2 < len(members):
            yield members[at], members[at + 2]
            at += 3
        else:
            yield members[at], members[at]
            at += 1


def _keeps_meaning(members: str) -> bool:
    """Whether lower case shifts both ends of every range equally: `A-Z` to `a-z`, but not `A-_` (`_` has no case)."""
    if any(len(char.casefold()) != 1 for char in members):
        return False
    moved = [[ord(char.casefold()) - ord(char) for char in pair] for pair in ranges(members)]
    return all(low == high for pair in moved for low, high in pairwise(pair))
