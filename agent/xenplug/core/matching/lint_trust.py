"""Warnings of `check` about what a policy believes of a device: the part of core/matching/lint that is about liars.

A device chooses its tag, its texts and its classes, so it can imitate another device. It cannot choose its place. A
match on all its descriptors, or a list that must cover all its interfaces, limits what else it can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from xenplug.core.documents.problems import Problem, shown
from xenplug.core.matching.match import PINS, PLACE_KEYS
from xenplug.core.policy.patterns import InterfacePattern
from xenplug.core.policy.rules import Action, Condition, Policy, Rule, Where

FACT = "admits to dom0 any device that claims to match"
REMEDY = "add `path:`, `descriptors:` or `interfaces:`"
HUB_INTERFACE = "09"


def warning(where: Where, message: str) -> Problem:
    """A warning at a place of the policy."""
    return Problem(where.file, where.line, where.column, "", message, "warning")


def called(rule: Rule) -> str:
    """The name of a rule in a warning about it."""
    return f"rule {shown(rule.name)}" if rule.name != str(rule.where) else "this rule"


def placed(rule: Rule) -> str:
    """The name and the place of a rule in a warning about another one."""
    return f"{shown(rule.name)} ({rule.where})" if rule.name != str(rule.where) else f"the one at {rule.where}"


def uncompared(rule: Rule, others: str, fault: str) -> Problem:
    """Not all pairs were compared: this rule and those after it may be `fault` without a warning."""
    return warning(
        rule.where,
        f"from {called(rule)} on, rules were not compared with all {others}, because too many of them are alike; more "
        f"rules may be {fault}; combine rules with the same outcome, or write exact texts instead of globs",
    )


def trusting(policy: Policy) -> Iterator[Problem]:
    """Entries that admit a device to dom0 by its own claims alone, in a policy that keeps other devices out."""
    closed = policy.closed
    if closed or any(rule.action == Action.BLOCK for rule in policy.rules):
        for entry in policy.protect:
            if not always_pinned(entry.conditions):
                yield warning(entry.where, f"this entry of protect {FACT}; {REMEDY}")
    for rule in policy.rules if closed else ():
        if rule.action == Action.HOST and not always_pinned(rule.conditions):
            yield warning(rule.where, f"{called(rule)} {FACT}; {REMEDY}")


def always_pinned(conditions: Iterable[Condition], keys: frozenset[str] = PINS) -> bool:
    """Every device that matches is pinned (core/matching/match: pinned), whichever alternative it matches."""
    within = {"any": keys, "below": keys & PLACE_KEYS}
    return any(
        c.key in keys
        or (c.key in within and bool(c.groups) and all(always_pinned(group, within[c.key]) for group in c.groups))
        for c in conditions
    )


def hubs_alone(policy: Policy) -> Iterator[Problem]:
    """Rules that match only hubs and attach or block them."""
    for rule in policy.rules:
        if rule.action != Action.HOST and _fits_hubs_alone(rule.conditions):
            yield warning(
                rule.where,
                f"{called(rule)} has no effect on a hub: hubs are never attached to a guest or blocked; match the "
                "devices behind it, with `below:` or `path: ….*`",
            )


def _fits_hubs_alone(conditions: Sequence[Condition]) -> bool:
    return any(
        bool(c.patterns) and all(_is_hub(c.key, pattern) for pattern in c.patterns)
        if c.key != "any"
        else all(_fits_hubs_alone(group) for group in c.groups)
        for c in conditions
    )


def _is_hub(key: str, pattern: object) -> bool:
    if isinstance(pattern, InterfacePattern):
        return pattern.class_ == HUB_INTERFACE
    return key == "kind" and str(pattern) == "hub"
