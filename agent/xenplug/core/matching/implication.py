"""Whether every device that matches one match also matches another: `check` finds shadowed rules with it.

Sound, not complete: a positive answer is right for every possible device; some implications (a glob inside another
glob, for example) are not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod

from xenplug.core.policy.patterns import InterfacePattern, Pattern, PlacePattern, RegexPattern, TagPattern, TextPattern
from xenplug.core.policy.rules import Condition

MAX_CASES = 64
"""The most single cases that one match is split into."""
FEW = 64
"""The most pairs of values that are compared one by one; longer lists are looked up in each other."""

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
    return _all_covered(wide.patterns, narrow.patterns)


def _all_covered(wide: Sequence[Pattern], narrow: Sequence[Pattern]) -> bool:
    """Each value of `narrow` is covered by one of `wide`."""
    if len(wide) * len(narrow) <= FEW:
        return all(any(pattern_covers(w, n) for w in wide) for n in narrow)
    written, texts = {str(w) for w in wide}, [w for w in wide if is_open(w)]
    return all(
        any(value in written for value in wider(n)) or any(pattern_covers(text, n) for text in texts) for n in narrow
    )


def wider(pattern: Pattern) -> Iterator[str]:
    """The pattern and those that cover it, as they are written. Not all globs and expressions that cover a text."""
    yield str(pattern)
    if isinstance(pattern, TagPattern):
        yield from (f"{pattern.vendor or '*'}:*", "*:*")
    elif isinstance(pattern, InterfacePattern):
        class_, subclass, protocol = pattern.class_, pattern.subclass or "*", pattern.protocol or "*"
        yield from (f"{class_}:{subclass}:*", f"{class_}:*:{protocol}", f"{class_}:*:*")
    elif isinstance(pattern, PlacePattern):
        place = pattern.place
        while "." in place:
            place = place.rpartition(".")[0]
            yield f"{place}.*"
    elif isinstance(pattern, TextPattern):
        yield "*"


def is_open(pattern: Pattern) -> bool:
    """A glob or a regular expression: the texts that it matches are not listed."""
    return isinstance(pattern, RegexPattern) or (isinstance(pattern, TextPattern) and pattern.glob.exact is None)


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
    return is_open(one) and is_open(other)


def _meet_somewhere(one: Sequence[Pattern], other: Sequence[Pattern]) -> bool:
    """A value of `one` and a value of `other` may meet."""
    if len(one) * len(other) <= FEW or isinstance(one[0], InterfacePattern):
        return any(meet(p, q) for p in one for q in other)
    written = {str(p) for p in one}, {str(q) for q in other}
    if any(v in written[1] for p in one for v in wider(p)) or any(v in written[0] for q in other for v in wider(q)):
        return True
    open_ = [[p for p in patterns if is_open(p)] for patterns in (one, other)]
    return any(meet(p, q) for p in open_[0] for q in other) or any(meet(p, q) for p in one for q in open_[1])


SINGLE = frozenset(
    {"device", "address", "port", "path", "controller", "serial", "class", "speed", "revision", "removable"}
)
"""Keys for which a device has one value: two sets of values that do not meet exclude each other."""


def apart(one: Match, other: Match) -> bool:
    """No device matches both."""
    for a in one:
        for b in other:
            if a.key == b.key and a.key in SINGLE and not _meet_somewhere(a.patterns, b.patterns):
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
