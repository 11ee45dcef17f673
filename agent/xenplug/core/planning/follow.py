"""`follow`: a device that appears where another just left goes along with it, if no rule of its own claims it.

Whoever plugs something in there in time gets what the rule gives; so the time counts from the device that the rule
matched, and no follower prolongs it. A firmware update, a mode switch, a bootloader: the same thing comes back with
another tag. The ledger remembers which devices are followed and where they left; the reconciler asks here after the
rules decided, before anything is planned.
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
"""Where a followed device left: by which rule, and until when (monotonic seconds) what appears there inherits."""


def follow(
    ledger: Ledger, devices: Mapping[BusId, Device], decided: Decisions, policy: Policy
) -> tuple[Ledger, dict[BusId, Decision]]:
    """The ledger with the trails of this look, and the decisions with what followers inherit."""
    rules = {rule.name: rule for rule in policy.rules if rule.follow}
    follow_until = _trails(ledger, devices, rules)
    decisions = {port: _inherited(ledger, devices[port], one, rules, follow_until) for port, one in decided.items()}
    heirs = {devices[port].key: one for port, one in decisions.items() if one.rule and one.rule.name in rules}
    followed = {key: one.rule.name for key, one in heirs.items() if one.rule}
    ends = {key: _end(ledger, key, follow_until) for key, one in heirs.items() if one.inherited}
    left = {port: trail for port, trail in follow_until.items() if port not in devices}
    return replace(ledger, followed=followed, follow_ends=ends, follow_until=left), decisions


def _end(ledger: Ledger, at: DeviceKey, follow_until: Trails) -> float:
    """Until when something may follow this follower: no longer than the device that its rule matched was waited for.
    Else what follows a follower of a follower could prolong the time without end.
    """
    known = ledger.follow_ends.get(at)
    return known if known is not None else follow_until.get(at.port, ("", ledger.at))[1]


def _trails(ledger: Ledger, devices: Mapping[BusId, Device], rules: Mapping[str, Rule]) -> Trails:
    """Where a followed device left: by which rule, and until when it is waited for."""
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
    """Only what no rule decides is inherited."""
    if decision.rule:
        return decision
    name = ledger.followed.get(device.key) or follow_until.get(device.port, ("", 0.0))[0]
    rule = rules.get(name)
    return Decision(rule.action, rule, inherited=True) if rule else decision
