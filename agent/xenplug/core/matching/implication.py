"""Whether every device that fits one match fits another: what `check` finds shadowed rules by.

Sound, not complete: what it says holds for every device there can be; what it does not see (a glob inside another, say)
it does not say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod

from xenplug.core.policy.patterns import InterfacePattern, Pattern, PlacePattern, TagPattern, TextPattern
from xenplug.core.policy.rules import Condition

MAX_CASES = 64
"""Single cases that one match is taken apart into."""

Match = Sequence[Condition]


def covers(wide: Match, narrow: Match) -> bool:
    """Every device that fits `narrow` fits `wide`."""
    return all(_implied(condition, narrow) for condition in wide)


def _implied(condition: Condition, narrow: Match) -> bool:
    if condition.key == "any" and any(covers(group, narrow) for group in condition.groups):
        return True
    if condition.key == "not" and any(apart(group, narrow) for group in condition.groups):
        return True
    return any(_tighter(other, condition) for other in narrow if other.key == condition.key)


def _tighter(narrow: Condition, wide: Condition) -> bool:
    """What fits the one key fits the other."""
    if narrow.key == "not":
        return all(any(covers(n, w) for n in narrow.groups) for w in wide.groups)
    if narrow.groups:
        return all(any(covers(w, n) for w in wide.groups) for n in narrow.groups)
    return all(any(pattern_covers(w, n) for w in wide.patterns) for n in narrow.patterns)


def pattern_covers(wide: Pattern, narrow: Pattern) -> bool:
    """Every value that the one admits the other admits."""
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
    """Some value may be admitted by both; where that cannot be told, it may."""
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
"""Keys of which a device has one value: two sets of them that do not meet exclude each other."""


def apart(one: Match, other: Match) -> bool:
    """No device fits both."""
    for a in one:
        for b in other:
            if a.key == b.key and a.key in SINGLE and not any(meet(p, q) for p in a.patterns for q in b.patterns):
                return True
            if b.key == "not" and any(covers(group, one) for group in b.groups):
                return True
    return any(a.key == "not" and any(covers(group, other) for group in a.groups) for a in one)


def hopeless(match: Match) -> bool:
    """No device at all fits: one of its keys excludes another."""
    return any(
        condition.key == "not" and any(covers(group, [*match[:n], *match[n + 1 :]]) for group in condition.groups)
        for n, condition in enumerate(match)
    )


def cases(match: Match) -> Iterator[tuple[Condition, ...]]:
    """The match taken apart: one for each choice of one value of each key. `interfaces` holds for all at once."""
    choices = [
        [replace(condition, patterns=(p,)) for p in condition.patterns]
        if condition.patterns and condition.key != "interfaces"
        else [condition]
        for condition in match
    ]
    if prod(map(len, choices)) > MAX_CASES:
        choices = [[condition] for condition in match]
    yield from product(*choices)
