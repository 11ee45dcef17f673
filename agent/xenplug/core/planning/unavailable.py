"""What becomes of a device that belongs to a guest and cannot go there: `idle`, and twins under `ambiguous: refuse`."""

from __future__ import annotations

from xenplug.core.ledger.ledger import place
from xenplug.core.matching.match import Decision
from xenplug.core.planning.plan_input import Draft, Scene, authorize
from xenplug.core.planning.steps import Verdict


def withhold(draft: Draft, verdict: Verdict) -> Verdict:
    """None of its guests is there. `idle: block` keeps it from dom0 too; else dom0 has it."""
    scene, device = draft.scene, verdict.device
    if withheld(verdict.decision):
        return authorize(draft, verdict, False) if device.authorized else verdict
    ended = place(device) in scene.ledger.blocked and scene.policy is not None and scene.policy.default != "block"
    return authorize(draft, verdict, True) if ended and not device.authorized else verdict


def withheld(decision: Decision) -> bool:
    """dom0 does not get the device either, where no guest has it."""
    return decision.action == "block" or (decision.rule is not None and decision.rule.idle == "block")


def has_twin(scene: Scene, verdict: Verdict) -> bool:
    """The rule gives nothing away where two devices of one tag fit it: nobody could tell which was meant."""
    device, rule = verdict.device, verdict.decision.rule
    if rule is None or rule.ambiguous != "refuse" or place(device) in scene.ledger.overrides:
        return False
    return any(
        other.port != device.port and other.tag == device.tag and scene.decisions[other.port].rule is rule
        for other in scene.snapshot.devices.values()
    )
