"""What a policy's patterns may cost for one device, in the worst case: bounded when the policy is loaded.

A device chooses its texts, so it can make every pattern of a policy run to its end. The bounds keep one decision within
about 50 ms (regular expressions) and half a second (globs full of sets), measured on a slow dom0 core, whatever the
device says of itself, and the memory of all expressions within a megabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from xenplug.core.documents.problems import Problem
from xenplug.core.policy.patterns import Pattern, RegexPattern, TextPattern
from xenplug.core.policy.rules import Condition, Where

MOST_STATES = 1500
"""Of all regular expressions of a policy; a state takes up to 40 microseconds for a text of 126 characters."""
LEAST_STATES = 10
"""That an expression counts for: what walking through a text takes at any rate."""
MOST_SEARCHED = 20_000
"""Sets and question marks between two stars, of all globs; each takes up to 20 microseconds."""
HUBS = 5
"""In a chain at most (USB 2.0, 4.1.1): what stands below `below` is asked of each."""

Counted = Callable[[Pattern], int]
Matches = Iterable[tuple[Where, Sequence[Condition]]]


@dataclass(frozen=True, slots=True)
class Bound:
    """One bound: how a pattern counts, and how the refusal is worded."""

    most: int
    thing: str
    remedy: str


STATES = Bound(
    MOST_STATES,
    "states of regular expressions",
    "use smaller numbers in {}, * and + instead, globs, or fewer expressions",
)
SEARCHED = Bound(
    MOST_SEARCHED,
    "sets and question marks between two stars of a glob",
    "write plain text there, or fewer such globs",
)


def too_much(matches: Matches) -> list[Problem]:
    """The bounds that a policy's matches exceed, each with the place that takes most. Never raises."""
    matches = list(matches)
    return [
        *_beyond(STATES, [(where, _total(conditions, _states)) for where, conditions in matches]),
        *_beyond(SEARCHED, [(where, _total(conditions, _searched)) for where, conditions in matches]),
    ]


def _beyond(bound: Bound, costs: Sequence[tuple[Where, int]]) -> Iterator[Problem]:
    whole = sum(cost for _, cost in costs)
    if whole > bound.most:
        where, cost = max(costs, key=lambda entry: entry[1])
        text = f"the policy has {whole} {bound.thing}, {bound.most} are allowed in all, {cost} of them here"
        yield Problem(where.file, where.line, where.column, "", f"{text}; {bound.remedy}")


def _total(conditions: Iterable[Condition], cost: Counted) -> int:
    found = 0
    for condition in conditions:
        nested = sum(_total(group, cost) for group in condition.groups)
        found += sum(map(cost, condition.patterns)) + nested * (HUBS if condition.key == "below" else 1)
    return found


def _states(pattern: Pattern) -> int:
    size = pattern.regex.size if isinstance(pattern, RegexPattern) else 0
    return max(size, LEAST_STATES) if size else 0


def _searched(pattern: Pattern) -> int:
    return pattern.glob.searched if isinstance(pattern, TextPattern) else 0
