"""Warnings of `check` about a valid policy that may not do what its author wants, with the places of all its rules.

`lint` uses the policy alone; `lint_here` also uses the devices and guests of this host, as far as they are known.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from xenplug.core.documents.problems import Problem, listed, shown
from xenplug.core.matching.implication import apart, cases, contradictory, covers
from xenplug.core.matching.lint_trust import always_pinned, called, hubs_alone, trusting, warning
from xenplug.core.matching.match import matches, protects
from xenplug.core.model import Device
from xenplug.core.policy.patterns import InterfacePattern, PlacePattern, TagPattern, TextPattern
from xenplug.core.policy.rules import Action, Condition, Policy, Rule

DISTINGUISHING = frozenset({"serial", "path", "port", "address", "below"})
"""Keys that distinguish two devices with one tag."""
NAMING = ("device", "path", "port", "serial")
"""Keys that name a single device or place: two rules with the same value are probably a mistake."""
MOST_OVERLAPS = 20


def lint(policy: Policy) -> list[Problem]:
    """The warnings about a policy that apply on any host."""
    found = [*_never_tried(policy), *_overlaps(policy), *_protected(policy), *_changing(policy)]
    found += [*_idle_guests(policy), *hubs_alone(policy), *trusting(policy)]
    return _sorted(found)


def lint_here(policy: Policy, devices: Sequence[Device], guests: Iterable[str]) -> list[Problem]:
    """The warnings about a policy on this host. No guests: they are not known."""
    return _sorted([*_ambiguous(policy, devices), *_only_protected(policy, devices), *_unknown(policy, list(guests))])


def _sorted(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))


def _place(rule: Rule) -> str:
    return f"{shown(rule.name)} ({rule.where})" if rule.name != str(rule.where) else f"the one at {rule.where}"


def _outcome(rule: Rule) -> tuple[object, ...]:
    return rule.action, rule.guests, rule.via


# rules that never win


def _never_tried(policy: Policy) -> Iterator[Problem]:
    before = _Earlier()
    for number, rule in enumerate(policy.rules):
        if contradictory(rule.conditions):
            message = "matches no device, because one key excludes another; correct its match"
            yield warning(rule.where, f"{called(rule)} {message}")
        else:
            yield from _shadowed(policy, rule, before)
        before.add(number, rule.conditions)


def _shadowed(policy: Policy, rule: Rule, before: _Earlier) -> Iterator[Problem]:
    """A warning if each single case of the rule is covered by an earlier rule, with those rules."""
    by: dict[int, Rule] = {}
    for case in cases(rule.conditions):
        found = next((n for n in before.may_cover(case) if covers(policy.rules[n].conditions, case)), None)
        if found is None:
            return
        by[found] = policy.rules[found]
    word = "is never reached" if len(by) > 1 else "is shadowed"
    rules = listed([_place(other) for other in by.values()], "and")
    message = f"{word}, because each device that matches it matches {rules} first; move it up, or remove it"
    yield warning(rule.where, f"{called(rule)} {message}")


class _Earlier:
    """The earlier rules, indexed by the values that they may cover."""

    def __init__(self) -> None:
        self._by_value: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._rest: list[tuple[int, frozenset[str]]] = []

    def add(self, number: int, conditions: Sequence[Condition]) -> None:
        plain = [c for c in conditions if c.patterns and not any(_is_text(p) for p in c.patterns)]
        if not plain:
            self._rest.append((number, frozenset(c.key for c in conditions if c.key not in ("any", "not"))))
            return
        for pattern in plain[0].patterns:
            self._by_value[plain[0].key, str(pattern)].append(number)

    def may_cover(self, conditions: Sequence[Condition]) -> list[int]:
        keys = {condition.key for condition in conditions}
        found = {number for number, needed in self._rest if needed <= keys}
        for condition in conditions:
            for value in (value for pattern in condition.patterns for value in _wider(pattern)):
                found.update(self._by_value.get((condition.key, value), ()))
        return sorted(found)


def _is_text(pattern: object) -> bool:
    return isinstance(pattern, TextPattern) or str(pattern).startswith("/")


def _wider(pattern: object) -> Iterator[str]:
    """The pattern, and the patterns of its form that cover it."""
    yield str(pattern)
    if isinstance(pattern, TagPattern):
        yield from (f"{pattern.vendor or '*'}:*", "*:*")
    elif isinstance(pattern, InterfacePattern):
        yield from (f"{pattern.class_}:{pattern.subclass or '*'}:*", f"{pattern.class_}:*:*")
    elif isinstance(pattern, PlacePattern):
        place = pattern.place
        while "." in place:
            place = place.rpartition(".")[0]
            yield f"{place}.*"


# rules that share devices


def _overlaps(policy: Policy) -> Iterator[Problem]:
    """Pairs of rules that name the same device or place and have different outcomes."""
    named: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    count = 0
    for number, rule in enumerate(policy.rules):
        terms = {(c.key, str(p)) for c in rule.conditions if c.key in NAMING for p in c.patterns}
        for other in sorted({n for term in terms for n in named[term]}):
            if count < MOST_OVERLAPS and _overlap(policy.rules[other], rule):
                count += 1
                yield warning(
                    rule.where,
                    f"{called(rule)} overlaps with {_place(policy.rules[other])}, which comes first and decides for "
                    "devices that match both; make their matches exclude each other",
                )
        for term in terms:
            named[term].append(number)


def _overlap(first: Rule, second: Rule) -> bool:
    one, two = first.conditions, second.conditions
    if _outcome(first) == _outcome(second) or covers(one, two) or covers(two, one):
        return False
    return not apart(one, two)


# rules for protected devices


def _protected(policy: Policy) -> Iterator[Problem]:
    for rule in policy.rules:
        if rule.action == Action.HOST:
            continue
        entry = next((p for p in policy.protect if covers(p.conditions, rule.conditions)), None)
        if entry and (rule.action != Action.BLOCK or always_pinned(entry.conditions)):
            yield warning(
                rule.where,
                f"{called(rule)} has no effect, because every device that matches it is protected ({entry.where}); "
                "remove one of the two",
            )


# matches on values that change


def _changing(policy: Policy) -> Iterator[Problem]:
    named = [(r.where, called(r), r.conditions) for r in policy.rules]
    named += [(p.where, "this entry of protect", p.conditions) for p in policy.protect]
    for where, name, conditions in named:
        keys = {condition.key for condition in _all(conditions)}
        if "address" in keys:
            yield warning(
                where,
                f"{name} matches by bus address, which changes every time the device is plugged in; use `path:`, "
                "`device:` or `serial:` (see `xenplug devices --json`)",
            )
        elif "port" in keys:
            yield warning(
                where,
                f"{name} matches by port, and bus numbers can change at a boot; use `path:`, which does not change "
                "(see `xenplug devices --json`)",
            )


def _all(conditions: Iterable[Condition]) -> Iterator[Condition]:
    for condition in conditions:
        yield condition
        for group in condition.groups:
            yield from _all(group)


# this host


def _ambiguous(policy: Policy, devices: Sequence[Device]) -> Iterator[Problem]:
    for rule in policy.rules:
        keys = {condition.key for condition in _all(rule.conditions)}
        if rule.action != Action.ATTACH or "device" not in keys or keys & DISTINGUISHING or rule.ambiguous:
            continue
        twins: defaultdict[str, list[Device]] = defaultdict(list)
        for device in devices:
            if matches(rule.conditions, device):
                twins[device.tag].append(device)
        for tag, same in twins.items():
            if len(same) > 1:
                ports = listed([device.port for device in same], "and")
                yield warning(
                    rule.where,
                    f"{called(rule)} matches {len(same)} devices {tag} on this host ({ports}); distinguish them by "
                    "`serial:` or `path:`, or write `ambiguous: all` or `ambiguous: refuse`",
                )


def _only_protected(policy: Policy, devices: Sequence[Device]) -> Iterator[Problem]:
    for rule in policy.rules:
        if rule.action == Action.HOST:
            continue
        fitting = [device for device in devices if matches(rule.conditions, device)]
        entries = [next((p for p in policy.protect if protects(p, device)), None) for device in fitting]
        if fitting and all(entries):
            places = listed(sorted({str(entry.where) for entry in entries if entry}), "and")
            ports = listed([device.port for device in fitting], "and")
            message = f"matches only devices that are protected on this host ({ports}: {places}); remove one of the two"
            yield warning(rule.where, f"{called(rule)} {message}")


def _idle_guests(policy: Policy) -> Iterator[Problem]:
    used = {guest for rule in policy.rules for guest in rule.guests}
    for name, guest in policy.guests.items():
        if guest.where and name not in used:
            near = difflib.get_close_matches(name, sorted(used), 1)
            hint = f"did you mean {near[0]!r}?" if near else "name it in a rule, or remove it"
            yield warning(guest.where, f"no rule attaches anything to {shown(name)}; {hint}")


def _unknown(policy: Policy, guests: Sequence[str]) -> Iterator[Problem]:
    if not guests:
        return
    reported: set[str] = set()
    for rule in policy.rules:
        for guest in rule.guests:
            if guest in guests or guest in reported:
                continue
            reported.add(guest)
            near = difflib.get_close_matches(guest, guests, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"its guests are {listed(sorted(guests), 'and')}"
            yield warning(
                rule.where, f"{called(rule)} names the guest {shown(guest)}, which this host does not have; {hint}"
            )
