"""Which of many matches may cover a given one: `check` need not compare each rule with all others.

Each match is filed under the terms of one of its conditions, the one that costs the fewest comparisons. If one match
covers another (core/matching/implication), the other one is looked up by at least one of these terms. So the answer
is the same as that of comparing all pairs; a test does both.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge

from xenplug.core.matching.implication import SINGLE, Match, is_open, wider
from xenplug.core.matching.index import BEST_FIRST
from xenplug.core.policy.patterns import Pattern, RegexPattern, TextPattern
from xenplug.core.policy.rules import Condition

MAX_COMPARISONS = 500_000
"""The most comparisons of two patterns in one search of `check`: about two seconds."""

Term = tuple[object, ...]
Terms = frozenset[Term]
Cost = Callable[[str, Terms], int]
"""The cost of filing a match under the terms of the condition with this key."""
ANY_NOT: Term = ("not",)
"""For a `not` that is filed under no term."""


TEXT_KEYS = frozenset({"serial", "product", "manufacturer", "class", "interface", "interfaces"})
"""Keys whose values are compared one by one; those of other keys are looked up (implication)."""


class Budget:
    """Limits the comparisons of a search whose matches share so many terms that the index does not help."""

    def __init__(self, most: int = MAX_COMPARISONS) -> None:
        self._left = most

    def spent(self) -> bool:
        """Whether no further pair may be compared."""
        return self._left < 0

    def spend(self, one: Match, other: Match) -> bool:
        """Count the comparison of two matches. False if it is beyond the budget."""
        self._left -= _texts(one) * _texts(other) + len(one) + len(other)
        return not self.spent()


def _texts(match: Match) -> int:
    """How many parts of a match are compared one by one with those of another."""
    return 1 + sum(
        sum(1 + _texts(group) for group in c.groups) if c.groups else len(c.patterns) if c.key in TEXT_KEYS else 0
        for c in match
    )


class Covering:
    """The matches `wide`, by number. `narrow` are those that will be looked up: they decide how `wide` is filed."""

    def __init__(self, wide: Sequence[Match], narrow: Iterable[Match]) -> None:
        self._literals = _Literals([*wide, *(narrow := list(narrow))])
        self._filed: defaultdict[Term, list[int]] = defaultdict(list)
        self._asked = Counter(term for match in narrow for term in self._terms(match, every=True))
        self._always: list[int] = []
        for number, match in enumerate(wide):
            terms = self._file(match, self._cost)
            if terms is None:
                self._always.append(number)
            for term in terms or ():
                self._filed[term].append(number)

    def may_cover(self, narrow: Match) -> Iterator[int]:
        """The numbers of all matches that may cover this one, in order."""
        lists = [self._filed[term] for term in self._terms(narrow) if term in self._filed]
        last = -1
        for number in merge(*lists, self._always):
            if number != last:
                yield number
            last = number

    def _cost(self, _key: str, terms: Terms) -> int:
        return sum(self._asked[term] for term in terms)

    # how a wide match is filed

    def _file(self, match: Match, cost: Cost) -> Terms | None:
        """The terms of the condition with the lowest cost; None if there is none: the match may cover every other."""
        options = [(condition.key, self._filed_under(condition, cost)) for condition in match]
        found = [(cost(key, terms), number, terms) for number, (key, terms) in enumerate(options) if terms is not None]
        return min(found)[2] if found else None

    def _filed_under(self, condition: Condition, cost: Cost) -> Terms | None:
        if condition.patterns:
            return frozenset(t for p in condition.patterns for t in self._literals.filed(condition.key, p))
        if condition.key == "not":
            groups = [self._negated(group, cost) for group in condition.groups]
        else:
            groups = [self._file(group, cost) for group in condition.groups]
        known = [terms for terms in groups if terms is not None]
        if not groups or len(known) < len(groups):
            return None
        terms = frozenset[Term]().union(*known)
        return frozenset(("below", term) for term in terms) if condition.key == "below" else terms

    def _negated(self, group: Match, cost: Cost) -> Terms | None:
        """For `not: group`, which covers what is apart from the group, and what has a wider `not`."""
        terms = {ANY_NOT, *(("not", term) for term in self._terms(group))}
        for condition in group:
            if condition.key in SINGLE:
                terms.add(("single", condition.key, any(map(is_open, condition.patterns))))
            for inner in condition.groups if condition.key == "not" else ():
                filed = self._file(inner, cost)
                if filed is None:
                    return None
                terms |= filed
        return frozenset(terms)

    # how a narrow match is looked up

    def _terms(self, match: Match, *, every: bool = False) -> Iterator[Term]:
        """What covers a match covers each value of each condition, so the rarest value is enough. `every`: all."""
        for condition in match:
            if condition.key == "not":
                yield from self._wider_not(condition)
                continue
            options = list(self._options(condition, every))
            for terms in options if every else [min(options, key=self._weight, default=[])]:
                yield from terms
            if condition.key in SINGLE:
                yield "single", condition.key, False
                if not any(map(is_open, condition.patterns)):
                    yield "single", condition.key, True

    def _options(self, condition: Condition, every: bool) -> Iterator[list[Term]]:
        for pattern in condition.patterns:
            yield list(self._literals.asked(condition.key, pattern))
        for group in condition.groups:
            terms = self._terms(group, every=every)
            yield [("below", term) for term in terms] if condition.key == "below" else list(terms)

    def _weight(self, terms: Iterable[Term]) -> int:
        return sum(len(self._filed[term]) for term in terms if term in self._filed)

    def _wider_not(self, condition: Condition) -> Iterator[Term]:
        for group in condition.groups:
            terms = self._file(group, _rank)
            yield from [ANY_NOT] if terms is None else (("not", term) for term in terms)


def _rank(key: str, _terms: Terms) -> int:
    """The cost of a condition where nothing else is known."""
    return BEST_FIRST.index(key) if key in BEST_FIRST else len(BEST_FIRST)


class _Literals:
    """The terms of values. A glob or expression is filed under itself, and under a text that all it matches contain;
    an exact text is looked up by those of these texts that it contains.
    """

    def __init__(self, matches: Iterable[Match]) -> None:
        patterns = {(key, pattern) for match in matches for key, pattern in _patterns(match) if is_open(pattern)}
        seen = Counter((key, text) for key, pattern in patterns for text in _held(pattern))
        self._chosen = {
            (key, str(pattern)): min(_held(pattern), key=lambda text: (seen[key, text], -len(text), text))
            for key, pattern in patterns
        }
        self._texts: defaultdict[str, defaultdict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        """By key and length."""
        for (key, _), text in self._chosen.items():
            self._texts[key][len(text)].add(text)

    def filed(self, key: str, pattern: Pattern) -> Iterator[Term]:
        """The terms under which a value is filed."""
        yield key, str(pattern)
        if is_open(pattern):
            yield "held", key, self._chosen[key, str(pattern)]

    def asked(self, key: str, pattern: Pattern) -> Iterator[Term]:
        """The terms by which a value is looked up."""
        for value in wider(pattern):
            yield key, value
        exact = pattern.glob.exact if isinstance(pattern, TextPattern) else None
        for length, texts in self._texts[key].items() if exact is not None else ():
            parts = {exact[at : at + length] for at in range(len(exact) - length + 1)} if exact is not None else ()
            for text in texts.intersection(parts):
                yield "held", key, text


def _held(pattern: Pattern) -> list[str]:
    """Texts that every text which the pattern matches contains."""
    if isinstance(pattern, RegexPattern):
        return [pattern.regex.literal]
    assert isinstance(pattern, TextPattern)  # noqa: S101 (is_open)
    return [p for segment in pattern.glob.segments for p in segment.pieces if isinstance(p, str)] or [""]


def _patterns(match: Match) -> Iterator[tuple[str, Pattern]]:
    for condition in match:
        yield from ((condition.key, pattern) for pattern in condition.patterns)
        for group in condition.groups:
            yield from _patterns(group)
