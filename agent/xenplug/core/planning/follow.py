"""`follow`: a device that appears at a port that another device just left inherits its rule, if no rule matches it.

This is for a device that returns with another tag: after a firmware update, a mode switch, in its bootloader. Any
device plugged in there in time inherits the rule, so the time counts from the device that the rule matched, and no
follower extends it. The ledger remembers which devices are followed and where they left. The reconciler calls `follow`
after the rules have decided and before anything is planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.matching.match import Decision
from xenplug.core.model import BusId, Device, DeviceKey
from xenplug.core.policy.rules import Policy, Rule

Decisions = Mapping[BusId, Decision]
Trails = Mapping[BusId, tuple[str, float]]
"""Ports that a followed device left: its rule, and until when (monotonic seconds) a device there inherits it."""


def follow(
    ledger: Ledger, devices: Mapping[BusId, Device], decided: Decisions, policy: Policy
) -> tuple[Ledger, dict[BusId, Decision]]:
    """The ledger with the trails of this round, and the decisions including those that followers inherit."""
    rules = {rule.name: rule for rule in policy.rules if rule.follow}
    follow_until = _trails(ledger, devices, rules)
    decisions = {port: _inherited(ledger, devices[port], one, rules, follow_until) for port, one in decided.items()}
    heirs = {devices[port].key: one for port, one in decisions.items() if one.rule and one.rule.name in rules}
    followed = {key: one.rule.name for key, one in heirs.items() if one.rule}
    ends = {key: _end(ledger, key, follow_until) for key, one in heirs.items() if one.inherited}
    left = {port: trail for port, trail in follow_until.items() if port not in devices}
    return replace(ledger, followed=followed, follow_ends=ends, follow_until=left), decisions


def _end(ledger: Ledger, at: DeviceKey, follow_until: Trails) -> float:
    """Until when a device may follow this follower: the same time as for the device that the rule matched. Otherwise a
    chain of followers could extend the time without end.
    """
    known = ledger.follow_ends.get(at)
    return known if known is not None else follow_until.get(at.port, ("", ledger.at))[1]


def _trails(ledger: Ledger, devices: Mapping[BusId, Device], rules: Mapping[str, Rule]) -> Trails:
    """The ports that followed devices left: the rule, and until when a device there inherits it."""
    there = {device.key for device in devices.values()}
    fresh = {
        key.port: (name, ledger.follow_ends.get(key, ledger.at + (rules[name].follow or 0.0)))
        for key, name in ledger.followed.items()
        if key not in there and name in rules
    }
    return {port: trail for port, trail in {**ledger.follow_until, **fresh}.items() if trail[1] >= ledger.at}


def _inherited(
    ledger: Ledger,
    device: Device,
    decision: Decision,
    rules: Mapping[str, Rule],
    follow_until: Trails,
) -> Decision:
    """The device's own decision, or the inherited one if no rule matches it."""
    if decision.rule:
        return decision
    name = ledger.followed.get(device.key) or follow_until.get(device.port, ("", 0.0))[0]
    rule = rules.get(name)
    return Decision(rule.action, rule, inherited=True) if rule else decision
