"""`follow`: a device that appears where another just left goes along with it, if no rule of its own claims it.

A firmware update, a mode switch, a bootloader: the same thing comes back with another tag. The ledger remembers which
devices are followed and where they left; the reconciler asks here after the rules decided, before anything is planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.matching.match import Decision
from xenplug.core.model import BusId, Device
from xenplug.core.policy.rules import Policy, Rule

Decisions = Mapping[BusId, Decision]


def follow(
    ledger: Ledger, devices: Mapping[BusId, Device], decided: Decisions, policy: Policy
) -> tuple[Ledger, dict[BusId, Decision]]:
    """The ledger with the trails of this look, and the decisions with what followers inherit."""
    rules = {rule.name: rule for rule in policy.rules if rule.follow}
    follow_until = _trails(ledger, devices, rules)
    decisions = {port: _inherited(ledger, devices[port], one, rules, follow_until) for port, one in decided.items()}
    followed = {
        devices[port].key: one.rule.name for port, one in decisions.items() if one.rule and one.rule.name in rules
    }
    left = {port: trail for port, trail in follow_until.items() if port not in devices}
    return replace(ledger, followed=followed, follow_until=left), decisions


def _trails(
    ledger: Ledger, devices: Mapping[BusId, Device], rules: Mapping[str, Rule]
) -> dict[BusId, tuple[str, float]]:
    """Where a followed device left: by which rule, and until when it is waited for."""
    there = {device.key for device in devices.values()}
    fresh = {
        key.port: (name, ledger.at + (rules[name].follow or 0.0))
        for key, name in ledger.followed.items()
        if key not in there and name in rules
    }
    return {port: trail for port, trail in ledger.follow_until.items() if trail[1] >= ledger.at} | fresh


def _inherited(
    ledger: Ledger,
    device: Device,
    decision: Decision,
    rules: Mapping[str, Rule],
    follow_until: Mapping[BusId, tuple[str, float]],
) -> Decision:
    """Only what no rule decides is inherited."""
    if decision.rule:
        return decision
    name = ledger.followed.get(device.key) or follow_until.get(device.port, ("", 0.0))[0]
    rule = rules.get(name)
    return Decision(rule.action, rule, inherited=True) if rule else decision
