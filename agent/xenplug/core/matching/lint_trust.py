"""Warnings of `check` about what a policy believes of a device: the part of core/matching/lint that is about liars.

A device chooses its tag, its texts, its classes. Only its place, the whole of its descriptors, or a list that takes in
all of its interfaces, says more than it needs to say to be taken for another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from xenplug.core.documents.problems import Problem, shown
from xenplug.core.matching.match import PINS, PLACES
from xenplug.core.policy.patterns import InterfacePattern
from xenplug.core.policy.rules import Action, Condition, Policy, Rule, Where

REMEDY = "add `path:`, `descriptors:` or `interfaces:`"
HUB = "09"


def warning(where: Where, message: str) -> Problem:
    """A warning at a place of the policy."""
    return Problem(where.file, where.line, where.column, "", message, "warning")


def called(rule: Rule) -> str:
    """How a warning names the rule that stands at its place."""
    return f"rule {shown(rule.name)}" if rule.name != str(rule.where) else "this rule"


def trusting(policy: Policy) -> Iterator[Problem]:
    """What lets a device into dom0 for its own words alone, where the policy keeps others out."""
    closed = policy.closed
    if closed or any(rule.action == Action.BLOCK for rule in policy.rules):
        for entry in policy.protect:
            if not always_pinned(entry.conditions):
                yield warning(
                    entry.where, f"this entry of protect lets into dom0 whatever says the same of itself; {REMEDY}"
                )
    for rule in policy.rules if closed else ():
        if rule.action == Action.HOST and not always_pinned(rule.conditions):
            yield warning(rule.where, f"{called(rule)} lets into dom0 whatever says the same of itself; {REMEDY}")


def always_pinned(conditions: Iterable[Condition], keys: frozenset[str] = PINS) -> bool:
    """Whatever fits the match is pinned (core/matching/match: pinned), in whichever way it fits."""
    within = {"any": keys, "below": keys & PLACES}
    return any(
        c.key in keys
        or (c.key in within and bool(c.groups) and all(always_pinned(group, within[c.key]) for group in c.groups))
        for c in conditions
    )


def hubs_alone(policy: Policy) -> Iterator[Problem]:
    """Rules that would do something with hubs and nothing else."""
    for rule in policy.rules:
        if rule.action != Action.HOST and _fits_hubs_alone(rule.conditions):
            yield warning(
                rule.where,
                f"{called(rule)} does nothing to a real hub: hubs are never given away or blocked; match what hangs on "
                "it, with `below:` or `path: ….*`",
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
        return pattern.class_ == HUB
    return key == "kind" and str(pattern) == "hub"
