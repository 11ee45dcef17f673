"""What becomes of a device that belongs to a guest and cannot go there: `idle`, and twins under `ambiguous: refuse`."""

from __future__ import annotations

from xenplug.core.matching.match import Decision
from xenplug.core.planning.plan_builder import PlanBuilder
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.steps import Verdict
from xenplug.core.policy.rules import Action, Ambiguous


def unavailable(builder: PlanBuilder, verdict: Verdict) -> Verdict:
    """None of its guests is there. `idle: block` keeps it from dom0 too; else dom0 has it."""
    inputs, device = builder.inputs, verdict.device
    if kept_from_dom0(verdict.decision):
        return builder.plan_authorize(verdict, False) if device.authorized else verdict
    blocked = inputs.ledger.device(device.key).blocked
    ended = blocked and inputs.policy is not None and not inputs.policy.closed
    return builder.plan_authorize(verdict, True) if ended and not device.authorized else verdict


def kept_from_dom0(decision: Decision) -> bool:
    """dom0 does not get the device either, where no guest has it."""
    return decision.action == Action.BLOCK or (decision.rule is not None and decision.rule.idle == Action.BLOCK)


def has_twin(inputs: PlanInput, verdict: Verdict) -> bool:
    """The rule gives nothing away where two devices of one tag fit it: nobody could tell which was meant."""
    device, rule = verdict.device, verdict.decision.rule
    if rule is None or rule.ambiguous != Ambiguous.REFUSE or device.key in inputs.ledger.orders.overrides:
        return False
    return any(
        other.port != device.port and other.tag == device.tag and inputs.decisions[other.port].rule is rule
        for other in inputs.snapshot.devices.values()
    )
