"""What becomes of a device that belongs to a guest and cannot go there: `idle`, and twins under `ambiguous: refuse`.

Most reasons why it cannot go there are the device's own choice (its speed, what it can do, that it comes twice). None
of them may open it in dom0 where the policy does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from xenplug.core.planning.plan_builder import PlanBuilder
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.steps import Cause, State, Verdict
from xenplug.core.policy.patterns import TagPattern
from xenplug.core.policy.rules import Ambiguous, Condition

GUEST_AWAY = frozenset({Cause.GUEST_STOPPED, Cause.GUEST_STARTING, Cause.REBOOT_GRACE})
"""Its guest is not there: with `idle: host` dom0 keeps what it has of the device, also under `default: block`."""
MOMENTS = frozenset({Cause.CONFIGURING, Cause.SETTLING, Cause.PORT_EMPTIED})
"""Reasons to wait that pass by themselves, and for which the device must stay authorised."""


def unavailable(builder: PlanBuilder, verdict: Verdict) -> Verdict:
    """Withhold the device from dom0, if it is not on its way to a guest: nothing is known that will bring it there."""
    waits = verdict.state is State.PENDING and verdict.cause not in MOMENTS
    return keep_from_dom0(builder, verdict) if waits or verdict.state is State.GIVEN_UP else verdict


def keep_from_dom0(builder: PlanBuilder, verdict: Verdict) -> Verdict:
    """No guest can have it now. `idle: block` and `default: block` keep it from dom0 too; else dom0 has it."""
    inputs, device = builder.inputs, verdict.device
    if kept_out(inputs, verdict):
        return builder.plan_authorize(verdict, False) if device.authorized else verdict
    blocked = inputs.ledger.device(device.key).blocked
    ended = blocked and inputs.policy is not None and not inputs.policy.closed
    return builder.plan_authorize(verdict, True) if ended and not device.authorized else verdict


def kept_out(inputs: PlanInput, verdict: Verdict) -> bool:
    """dom0 does not get the device either, where no guest has it."""
    if verdict.decision.withheld:
        return True
    return inputs.policy is not None and not verdict.decision.admits(inputs.policy) and verdict.cause not in GUEST_AWAY


def has_twin(inputs: PlanInput, verdict: Verdict) -> bool:
    """The rule gives nothing away where two devices fit it: nobody could tell which was meant. Two of different tags
    are told apart only where the rule lists both tags: else whoever chooses another tag would be no twin.
    """
    device, rule = verdict.device, verdict.decision.rule
    if rule is None or rule.ambiguous != Ambiguous.REFUSE or device.key in inputs.ledger.orders.overrides:
        return False
    told_apart = tags_listed(rule.conditions)
    twins = (other for other in inputs.snapshot.devices.values() if inputs.decisions[other.port].rule is rule)
    return any(
        other.port != device.port and (other.tag == device.tag or not told_apart >= {other.tag, device.tag})
        for other in twins
    )


def tags_listed(conditions: Sequence[Condition]) -> frozenset[str]:
    """The tags that a match lists one by one; none where it takes other tags, too."""
    for condition in conditions:
        if condition.key == "device":
            patterns = [p for p in condition.patterns if isinstance(p, TagPattern)]
            return frozenset(str(p) for p in patterns) if all(p.product for p in patterns) else frozenset()
    groups = [tags_listed(group) for condition in conditions if condition.key == "any" for group in condition.groups]
    return frozenset(tag for group in groups for tag in group) if all(groups) else frozenset()
