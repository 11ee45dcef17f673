"""What becomes of a device that belongs to a guest and cannot go there: `idle`, and twins under `ambiguous: refuse`.

Most reasons why it cannot go there are the device's own choice (its speed, what it can do, that it comes twice). None of
them may open it in dom0 where the policy does not.
"""

from __future__ import annotations

from xenplug.core.book.ledger import place
from xenplug.core.planning.scene import Draft, Scene, authorize
from xenplug.core.planning.steps import Cause, State, Verdict

GUEST_AWAY = frozenset({Cause.GUEST_STOPPED, Cause.GUEST_STARTING, Cause.REBOOT_GRACE})
"""Its guest is not there: with `idle: host` dom0 keeps what it has of the device, also under `default: block`."""
MOMENTS = frozenset({Cause.CONFIGURING, Cause.SETTLING, Cause.PORT_EMPTIED})
"""Reasons to wait that pass by themselves, and for which the device must stay authorised."""


def unavailable(draft: Draft, verdict: Verdict) -> Verdict:
    """Withhold the device from dom0, if it is not on its way to a guest: nothing is known that will bring it there."""
    waits = verdict.state is State.PENDING and verdict.cause not in MOMENTS
    return withhold(draft, verdict) if waits or verdict.state is State.GIVEN_UP else verdict


def withhold(draft: Draft, verdict: Verdict) -> Verdict:
    """No guest can have it now. `idle: block` and `default: block` keep it from dom0 too; else dom0 has it."""
    scene, device = draft.scene, verdict.device
    if kept_out(scene, verdict):
        return authorize(draft, verdict, False) if device.authorized else verdict
    ended = place(device) in scene.ledger.blocked and scene.policy is not None and scene.policy.default != "block"
    return authorize(draft, verdict, True) if ended and not device.authorized else verdict


def kept_out(scene: Scene, verdict: Verdict) -> bool:
    """dom0 does not get the device either, where no guest has it."""
    if verdict.decision.withheld:
        return True
    return scene.policy is not None and not verdict.decision.admits(scene.policy) and verdict.cause not in GUEST_AWAY


def has_twin(scene: Scene, verdict: Verdict) -> bool:
    """The rule gives nothing away where two devices of one tag fit it: nobody could tell which was meant."""
    device, rule = verdict.device, verdict.decision.rule
    if rule is None or rule.ambiguous != "refuse" or place(device) in scene.ledger.overrides:
        return False
    return any(
        other.port != device.port and other.tag == device.tag and scene.decisions[other.port].rule is rule
        for other in scene.snapshot.devices.values()
    )
