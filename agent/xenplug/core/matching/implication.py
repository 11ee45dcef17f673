"""Whether every device that matches one match also matches another: `check` finds shadowed rules with it.

Sound, not complete: a positive answer is right for every possible device; some implications (a glob inside another
glob, for example) are not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod

from xenplug.core.policy.patterns import InterfacePattern, Pattern, PlacePattern, TagPattern, TextPattern
from xenplug.core.policy.rules import Condition

MAX_CASES = 64
"""The most single cases that one match is split into."""

Match = Sequence[Condition]


def covers(wide: Match, narrow: Match) -> bool:
    """Every device that matches `narrow` matches `wide`."""
    return all(_implied(condition, narrow) for condition in wide)


def _implied(condition: Condition, narrow: Match) -> bool:
    if condition.key == "any" and any(covers(group, narrow) for group in condition.groups):
        return True
    if condition.key == "not" and any(apart(group, narrow) for group in condition.groups):
        return True
    return any(_tighter(other, condition) for other in narrow if other.key == condition.key)


def _tighter(narrow: Condition, wide: Condition) -> bool:
    """Every device that matches the key `narrow` matches the key `wide`."""
    if narrow.key == "not":
        return all(any(covers(n, w) for n in narrow.groups) for w in wide.groups)
    if narrow.groups:
        return all(any(covers(w, n) for w in wide.groups) for n in narrow.groups)
    return all(any(pattern_covers(w, n) for w in wide.patterns) for n in narrow.patterns)


def pattern_covers(wide: Pattern, narrow: Pattern) -> bool:
    """Every value that `narrow` admits is admitted by `wide`."""
    if wide == narrow:
        return True
    if isinstance(wide, TagPattern) and isinstance(narrow, TagPattern):
        return wide.vendor in (None, narrow.vendor) and wide.product in (None, narrow.product)
    if isinstance(wide, PlacePattern) and isinstance(narrow, PlacePattern):
        return wide.below and narrow.place.startswith(f"{wide.place}.")
    if isinstance(wide, InterfacePattern) and isinstance(narrow, InterfacePattern):
        return wide.class_ == narrow.class_ and all(
            w in (None, n) for w, n in ((wide.subclass, narrow.subclass), (wide.protocol, narrow.protocol))
        )
    if isinstance(narrow, TextPattern):
        if isinstance(wide, TextPattern) and wide.text == "*":
            return True
        return narrow.glob.exact is not None and wide.admits(narrow.glob.exact)
    return False


def meet(one: Pattern, other: Pattern) -> bool:
    """Both may admit the same value; also True if this is unknown."""
    if pattern_covers(one, other) or pattern_covers(other, one):
        return True
    if isinstance(one, InterfacePattern) and isinstance(other, InterfacePattern):
        both = ((one.subclass, other.subclass), (one.protocol, other.protocol))
        return one.class_ == other.class_ and all(a is None or b is None or a == b for a, b in both)
    if isinstance(one, TextPattern) and isinstance(other, TextPattern):
        return one.glob.exact is None and other.glob.exact is None
    return str(one).startswith("/") and str(other).startswith("/")


SINGLE = frozenset(
    {"device", "address", "port", "path", "controller", "serial", "class", "speed", "revision", "removable"}
)
"""Keys for which a device has one value: two sets of values that do not meet exclude each other."""


def apart(one: Match, other: Match) -> bool:
    """No device matches both."""
    for a in one:
        for b in other:
            if a.key == b.key and a.key in SINGLE and not any(meet(p, q) for p in a.patterns for q in b.patterns):
                return True
            if b.key == "not" and any(covers(group, one) for group in b.groups):
                return True
    return any(a.key == "not" and any(covers(group, other) for group in a.groups) for a in one)


def contradictory(match: Match) -> bool:
    """No device can match: one of its keys excludes another."""
    return any(
        condition.key == "not" and any(covers(group, [*match[:n], *match[n + 1 :]]) for group in condition.groups)
        for n, condition in enumerate(match)
    )


def cases(match: Match) -> Iterator[tuple[Condition, ...]]:
    """The match split into cases, one for each combination of single values. `interfaces` is not split."""
    choices = [
        [replace(condition, patterns=(p,)) for p in condition.patterns]
        if condition.patterns and condition.key != "interfaces"
        else [condition]
        for condition in match
    ]
    if prod(map(len, choices)) > MAX_CASES:
        choices = [[condition] for condition in match]
    yield from product(*choices)
