"""Parser of regular expressions: the text becomes a tree of Parts, which core/policy/regex runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

MOST_DEPTH = 20
MOST_DIGITS = 4
"""The limit for a number in {}: a longer one is above MOST_STATES, or has leading zeros and can be misread."""
UNLIMITED = -1

CharTest = Callable[[str], bool]
ANY_CHAR: CharTest = lambda char: True  # noqa: E731
WORD_CHAR: CharTest = lambda char: char.isalnum() or char == "_"  # noqa: E731
KNOWN: dict[str, CharTest] = {"d": str.isdecimal, "w": WORD_CHAR, "s": str.isspace}
REPEATS = {"*": (0, UNLIMITED), "+": (1, UNLIMITED), "?": (0, 1)}
BLANKS = {"t": "\t", "n": "\n", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an expression: its kind, its inner parts, and the data of its kind."""

    kind: str
    """char, cat, or, repeat, start, end, edge."""
    parts: tuple[Part, ...] = ()
    test: CharTest = ANY_CHAR
    char: str = ""
    """The character of a literal."""
    least: int = 1
    most: int = 1


SIGNS = {".": Part("char"), "^": Part("start"), "$": Part("end")}


def parse(text: str) -> Part:
    """Parse an expression. ValueError reports the part that cannot be read, and its position."""
    return _Reader(text).whole()


class _Reader:
    """Recursive descent over the text of an expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Part:
        part = self._or()
        if self._at < len(self._text):
            raise ValueError(f"')' at character {self._at + 1} has no '(' before it; write \\) for a literal ')'")
        return part

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, expected: str) -> bool:
        found = self._text.startswith(expected, self._at)
        self._at += len(expected) * found
        return found

    def _or(self) -> Part:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise ValueError("its brackets are nested too deeply; simplify it")
        parts = [self._cat()]
        while self._take("|"):
            parts.append(self._cat())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Part("or", tuple(parts))

    def _cat(self) -> Part:
        parts: list[Part] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._one()))
        return Part("cat", tuple(parts))

    def _repeated(self, part: Part) -> Part:
        limits = self._limits()
        if limits is None:
            return part
        if part.kind in ("start", "end", "edge"):
            raise ValueError(f"the repetition at character {self._at} does not follow a character; remove it")
        self._take("?")  # lazy or greedy makes no difference to whether a text matches
        if self._limits() is not None:
            raise ValueError(f"two repetitions in a row at character {self._at}; keep one")
        return Part("repeat", (part,), least=limits[0], most=limits[1])

    def _limits(self) -> tuple[int, int] | None:
        sign = self._peek()
        if limits := REPEATS.get(sign):
            self._at += 1
            return limits
        return self._braces() if sign == "{" else None

    def _braces(self) -> tuple[int, int]:
        inner, end, _ = self._text[self._at + 1 :].partition("}")
        least, comma, most = inner.partition(",")
        if (
            not end
            or not (least.isdecimal() and least.isascii())
            or (most and not (most.isdecimal() and most.isascii()))
        ):
            raise ValueError(
                f"'{{' at character {self._at + 1} does not begin {{2}}, {{2,}} or {{2,5}}; "
                "write \\{ for a literal '{'"
            )
        if max(len(least), len(most)) > MOST_DIGITS:
            raise ValueError(
                f"it repeats too much: a number at character {self._at + 2} has more than {MOST_DIGITS} digits; "
                "write it without leading zeros, or use * or +"
            )
        low = int(least)
        high = (int(most) if most else UNLIMITED) if comma else low
        if high != UNLIMITED and low > high:
            raise ValueError(f"{{{inner}}} has its numbers in the wrong order; swap them")
        self._at += len(inner) + 2
        return low, high

    def _one(self) -> Part:
        char = self._peek()
        self._at += 1
        if char in "*+?{":
            raise ValueError(f"'{char}' at character {self._at} repeats nothing; write \\{char} for a literal '{char}'")
        if char == "(":
            return self._group()
        if char == "[":
            return Part("char", test=self._set())
        if char == "\\":
            return self._escape()
        return SIGNS.get(char) or _literal(char)

    def _group(self) -> Part:
        begun = self._at
        if self._take("?") and not self._take(":"):
            raise ValueError("look-around and flags in (?…) are not supported; write (…) or (?:…)")
        part = self._or()
        if not self._take(")"):
            raise ValueError(f"'(' at character {begun} is never closed; close it, or write \\( for a literal '('")
        return part if part.kind == "or" else Part("cat", (part,))

    def _escape(self) -> Part:
        char = self._peek()
        self._at += 1
        if char == "b":
            return Part("edge")
        known = _known(char)
        return Part("char", test=known) if known else _literal(self._escaped(char))

    def _escaped(self, char: str) -> str:
        if not char:
            raise ValueError("it ends with a single backslash; write \\\\ for a literal backslash")
        if char.isalnum() and char not in BLANKS:
            raise ValueError(f"\\{char} is not supported; use \\d, \\w, \\s, \\D, \\W, \\S or \\b")
        return BLANKS.get(char, char)

    def _set(self) -> CharTest:
        begun = self._at
        other = self._take("^")
        tests: list[CharTest | tuple[str, str]] = []
        while not (self._peek() == "]" and tests):
            if not self._peek():
                raise ValueError(f"'[' at character {begun} is never closed; close it, or write \\[ for a literal '['")
            tests.append(self._range())
        self._at += 1
        return _set_test(tests, other=other)

    def _range(self) -> CharTest | tuple[str, str]:
        low = self._member()
        if callable(low):
            return low
        high = low
        if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
            self._at += 1
            last = self._member()
            if callable(last) or last < low:
                raise ValueError(
                    f"the range before character {self._at + 1} does not end after its start; swap its ends"
                )
            high = last
        return low, high

    def _member(self) -> CharTest | str:
        char = self._peek()
        self._at += 1
        if char != "\\":
            return char
        char = self._peek()
        self._at += 1
        return _known(char) or self._escaped(char)


def _set_test(members: Iterable[CharTest | tuple[str, str]], *, other: bool) -> CharTest:
    """The test whether a character is in a set (`other`: not in it), whose members are tests and ranges."""
    tests = [member for member in members if callable(member)]
    ranges = [member for member in members if not callable(member)]
    single = frozenset(form for low, high in ranges if low == high for form in _forms(low))
    spans = [(low, high) for low, high in ranges if low != high]

    def inside(char: str) -> bool:
        if char in single:
            return True
        forms = _forms(char) if spans else ()
        return any(low <= form <= high for low, high in spans for form in forms) or any(test(char) for test in tests)

    return lambda char: inside(char) is not other


def _forms(char: str) -> tuple[str, str, str]:
    """The forms of a character in both cases, as it can appear in a set."""
    return char, char.upper(), char.casefold()


def _known(char: str) -> CharTest | None:
    test = KNOWN.get(char.lower()) if char else None
    if test is None or char.islower():
        return test
    return lambda other: not test(other)


@lru_cache
def _literal(char: str) -> Part:
    """One casefolded character; some (ß) become several."""
    parts = tuple(Part("char", test=c.__eq__, char=c) for c in char.casefold())
    return parts[0] if len(parts) == 1 else Part("cat", parts)
