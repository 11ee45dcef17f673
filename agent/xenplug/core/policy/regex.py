"""Regular expressions in linear time, for the strings a device tells of itself (`/regex/` in a policy).

Python's `re` backtracks: a device whose product string is 126 times `a` could hold up the agent for years with a rule
that says `/(a+)+b/`. Here a text is read into states (Thompson's construction) that are all walked at once: at most
length times states, whatever the text. What needs more (back references, look-around) is refused. No case; searched for
anywhere unless ^ and $ say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

MOST_STATES = 1000
"""What `{1,255}` inside `{1,255}` would need is refused."""
MOST_DEPTH = 20
MANY = -1

CharTest = Callable[[str], bool]
ANY_CHAR: CharTest = lambda char: True  # noqa: E731
WORD_CHAR: CharTest = lambda char: char.isalnum() or char == "_"  # noqa: E731
KNOWN: dict[str, CharTest] = {"d": str.isdecimal, "w": WORD_CHAR, "s": str.isspace}
REPEATS = {"*": (0, MANY), "+": (1, MANY), "?": (0, 1)}
BLANKS = {"t": "\t", "n": "\n", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an expression: what it is, the parts it is made of, and what else it needs."""

    kind: str
    """char, cat, or, repeat, start, end, edge."""
    parts: tuple[Part, ...] = ()
    test: CharTest = ANY_CHAR
    char: str = ""
    """The one character a literal takes."""
    least: int = 1
    most: int = 1


SIGNS = {".": Part("char"), "^": Part("start"), "$": Part("end")}


class NfaState(NamedTuple):
    """One state: what it asks, and the states after it."""

    kind: str
    test: CharTest = ANY_CHAR
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Regex:
    """A compiled expression. `literal` stands in every text it fits (casefolded; "" if nothing does)."""

    literal: str
    _states: tuple[NfaState, ...] = field(repr=False)
    _first: int

    def fits(self, value: str) -> bool:
        """Whether it is found in the text."""
        text = value.casefold()
        if self.literal not in text:
            return False
        here: set[int] = set()
        for at in range(len(text) + 1):
            if self._spread(here, self._first, text, at):
                return True
            if at == len(text):
                break
            char, before, here = text[at], here, set()
            for state in before:
                if self._states[state].kind == "char" and self._states[state].test(char):
                    for after in self._states[state].after:
                        if self._spread(here, after, text, at + 1):
                            return True
        return False

    def _spread(self, here: set[int], first: int, text: str, at: int) -> bool:
        """Add a state and all that can be reached from it without a character; True at the end of the expression."""
        todo = [first]
        while todo:
            number = todo.pop()
            if number in here:
                continue
            here.add(number)
            state = self._states[number]
            if state.kind == "found":
                return True
            if state.kind == "fork" or (state.kind != "char" and _stands(state.kind, text, at)):
                todo += state.after
        return False


def _stands(kind: str, text: str, at: int) -> bool:
    if kind == "start":
        return at == 0
    if kind == "end":
        return at == len(text)
    return (at > 0 and WORD_CHAR(text[at - 1])) != (at < len(text) and WORD_CHAR(text[at]))


def compile_(text: str) -> Regex:
    """Read an expression. ValueError says what cannot be read, and where."""
    part = _Reader(text).whole()
    states: list[NfaState] = [NfaState("found")]
    first = _build(part, 0, states)
    return Regex(max(_literals(part), key=len, default=""), tuple(states), first)


def _add(states: list[NfaState], state: NfaState) -> int:
    if len(states) >= MOST_STATES:
        raise ValueError("it repeats too much; use * or +, or smaller numbers in {}")
    states.append(state)
    return len(states) - 1


def _build(part: Part, after: int, states: list[NfaState]) -> int:
    """The states of a part that go on to `after`; the first of them."""
    if part.kind == "cat":
        for one in reversed(part.parts):
            after = _build(one, after, states)
        return after
    if part.kind == "or":
        return _add(states, NfaState("fork", after=tuple(_build(one, after, states) for one in part.parts)))
    if part.kind == "repeat":
        return _repeat(part, after, states)
    return _add(states, NfaState(part.kind, part.test, (after,)))


