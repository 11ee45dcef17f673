"""Removes guest controllers that the agent created and that no longer have a device, if the policy wants that.

Paravirtual ones only: qemu removes an emulated controller only when the guest's system consents, xl does not wait for
it, and until then no controller with that number can be created ("Duplicate device ID", seen on real Xen with a guest
in its firmware). core/planning/plan calls `remove_empty_controllers` when every device has its verdict.
"""

from __future__ import annotations

from xenplug.core.ledger.orders import guest_paused
from xenplug.core.ledger.troubles import TroubleKey
from xenplug.core.model import ControllerType, Guest, GuestState
from xenplug.core.planning.plan_builder import PlanBuilder
from xenplug.core.planning.steps import RemoveController, State
from xenplug.core.policy.rules import GuestPolicy, WhenEmpty

EMPTY_FOR = 10.0
"""Seconds that a controller must have been empty: an unplugged device is often plugged in again."""
NEEDS_CONTROLLER_SOON = frozenset({State.ATTACHING, State.FAILING, State.PENDING})
"""States of a device that may need its guest's controller in a moment."""


def remove_empty_controllers(builder: PlanBuilder) -> None:
    """Plan the removal of empty controllers."""
    inputs = builder.inputs
    for guest in inputs.snapshot.guests.values():
        emulated = {c.id for c in guest.controllers if c.type is ControllerType.DEVICEMODEL}
        for controller, since in inputs.ledger.domain(guest.domid).empty_since.items():
            if controller not in emulated and not _wanted(builder, guest):
                _remove(builder, guest, controller, since)


def _wanted(builder: PlanBuilder, guest: Guest) -> bool:
    inputs = builder.inputs
    rules = (inputs.policy.guests if inputs.policy else {}).get(guest.name, GuestPolicy())
    if (
        rules.when_empty == WhenEmpty.KEEP
        or guest.state is not GuestState.RUNNING
        or guest_paused(inputs.ledger, guest.name)
    ):
        return True
    return any(v.target == guest.name and v.state in NEEDS_CONTROLLER_SOON for v in builder.verdicts)


def _remove(builder: PlanBuilder, guest: Guest, controller: int, since: float) -> None:
    inputs = builder.inputs
    if any(
        s.domid == guest.domid and s.controller == controller and e.intent for s, e in inputs.ledger.entries.items()
    ):
        return
    trouble = inputs.ledger.troubles.get(TroubleKey.remove_controller(guest.domid, controller))
    if trouble and trouble.given_up:
        return
    left = max(since + EMPTY_FOR, trouble.next_try if trouble else 0.0) - inputs.now
    if left > 0:
        builder.wake_in(left)
    else:
        builder.steps.append(RemoveController(guest.name, guest.domid, controller))
