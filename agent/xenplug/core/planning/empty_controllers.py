"""Guest controllers that the agent made and nothing is on any more: taken away where the policy wants that.

Paravirtual ones only: qemu lets go of an emulated controller when the guest's system consents, xl does not wait for it,
and until then no controller of that number can be made ("Duplicate device ID", seen on real Xen with a guest in its
firmware). core/planning/plan calls `tidy` when every device has its verdict.
"""

from __future__ import annotations

from xenplug.core.ledger.ledger import removal_subject
from xenplug.core.ledger.orders import guest_paused
from xenplug.core.model import ControllerType, Guest, GuestState
from xenplug.core.planning.plan_input import Draft
from xenplug.core.planning.steps import RemoveController, State
from xenplug.core.policy.rules import GuestPolicy

EMPTY_FOR = 10.0
"""Seconds for which nothing must have been on it: what was pulled is often plugged in again."""
ON_ITS_WAY = frozenset({State.ATTACHING, State.FAILING, State.PENDING})
"""States of a device that may need its guest's controller in a moment."""


def tidy(draft: Draft) -> None:
    """Plan what is to be taken away."""
    scene = draft.scene
    domids = {guest.domid: guest for guest in scene.snapshot.guests.values()}
    for (domid, controller), since in scene.ledger.emptied.items():
        guest = domids[domid]
        emulated = any(c.id == controller and c.type is ControllerType.DEVICEMODEL for c in guest.controllers)
        if not emulated and not _wanted(draft, guest):
            _remove(draft, guest, controller, since)


def _wanted(draft: Draft, guest: Guest) -> bool:
    scene = draft.scene
    rules = (scene.policy.guests if scene.policy else {}).get(guest.name, GuestPolicy())
    if rules.when_empty == "keep" or guest.state is not GuestState.RUNNING or guest_paused(scene.ledger, guest.name):
        return True
    return any(v.target == guest.name and v.state in ON_ITS_WAY for v in draft.verdicts)


def _remove(draft: Draft, guest: Guest, controller: int, since: float) -> None:
    scene = draft.scene
    if any(s.domid == guest.domid and s.controller == controller and e.intent for s, e in scene.ledger.entries.items()):
        return
    trouble = scene.ledger.troubles.get(removal_subject(guest.domid, controller))
    if trouble and trouble.given_up:
        return
    left = max(since + EMPTY_FOR, trouble.next_try if trouble else 0.0) - scene.now
    if left > 0:
        draft.wake_in(left)
    else:
        draft.steps.append(RemoveController(guest.name, guest.domid, controller))
