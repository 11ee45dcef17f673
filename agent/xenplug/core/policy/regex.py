"""Regular expressions in linear time, for the strings a device tells of itself (`/regex/` in a policy).

Python's `re` backtracks: a device whose product string is 126 times `a` could hold up the agent for years with a rule
that says `/(a+)+b/`. Here a text is read into states (Thompson's construction) that are all walked at once: at most
length times states, whatever the text. What needs more (back references, look-around) is refused. No case; searched for
anywhere unless ^ and $ say otherwise.

States are counted before any is made, and made when the expression first meets a text that holds its literal: a policy
that is refused, or whose expressions never apply, costs only their reading. core/policy/effort bounds their sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from xenplug.core.policy.regex_parse import ANY, MANY, WORD, Part, Test, parse

MOST_STATES = 1000
"""What `{1,255}` inside `{1,255}` would need is refused."""


CONDITIONS = ("start", "end", "edge")


class NfaState(NamedTuple):
    """One state: what it asks, and the states after it."""

    kind: str
    test: Test = ANY
    char: str = ""
    after: tuple[int, ...] = ()


class Program(NamedTuple):
    """All states of an expression, and the first of them."""

    states: tuple[NfaState, ...]
    first: int
    asks: bool
    """It holds ^, $ or \\b."""


@dataclass(frozen=True)
class Regex:
    """An expression that was read. `literal` stands in every text it fits (casefolded; "" if nothing does).

    `size`: the states it needs. 0: it is plain text, to be found anywhere, and needs none.
    """

    literal: str
    size: int
    part: Part

    @cached_property
    def program(self) -> Program:
        states: list[NfaState] = [NfaState("found")]
        first = _build(self.part, 0, states)
        return Program(tuple(states), first, any(state.kind in CONDITIONS for state in states))

    def fits(self, value: str) -> bool:
        """Whether it is found in the text."""
        text = value.casefold()
        if self.literal not in text:
            return False
        return not self.size or _found(self.program, text)


def _found(program: Program, text: str) -> bool:
    """Walk all states at once, one character after the other."""
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
    """The conditions that hold at a place in the text without a character being taken."""
    edge = (at > 0 and WORD(text[at - 1])) != (at < len(text) and WORD(text[at]))
    return [kind for kind, holds in zip(CONDITIONS, (at == 0, at == len(text), edge), strict=True) if holds]


def _spread(
    program: Program, begun: Iterable[int], holds: Sequence[str], met: tuple[list[int], int]
) -> list[NfaState] | None:
    """The states that wait for a character, from those begun with and the first; None at the end of the expression.

    `met`: by state, where in the text it was met last; and where this is.
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
    """The states after those that take the character. Each test is asked once, however many states share it."""
    moved: list[int] = []
    known: dict[Test, bool] = {}
    for _, test, literal, after in waiting:
        if literal:
            takes = literal == char
        elif (told := known.get(test)) is None:
            takes = known[test] = test(char)
        else:
            takes = told
        if takes:
            moved += after
    return moved


def compile_(text: str) -> Regex:
    """Read an expression. ValueError says what cannot be read, and where."""
    part = parse(text)
    size = _size(part) + 1
    if size > MOST_STATES:
        raise ValueError(
            f"it repeats too much, {MOST_STATES} states are allowed; use * or +, or smaller numbers in {{}}"
        )
    plain = all(one.char for one in _flat(part))
    return Regex(max(_literals(part), key=len, default=""), 0 if plain else size, part)


def _flat(part: Part) -> Iterator[Part]:
    """What follows one another in a part, without the brackets that only hold it together."""
    if part.kind != "cat":
        yield part
    for one in part.parts if part.kind == "cat" else ():
        yield from _flat(one)


def _size(part: Part) -> int:
    """The states that `_build` makes of a part, or would; a repetition of nothing counts as well, since it takes time.

    Counted, not built, so the answer comes at once for any numbers in {}.
    """
    inner = sum(map(_size, part.parts))
    if part.kind == "cat":
        return inner
    if part.kind == "or":
        return inner + 1
    if part.kind != "repeat":
        return 1
    more = 1 if part.most == MANY else part.most - part.least
    return max(inner, 1) * part.least + (inner + 1) * more


def _add(states: list[NfaState], state: NfaState) -> int:
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
    return _add(states, NfaState(part.kind, part.test, part.char, (after,)))


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
    runs, run = [""], ""
    for one in _flat(part):
        run = run + one.char if one.char else ""
        runs.append(run)
        if one.kind == "repeat" and one.least:
            runs += _literals(one.parts[0])
    return runs
