"""The problems of a text, in the form that every command uses: FILE:LINE:COL: PATH: fact; remedy.

The readers (document, policy, settings, scenarios) return Problems instead of raising exceptions, so a user sees all
of them at once; the commands print them or convert them to JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

PLAIN_WORD = re.compile(r"[A-Za-z0-9_-]+\Z")
SHOWN = 60

Path = Sequence[str | int]


class Position(NamedTuple):
    """A place in a text; line and column count from 1, columns are characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `path` is empty if the problem concerns the whole file; severity is error or warning."""

    file: str
    line: int
    column: int
    path: str
    message: str
    severity: str = "error"

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}:{self.column}: {path}{self.message}"


def merge(*lists: Iterable[Problem]) -> list[Problem]:
    """All problems of one file by position, one for each place: an earlier list takes precedence over a later one."""
    first: dict[tuple[int, int, str], Problem] = {}
    for problem in (problem for problems in lists for problem in problems):
        first.setdefault((problem.line, problem.column, problem.path), problem)
    return sorted(first.values(), key=lambda problem: (problem.line, problem.column))


def dotted(path: Path) -> str:
    """`rules[2].match.device`; keys that are not plain words are put in brackets and quotes."""
    return "".join(_step(step) for step in path).removeprefix(".")


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if PLAIN_WORD.match(step) else f"[{shown(step)}]"


def shown(text: str) -> str:
    """A user's text in quotes, on one line, without control characters, truncated if it is long."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


def meant(word: str, known: Sequence[str]) -> str | None:
    """The known word that was probably meant."""
    import difflib  # slow to import, and only needed for wrong words

    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
    return close[0] if close else None


def listed(words: Sequence[str], last: str = "or") -> str:
    """`a, b or c`."""
    return f" {last} ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