def _repeat(part: Part, after: int, states: list[NfaState]) -> int:
    [inner] = part.parts
    if part.most == MANY:
        loop = _add(states, NfaState("fork"))
        states[loop] = NfaState("fork", after=(_build(inner, loop, states), after))
        first = loop
    else:
        first = after
        for _ in range(part.most - part.least):
            first = _add(states, NfaState("fork", after=(_build(inner, first, states), after)))
    for _ in range(part.least):
        first = _build(inner, first, states)
    return first


def _literals(part: Part) -> Iterable[str]:
    """Runs of characters that every fitting text holds."""
    if part.kind == "repeat":
        return _literals(part.parts[0]) if part.least else ()
    if part.kind != "cat":
        return (part.char,)
    runs, run = [""], ""
    for one in part.parts:
        run = run + one.char if one.char else ""
        runs.append(run)
        if one.kind in ("cat", "repeat"):
            runs += _literals(one)
    return runs


class _Reader:
    """Recursive descent over the text of an expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Part:
        part = self._or()
        if self._at < len(self._text):
            raise ValueError(f"')' at character {self._at + 1} closes nothing; write \\) for the character")
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
            raise ValueError("its brackets are nested too deep; make it simpler")
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
            raise ValueError(f"what repeats at character {self._at} is no character; leave the repetition out")
        self._take("?")  # lazy or not is all one where only "found" is asked
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
            raise ValueError(f"'{{' at character {self._at + 1} begins no {{2}}, {{2,}} or {{2,5}}; write \\{{ for it")
        low = int(least[:5])
        high = (int(most[:5]) if most else MANY) if comma else low
        if high != MANY and low > high:
            raise ValueError(f"{{{inner}}} has its numbers the wrong way round; swap them")
        self._at += len(inner) + 2
        return low, high

    def _one(self) -> Part:
        char = self._peek()
        self._at += 1
        if char in "*+?{":
            raise ValueError(f"'{char}' at character {self._at} repeats nothing; write \\{char} for the character")
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
            raise ValueError("look-around and flags in (?…) are not read; write (…) or (?:…)")
        part = self._or()
        if not self._take(")"):
            raise ValueError(f"'(' at character {begun} is never closed; close it, or write \\( for the character")
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
            raise ValueError("it ends in a single backslash; write \\\\ for the character")
        if char.isalnum() and char not in BLANKS:
            raise ValueError(f"\\{char} is not known; \\d, \\w, \\s, \\b and their capitals but \\B are")
        return BLANKS.get(char, char)

    def _set(self) -> CharTest:
        begun = self._at
        other = self._take("^")
        tests: list[CharTest] = []
        while not (self._peek() == "]" and tests):
            if not self._peek():
                raise ValueError(f"'[' at character {begun} is never closed; close it, or write \\[ for the character")
            tests.append(self._range())
        self._at += 1
        return lambda char: any(test(char) for test in tests) is not other

    def _range(self) -> CharTest:
        low = self._member()
        if callable(low):
            return low
        high = low
        if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
            self._at += 1
            last = self._member()
            if callable(last) or last < low:
                raise ValueError(f"the range before character {self._at + 1} has no end after its start; swap them")
            high = last
        return lambda char: any(low <= form <= high for form in (char, char.upper(), char.casefold()))

    def _member(self) -> CharTest | str:
        char = self._peek()
        self._at += 1
        if char != "\\":
            return char
        char = self._peek()
        self._at += 1
        return _known(char) or self._escaped(char)


def _known(char: str) -> CharTest | None:
    test = KNOWN.get(char.lower()) if char else None
    if test is None or char.islower():
        return test
    return lambda other: not test(other)


@lru_cache
def _literal(char: str) -> Part:
    """One character without case; some (ß) fold into several."""
    parts = tuple(Part("char", test=c.__eq__, char=c) for c in char.casefold())
    return parts[0] if len(parts) == 1 else Part("cat", parts)
