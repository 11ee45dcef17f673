"""Regular expressions in linear time, for the strings that a device reports (`/regex/` in a policy).

Python's `re` backtracks: with the rule `/(a+)+b/`, a device whose product string is 126 times `a` could block the agent
for years. Here an expression is compiled into states (Thompson's construction), and all states are walked in parallel:
at most length times states steps for any text. Features that need more (back references, look-around) are refused.
Matching ignores case and searches anywhere in the text, unless ^ or $ anchor the expression.

States are counted before any is built. They are built when the expression first meets a text that contains its literal,
so an expression that is refused or never applies costs only its parsing. core/policy/effort bounds the sum of states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from xenplug.core.policy.regex_parse import ANY_CHAR, UNLIMITED, WORD_CHAR, CharTest, Part, parse

MAX_EXPRESSION_STATES = 1000
"""The limit for one expression; `{1,255}` inside `{1,255}` needs more and is refused."""


ZERO_WIDTH = ("start", "end", "edge")


class NfaState(NamedTuple):
    """One state: its test, and the states after it."""

    kind: str
    test: CharTest = ANY_CHAR
    char: str = ""
    after: tuple[int, ...] = ()


class Program(NamedTuple):
    """All states of an expression, and the first of them."""

    states: tuple[NfaState, ...]
    first: int
    asks: bool
    """It contains ^, $ or \\b."""


@dataclass(frozen=True)
class Regex:
    """A parsed expression. Every text that it matches contains `literal` (casefolded; "" if there is no such text).

    `size`: the number of states it needs. 0: it is plain text, which is searched anywhere and needs no states.
    """

    literal: str
    size: int
    part: Part

    @cached_property
    def program(self) -> Program:
        states: list[NfaState] = [NfaState("found")]
        first = _build(self.part, 0, states)
        return Program(tuple(states), first, any(state.kind in ZERO_WIDTH for state in states))

    def fits(self, value: str) -> bool:
        """Whether the expression matches somewhere in the text."""
        text = value.casefold()
        if self.literal not in text:
            return False
        return not self.size or _found(self.program, text)


def _found(program: Program, text: str) -> bool:
    """Walk all states in parallel, one character after the other."""
    moved: list[int] = []
    seen = [-1] * len(program.states)
    for at in range(len(text) + 1):
        holds = _holding(text, at) if program.asks else ()
        waiting = _spread(program, moved, holds, (seen, at))
        if waiting is None:
            return True
        moved = _step(waiting, text[at]) if at < len(text) and waiting else []
    return False


def _holding(text: str, at: int) -> Sequence[str]:
    """The conditions that hold at a position in the text, without consuming a character."""
    edge = (at > 0 and WORD_CHAR(text[at - 1])) != (at < len(text) and WORD_CHAR(text[at]))
    return [kind for kind, holds in zip(ZERO_WIDTH, (at == 0, at == len(text), edge), strict=True) if holds]


def _spread(
    program: Program, begun: Iterable[int], holds: Sequence[str], met: tuple[list[int], int]
) -> list[NfaState] | None:
    """The states that wait for a character, reached from `begun` and the first state; None at the expression's end.

    `met`: for each state, the text position where it was reached last; and the current position.
    """
    states, (seen, at) = program.states, met
    todo, waiting = [program.first, *begun], []
    while todo:
        number = todo.pop()
        if seen[number] == at:
            continue
        seen[number] = at
        kind, _, _, after = state = states[number]
        if kind == "fork":
            todo += after
        elif kind == "char":
            waiting.append(state)
        elif kind == "found":
            return None
        elif kind in holds:
            todo += after
    return waiting


def _step(waiting: Iterable[NfaState], char: str) -> list[int]:
    """The states after those that accept the character. Each test runs once, even if several states share it."""
    moved: list[int] = []
    known: dict[CharTest, bool] = {}
    for _, test, literal, after in waiting:
        if literal:
            takes = literal == char
        elif (result := known.get(test)) is None:
            takes = known[test] = test(char)
        else:
            takes = result
        if takes:
            moved += after
    return moved


def compile_(text: str) -> Regex:
    """Compile an expression. ValueError reports the part that cannot be read, and its position."""
    part = parse(text)
    size = _size(part) + 1
    if size > MAX_EXPRESSION_STATES:
        raise ValueError(
            f"it repeats too much (more than {MAX_EXPRESSION_STATES} states); use * or +, or smaller numbers in {{}}"
        )
    plain = all(one.char for one in _flat(part))
    return Regex(max(_literals(part), key=len, default=""), 0 if plain else size, part)


def _flat(part: Part) -> Iterator[Part]:
    """The sequence of elements in a part, without brackets that only group."""
    if part.kind != "cat":
        yield part
    for one in part.parts if part.kind == "cat" else ():
        yield from _flat(one)


def _size(part: Part) -> int:
    """The number of states that `_build` makes for a part. A repetition of nothing counts too, because it takes time.

    The states are counted without building them, so this is fast for any numbers in {}.
    """
    inner = sum(map(_size, part.parts))
    if part.kind == "cat":
        return inner
    if part.kind == "or":
        return inner + 1
    if part.kind != "repeat":
        return 1
    more = 1 if part.most == UNLIMITED else part.most - part.least
    return max(inner, 1) * part.least + (inner + 1) * more


def _add(states: list[NfaState], state: NfaState) -> int:
    states.append(state)
    return len(states) - 1


def _build(part: Part, after: int, states: list[NfaState]) -> int:
    """Add the states of a part that lead to `after`; return the first of them."""
    if part.kind == "cat":
        for one in reversed(part.parts):
            after = _build(one, after, states)
        return after
    if part.kind == "or":
        return _add(states, NfaState("fork", after=tuple(_build(one, after, states) for one in part.parts)))
    if part.kind == "repeat":
        return _repeat(part, after, states)
    return _add(states, NfaState(part.kind, part.test, part.char, (after,)))


def _repeat(part: Part, after: int, states: list[NfaState]) -> int:
    [inner] = part.parts
    if part.most == UNLIMITED:
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
    """Sequences of characters that every matching text contains."""
    runs, run = [""], ""
    for one in _flat(part):
        run = run + one.char if one.char else ""
        runs.append(run)
        if one.kind == "repeat" and one.least:
            runs += _literals(one.parts[0])
    return runs
