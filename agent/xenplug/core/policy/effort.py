"""Bounds on the worst-case cost of a policy's patterns for one device; checked when the policy is loaded.

A device chooses its texts, so it can make every pattern of a policy run to its end. The bounds limit one decision to
about 50 ms (regular expressions) and half a second (globs full of sets), measured on a slow dom0 core, for any texts
of the device. They limit the memory of all expressions to a megabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from xenplug.core.documents.problems import Problem
from xenplug.core.policy.patterns import Pattern, RegexPattern, TextPattern
from xenplug.core.policy.rules import Condition, Where

MAX_POLICY_STATES = 1500
"""The limit for all regular expressions of a policy; a state takes up to 40 us for a text of 126 characters."""
LEAST_STATES = 10
"""The minimum that an expression counts as: walking through a text has a fixed cost."""
MOST_SEARCHED = 20_000
"""The limit for sets and question marks between two stars, of all globs; each takes up to 20 us."""
HUBS = 5
"""The longest chain of hubs (USB 2.0, 4.1.1): the match in `below` is tested on each of them."""

Counted = Callable[[Pattern], int]
Matches = Iterable[tuple[Where, Sequence[Condition]]]


@dataclass(frozen=True, slots=True)
class Bound:
    """One bound, and the words of its message."""

    most: int
    thing: str
    remedy: str


STATES = Bound(
    MAX_POLICY_STATES,
    "states of regular expressions",
    "use smaller numbers in {}, or * and +, or globs, or fewer expressions",
)
SEARCHED = Bound(
    MOST_SEARCHED,
    "sets and question marks between two stars of a glob",
    "write plain text between the stars, or use fewer such globs",
)


def too_much(matches: Matches) -> list[Problem]:
    """A problem for each bound that a policy's matches exceed, at the costliest match. Never raises."""
    matches = list(matches)
    return [
        *_beyond(STATES, [(where, _total(conditions, _states)) for where, conditions in matches]),
        *_beyond(SEARCHED, [(where, _total(conditions, _searched)) for where, conditions in matches]),
    ]


def _beyond(bound: Bound, costs: Sequence[tuple[Where, int]]) -> Iterator[Problem]:
    whole = sum(cost for _, cost in costs)
    if whole > bound.most:
        where, cost = max(costs, key=lambda entry: entry[1])
        text = f"the policy has {whole} {bound.thing} ({cost} of them here), but at most {bound.most} are allowed"
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
