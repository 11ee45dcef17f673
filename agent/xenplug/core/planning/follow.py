"""`follow`: a device that appears where another just left goes along with it, if no rule of its own claims it.

Whoever plugs something in there in time gets what the rule gives; so the time counts from the device that the rule
matched, and no follower prolongs it. A firmware update, a mode switch, a bootloader: the same thing comes back with
another tag. The ledger remembers which devices are followed and where they left; the reconciler asks here after the
rules decided, before anything is planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from xenplug.core.ledger.ledger import Ledger, Place, place
from xenplug.core.matching.match import Decision
from xenplug.core.model import BusId, Device
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
    heirs = {place(devices[port]): one for port, one in decisions.items() if one.rule and one.rule.name in rules}
    followed = {at: one.rule.name for at, one in heirs.items() if one.rule}
    ends = {at: _end(ledger, at, follow_until) for at, one in heirs.items() if one.inherited}
    left = {port: trail for port, trail in follow_until.items() if port not in devices}
    return replace(ledger, followed=followed, follow_ends=ends, follow_until=left), decisions


def _end(ledger: Ledger, at: Place, follow_until: Trails) -> float:
    """Until when something may follow this follower: no longer than the device that its rule matched was waited for.
    Else what follows a follower of a follower could prolong the time without end.
    """
    known = ledger.follow_ends.get(at)
    return known if known is not None else follow_until.get(_port(at), ("", ledger.at))[1]


def _port(at: Place) -> BusId:
    return BusId(at.partition("@")[0])


def _trails(ledger: Ledger, devices: Mapping[BusId, Device], rules: Mapping[str, Rule]) -> Trails:
    """Where a followed device left: by which rule, and until when it is waited for."""
    there = {place(device) for device in devices.values()}
    fresh = {
        _port(at): (name, ledger.follow_ends.get(at, ledger.at + (rules[name].follow or 0.0)))
        for at, name in ledger.followed.items()
        if at not in there and name in rules
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
    name = ledger.followed.get(place(device)) or follow_until.get(device.port, ("", 0.0))[0]
    rule = rules.get(name)
    return Decision(rule.action, rule, inherited=True) if rule else decision
