"""A device that belongs to a guest and cannot go there: `idle`, and twins under `ambiguous: refuse`.

A device can cause most of the reasons itself (its speed, its functions, a second device like it). So none of them may
open it in dom0 if the policy does not admit it.
"""

from __future__ import annotations

from collections.abc import Sequence

from xenplug.core.planning.plan_builder import PlanBuilder
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.steps import Cause, State, Verdict
from xenplug.core.policy.patterns import TagPattern
from xenplug.core.policy.rules import Ambiguous, Condition

GUEST_AWAY = frozenset({Cause.GUEST_STOPPED, Cause.GUEST_STARTING, Cause.REBOOT_GRACE})
"""Its guest does not run: with `idle: host` dom0 then has the device, also under `default: block`."""
MOMENTS = frozenset({Cause.CONFIGURING, Cause.SETTLING, Cause.PORT_EMPTIED})
"""Causes of waiting that end by themselves and need the device to stay authorised."""


def unavailable(builder: PlanBuilder, verdict: Verdict) -> Verdict:
    """Keep the device from dom0 (if the policy wants that) while it waits without a known end, or was given up."""
    waits = verdict.state is State.PENDING and verdict.cause not in MOMENTS
    return keep_from_dom0(builder, verdict) if waits or verdict.state is State.GIVEN_UP else verdict


def keep_from_dom0(builder: PlanBuilder, verdict: Verdict) -> Verdict:
    """No guest can take the device now. `idle: block` and `default: block` keep it from dom0 too; otherwise dom0 gets
    it.
    """
    inputs, device = builder.inputs, verdict.device
    if kept_out(inputs, verdict):
        return builder.plan_authorize(verdict, False) if device.authorized else verdict
    blocked = inputs.ledger.device(device.key).blocked
    ended = blocked and inputs.policy is not None and not inputs.policy.closed
    return builder.plan_authorize(verdict, True) if ended and not device.authorized else verdict


def kept_out(inputs: PlanInput, verdict: Verdict) -> bool:
    """Whether dom0 does not get the device either while no guest has it."""
    if verdict.decision.withheld:
        return True
    return inputs.policy is not None and not verdict.decision.admits(inputs.policy) and verdict.cause not in GUEST_AWAY


def has_twin(inputs: PlanInput, verdict: Verdict) -> bool:
    """Whether a second device fits the rule and the rule says `ambiguous: refuse`: it is unknown which one is meant.
    Two devices with different tags do not count as twins only if the rule lists both tags: otherwise a device could
    choose another tag to be no twin.
    """
    device, rule = verdict.device, verdict.decision.rule
    if rule is None or rule.ambiguous != Ambiguous.REFUSE or device.key in inputs.ledger.orders.overrides:
        return False
    listed = tags_listed(rule.conditions)
    twins = (other for other in inputs.snapshot.devices.values() if inputs.decisions[other.port].rule is rule)
    return any(
        other.port != device.port and (other.tag == device.tag or not listed >= {other.tag, device.tag})
        for other in twins
    )


def tags_listed(conditions: Sequence[Condition]) -> frozenset[str]:
    """The tags that a match lists one by one; empty if it also matches other tags."""
    for condition in conditions:
        if condition.key == "device":
            patterns = [p for p in condition.patterns if isinstance(p, TagPattern)]
            return frozenset(str(p) for p in patterns) if all(p.product for p in patterns) else frozenset()
    groups = [tags_listed(group) for condition in conditions if condition.key == "any" for group in condition.groups]
    return frozenset(tag for group in groups for tag in group) if all(groups) else frozenset()
