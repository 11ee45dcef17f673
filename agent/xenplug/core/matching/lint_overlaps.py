"""Warnings of `check` about rules that name the same device or place and have different outcomes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from xenplug.core.documents.problems import Problem
from xenplug.core.matching.covering import Budget
from xenplug.core.matching.implication import SINGLE, apart, covers, is_open, wider
from xenplug.core.matching.lint_trust import called, placed, uncompared, warning
from xenplug.core.policy.patterns import Pattern
from xenplug.core.policy.rules import Policy, Rule

NAMING = ("device", "path", "port", "serial")
"""Keys that name a single device or place: two rules with the same value are probably a mistake."""
KEYS = SINGLE - {"class"}
"""Keys by which rules that have no device in common are told apart. Of two class triples neither may cover the other,
and still a device may match both."""
MOST_OVERLAPS = 20

Outcome = tuple[object, ...]
Lists = dict[Outcome, list[int]]
"""Rule numbers by the outcome of the rules, ascending."""


def overlaps(policy: Policy) -> Iterator[Problem]:
    """Pairs of rules that name the same device or place and have different outcomes."""
    earlier: defaultdict[frozenset[str], _SameKeys] = defaultdict(_SameKeys)
    budget, count = Budget(), 0
    for number, rule in enumerate(policy.rules):
        values = {c.key: c.patterns for c in rule.conditions if c.key in KEYS}
        groups = [group.may_overlap(values, _outcome(rule)) for group in earlier.values()] if _names(values) else []
        for other in sorted(set().union(*groups)):
            if not budget.spend(policy.rules[other].conditions, rule.conditions):
                yield uncompared(rule, "earlier rules", "in conflict")
                return
            if _overlap(policy.rules[other], rule):
                yield warning(
                    rule.where,
                    f"{called(rule)} overlaps with {placed(policy.rules[other])}, which comes first and decides for "
                    "devices that match both; make their matches exclude each other",
                )
                count += 1
                if count == MOST_OVERLAPS:
                    return
        if _names(values):
            earlier[frozenset(values)].add(number, values, _outcome(rule))


def _names(values: dict[str, tuple[Pattern, ...]]) -> bool:
    return any(key in values for key in NAMING)


def _outcome(rule: Rule) -> Outcome:
    return rule.action, rule.guests, rule.via


def _overlap(first: Rule, second: Rule) -> bool:
    one, two = first.conditions, second.conditions
    if covers(one, two) or covers(two, one):
        return False
    return not apart(one, two)


class _SameKeys:
    """Earlier rules with the same KEYS. Rules that share a device have values that meet for each key of both."""

    def __init__(self) -> None:
        self._by_value: defaultdict[tuple[str, str], Lists] = defaultdict(dict)
        self._below: defaultdict[tuple[str, str], Lists] = defaultdict(dict)
        """By each value that covers a value of the rule."""
        self._open: defaultdict[str, Lists] = defaultdict(dict)
        self._keys: frozenset[str] = frozenset()

    def add(self, number: int, values: dict[str, tuple[Pattern, ...]], outcome: Outcome) -> None:
        """Add a rule, with its values by key."""
        self._keys = frozenset(values)
        for key, patterns in values.items():
            for value in {str(pattern) for pattern in patterns}:
                self._by_value[key, value].setdefault(outcome, []).append(number)
            for value in {value for pattern in patterns for value in wider(pattern)}:
                self._below[key, value].setdefault(outcome, []).append(number)
            if any(map(is_open, patterns)):
                self._open[key].setdefault(outcome, []).append(number)

    def may_overlap(self, values: dict[str, tuple[Pattern, ...]], outcome: Outcome) -> list[int]:
        """Rules with another outcome that share a value of NAMING and may share a device."""
        shared = [self._by_value.get((k, str(p)), {}) for k in NAMING if k in self._keys for p in values.get(k, ())]
        options = [shared]
        for key in self._keys & values.keys() if any(shared) else ():
            if not any(map(is_open, values[key])):
                options.append(list(self._meeting(key, values[key])))
        found = min(options, key=lambda lists: sum(len(numbers) for by in lists for numbers in by.values()))
        return [number for by in found for other, numbers in by.items() if other != outcome for number in numbers]

    def _meeting(self, key: str, patterns: Sequence[Pattern]) -> Iterator[Lists]:
        for pattern in patterns:
            yield from (self._by_value.get((key, value), {}) for value in wider(pattern))
            yield self._below.get((key, str(pattern)), {})
        yield self._open.get(key, {})
