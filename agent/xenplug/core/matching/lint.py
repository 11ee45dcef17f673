"""Warnings of `check` about a valid policy that may not do what its author wants, with the places of all its rules.

`lint` uses the policy alone; `lint_here` also uses the devices and guests of this host, as far as they are known.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile

from xenplug.core.documents.problems import Problem, listed, shown
from xenplug.core.matching.covering import Budget, Covering
from xenplug.core.matching.implication import cases, contradictory, covers
from xenplug.core.matching.index import Index
from xenplug.core.matching.lint_overlaps import overlaps
from xenplug.core.matching.lint_trust import (
    always_pinned,
    called,
    hubs_alone,
    placed,
    trusting,
    uncompared,
    warning,
)
from xenplug.core.matching.match import matches, protects
from xenplug.core.model import Device
from xenplug.core.policy.rules import Action, Condition, Policy, Rule

DISTINGUISHING = frozenset({"serial", "path", "port", "address", "below"})
"""Keys that distinguish two devices with one tag."""
MOST_HINTS = 20
"""The most names for which a similar one is searched: it is compared with each other name."""


def lint(policy: Policy) -> list[Problem]:
    """The warnings about a policy that apply on any host."""
    found = [*_never_tried(policy), *overlaps(policy), *_protected(policy), *_changing(policy)]
    found += [*_idle_guests(policy), *hubs_alone(policy), *trusting(policy)]
    return _sorted(found)


def lint_here(policy: Policy, devices: Sequence[Device], guests: Iterable[str]) -> list[Problem]:
    """The warnings about a policy on this host. No guests: they are not known."""
    fitting = _fitting(policy, devices)
    return _sorted([*_ambiguous(policy, fitting), *_only_protected(policy, fitting), *_unknown(policy, list(guests))])


def _sorted(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))


# rules that never win


def _never_tried(policy: Policy) -> Iterator[Problem]:
    matches_ = [rule.conditions for rule in policy.rules]
    earlier, budget = Covering(matches_, matches_), Budget()
    for number, rule in enumerate(policy.rules):
        if contradictory(rule.conditions):
            message = "matches no device, because one key excludes another; correct its match"
            yield warning(rule.where, f"{called(rule)} {message}")
        elif not budget.spent():
            by = _shadowing(policy.rules, number, earlier, budget)
            if by:
                yield _shadowed(rule, by)
            elif budget.spent():
                yield uncompared(rule, "earlier rules", "shadowed")


def _shadowing(rules: Sequence[Rule], number: int, earlier: Covering, budget: Budget) -> list[Rule]:
    """The earlier rules that cover all cases of rule `number`; empty if one case is not covered."""
    by: dict[int, Rule] = {}
    for case in cases(rules[number].conditions):
        compared = (
            n
            for n in takewhile(lambda n: n < number, earlier.may_cover(case))
            if budget.spend(rules[n].conditions, case) and covers(rules[n].conditions, case)
        )
        found = next(compared, None)
        if found is None:
            return []
        by[found] = rules[found]
    return list(by.values())


def _shadowed(rule: Rule, by: Sequence[Rule]) -> Problem:
    word = "is never reached" if len(by) > 1 else "is shadowed"
    rules = listed([placed(other) for other in by], "and")
    message = f"{word}, because each device that matches it matches {rules} first; move it up, or remove it"
    return warning(rule.where, f"{called(rule)} {message}")


# rules for protected devices


def _protected(policy: Policy) -> Iterator[Problem]:
    rules = [rule for rule in policy.rules if rule.action != Action.HOST]
    entries = Covering([entry.conditions for entry in policy.protect], [rule.conditions for rule in rules])
    budget = Budget()
    for rule in rules:
        numbers = (n for n in entries.may_cover(rule.conditions) if budget.spend(_of(policy, n), rule.conditions))
        entry = next((policy.protect[n] for n in numbers if covers(_of(policy, n), rule.conditions)), None)
        if entry and (rule.action != Action.BLOCK or always_pinned(entry.conditions)):
            yield warning(
                rule.where,
                f"{called(rule)} has no effect, because every device that matches it is protected ({entry.where}); "
                "remove one of the two",
            )
        if budget.spent():
            yield uncompared(rule, "entries of protect", "overridden")
            return


def _of(policy: Policy, number: int) -> tuple[Condition, ...]:
    return policy.protect[number].conditions


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


def _ambiguous(policy: Policy, fitting: Fitting) -> Iterator[Problem]:
    for number, devices in fitting.items():
        rule = policy.rules[number]
        keys = {condition.key for condition in _all(rule.conditions)}
        if rule.action != Action.ATTACH or "device" not in keys or keys & DISTINGUISHING or rule.ambiguous:
            continue
        twins: defaultdict[str, list[Device]] = defaultdict(list)
        for device in devices:
            twins[device.tag].append(device)
        for tag, same in twins.items():
            if len(same) > 1:
                ports = listed([device.port for device in same], "and")
                yield warning(
                    rule.where,
                    f"{called(rule)} matches {len(same)} devices {tag} on this host ({ports}); distinguish them by "
                    "`serial:` or `path:`, or write `ambiguous: all` or `ambiguous: refuse`",
                )


Fitting = Mapping[int, Sequence[Device]]
"""By the number of a rule: the devices of this host that match it."""


def _fitting(policy: Policy, devices: Sequence[Device]) -> Fitting:
    index = Index([rule.conditions for rule in policy.rules])
    found: defaultdict[int, list[Device]] = defaultdict(list)
    for device in devices:
        for number in dict.fromkeys(index.candidates(device)):
            if matches(policy.rules[number].conditions, device):
                found[number].append(device)
    return found


def _only_protected(policy: Policy, fitting: Fitting) -> Iterator[Problem]:
    by = {d.port: next((p for p in policy.protect if protects(p, d)), None) for ds in fitting.values() for d in ds}
    for number, devices in fitting.items():
        rule, entries = policy.rules[number], [by[device.port] for device in devices]
        if rule.action != Action.HOST and all(entries):
            places = listed(sorted({str(entry.where) for entry in entries if entry}), "and")
            ports = listed([device.port for device in devices], "and")
            message = f"matches only devices that are protected on this host ({ports}: {places}); remove one of the two"
            yield warning(rule.where, f"{called(rule)} {message}")


def _idle_guests(policy: Policy) -> Iterator[Problem]:
    used = {guest for rule in policy.rules for guest in rule.guests}
    idle = [(name, guest.where) for name, guest in policy.guests.items() if guest.where and name not in used]
    hints = _similar([name for name, _ in idle], used)
    for name, where in idle:
        hint = f"did you mean {hints[name]!r}?" if name in hints else "name it in a rule, or remove it"
        yield warning(where, f"no rule attaches anything to {shown(name)}; {hint}")


def _similar(names: Sequence[str], known: Iterable[str]) -> dict[str, str]:
    """The most similar known name of each of the first MOST_HINTS names, where there is one."""
    known = sorted(known)
    near = {name: difflib.get_close_matches(name, known, 1) for name in names[:MOST_HINTS]}
    return {name: found[0] for name, found in near.items() if found}


def _unknown(policy: Policy, guests: Sequence[str]) -> Iterator[Problem]:
    if not guests:
        return
    first: dict[str, Rule] = {}
    for rule in policy.rules:
        for guest in rule.guests:
            first.setdefault(guest, rule)
    for guest in guests:
        first.pop(guest, None)
    hints, known = _similar(list(first), guests), listed(sorted(guests), "and")
    for guest, rule in first.items():
        hint = f"did you mean {hints[guest]!r}?" if guest in hints else f"its guests are {known}"
        yield warning(
            rule.where, f"{called(rule)} names the guest {shown(guest)}, which this host does not have; {hint}"
        )
