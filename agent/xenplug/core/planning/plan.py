"""The plan: from (decisions, snapshot, ledger, now) to ordered steps and a verdict for every device. Pure and total.

Only the next step of each device is planned: what comes after it is planned from what is then observed (a move is a
detach, seen to be done, then an attach). Stale ports come before everything, for one of them blocks every attach on
the host (xen-facts T1). A guest that is busy with a step gets no new ones until it is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from xenplug.core.book.ledger import Override, is_coming, place
from xenplug.core.book.wishes import guest_paused, paused, preferred
from xenplug.core.model import Device, natural
from xenplug.core.pci.plan import by_controller, goes_whole, plan_controllers
from xenplug.core.planning.bring import attach, attached
from xenplug.core.planning.choose import choose, may_stay, undone
from xenplug.core.planning.doors import doors
from xenplug.core.planning.scene import Draft, Scene, Standing, authorize, failed_there, shown_at, take_off
from xenplug.core.planning.standby import has_twin, unavailable, withhold
from xenplug.core.planning.steps import Authorize, Cause, ClearPort, DropObject, Interfaces, Plan, State, Step, Verdict
from xenplug.core.planning.tidy import tidy

STILL_COMING = 2.0
"""The same, where no device waits for it: a guest is being created, and status and orders by hand go by its state."""


def make_plan(scene: Scene) -> Plan:
    """The whole plan for one instant."""
    draft = Draft(scene, {})
    _clear_stale(draft)
    _drop_objects(draft)
    for port in sorted(scene.snapshot.devices, key=natural):
        verdict = _device(draft, scene.snapshot.devices[port])
        draft.verdicts.append(verdict)
        doors(draft, verdict)
    if any(is_coming(scene.ledger, guest) for guest in scene.snapshot.guests.values()):
        draft.wake_in(STILL_COMING)
    tidy(draft)
    asked = plan_controllers(draft)
    wake = min(draft.wakes, default=None)
    return Plan(tuple(draft.steps), tuple(draft.verdicts), wake, asked, tuple(f.view() for f in draft.flights))


def _clear_stale(draft: Draft) -> None:
    """Ports whose device is gone, or is another one by now, are cleared, whoever filled them."""
    scene = draft.scene
    guests = {g.domid: g for g in scene.snapshot.guests.values()}
    for spot, entry in scene.ledger.entries.items():
        if entry.intent:
            draft.at.setdefault(entry.busid, Standing(spot, entry))
            continue
        device = scene.snapshot.devices.get(entry.busid)
        doubled = entry.busid in draft.at
        if device and device.number == entry.number and not doubled:
            draft.at[entry.busid] = Standing(spot, entry)
            continue
        guest = guests[spot.domid]
        kind = next(c.type for c in guest.controllers if c.id == spot.controller)
        draft.steps.append(ClearPort(guest.name, spot, kind, entry.busid, entry.bus, entry.number))


def _drop_objects(draft: Draft) -> None:
    """What emptied ports left in a qemu goes before anything new comes: the kernel may give that address again."""
    names = {g.domid: g.name for g in draft.scene.snapshot.guests.values()}
    draft.steps += [DropObject(names[o.domid], o) for o in sorted(draft.scene.ledger.leftovers) if o.domid in names]


def _device(draft: Draft, device: Device) -> Verdict:
    """One device: the precedence of design §3, then the act it needs."""
    scene = draft.scene
    blank = Verdict(device, scene.decisions[device.port], State.HOST, Cause.DEFAULT)
    at = draft.at.get(device.port)
    if at and at.entry.intent:
        going = replace(blank, target=at.entry.guest if at.entry.intent == "attach" else None)
        return shown_at(going, at, scene, State.ATTACHING, Cause.MOVING)
    if scene.policy is None:
        waiting = replace(blank, state=State.PENDING, cause=Cause.NO_POLICY)
        return shown_at(waiting, at, scene, State.PENDING, Cause.NO_POLICY) if at else waiting
    if cause := scene.protected.get(device.port):
        return _protected(draft, blank, cause, at)
    if paused(scene.ledger, device.port, at.entry.guest if at else None):
        return _left_alone(draft, blank, at)
    by_hand = scene.ledger.overrides.get(place(device))
    if by_hand:
        blank = replace(blank, by_hand=True)
    if by_hand and by_hand.action == "detach":
        return _detached(draft, blank, by_hand, at)
    if at and not at.entry.ours and not by_hand:
        return shown_at(blank, at, scene, State.FOREIGN, Cause.FOREIGN)
    wanted = _ordered(scene, device, by_hand) if by_hand else preferred(scene.ledger, blank.decision.guests)
    if not wanted:
        return _stays(draft, blank, at)
    return _goes(draft, replace(blank, wanted=wanted), at)


def _protected(draft: Draft, blank: Verdict, cause: Cause, at: Standing | None) -> Verdict:
    """No guest gets it; nor does dom0, where that is no reason to let it in."""
    if cause is Cause.PROTECT and blank.decision.over_protect:
        why = Cause.RULE if blank.decision.rule else Cause.DEFAULT
        return _keep(draft, replace(blank, state=State.BLOCKED, cause=why), at)
    return _keep(draft, replace(blank, state=State.PROTECTED, cause=cause), at)


def _detached(draft: Draft, blank: Verdict, by_hand: Override, at: Standing | None) -> Verdict:
    """By an order, or found off its port, which a guest that goes down empties, too."""
    if doubt := by_hand.in_doubt(draft.scene.now):
        draft.wake_in(doubt)
        return replace(blank, state=State.PENDING, cause=Cause.PORT_EMPTIED, by_hand=False)
    # Off the guest is not into dom0 where the policy does not let it in.
    policy = draft.scene.policy
    state = State.HOST if policy is None or blank.decision.admits(policy) else State.BLOCKED
    return _keep(draft, replace(blank, state=state, cause=Cause.BY_HAND), at)


def _left_alone(draft: Draft, blank: Verdict, at: Standing | None) -> Verdict:
    """Paused: it stays where and as it is."""
    if at:
        state = State.ATTACHED if at.entry.ours else State.FOREIGN
        return shown_at(blank, at, draft.scene, state, Cause.PAUSED)
    untouched = blank.device.shut or not blank.device.configured
    if place(blank.device) in draft.scene.ledger.blocked or (untouched and blank.decision.action == "block"):
        return replace(blank, state=State.BLOCKED, cause=Cause.PAUSED)
    wanted = blank.decision.guests
    return replace(blank, state=State.PENDING if wanted else State.HOST, cause=Cause.PAUSED, wanted=wanted)


def _ordered(scene: Scene, device: Device, order: Override) -> tuple[str, ...]:
    """The guest it was given to by hand; the one it came from as well, once that one failed to take it."""
    given = order.guest or ""
    there = scene.snapshot.guests.get(given)
    failed = there is not None and failed_there(scene, device, there)
    return (given, order.back) if failed and order.back else (given,)


def _stays(draft: Draft, blank: Verdict, at: Standing | None) -> Verdict:
    decision = blank.decision
    state = State.BLOCKED if decision.action == "block" else State.HOST
    cause = Cause.RULE if decision.rule else Cause.DEFAULT
    return _keep(draft, replace(blank, state=state, cause=cause), at)


def _keep(draft: Draft, verdict: Verdict, at: Standing | None) -> Verdict:
    """The device is the host's: taken off the guest if we gave it, and authorised as its state says."""
    device = verdict.device
    if at and not at.entry.ours and verdict.state is State.PROTECTED:
        return shown_at(verdict, at, draft.scene, verdict.state, verdict.cause)
    if at and not at.entry.ours:
        return shown_at(replace(verdict, by_hand=False), at, draft.scene, State.FOREIGN, Cause.FOREIGN)
    if at:
        return take_off(draft, verdict, at)
    allowed = verdict.state is not State.BLOCKED
    if allowed and not device.authorized and not _ours_to_authorize(draft.scene, device):
        return verdict
    return verdict if device.authorized is allowed else authorize(draft, verdict, allowed)


def _ours_to_authorize(scene: Scene, device: Device) -> bool:
    """A device that someone else deauthorised stays so, unless the policy blocks by default and lets this one in."""
    blocks = scene.policy is not None and scene.policy.default == "block"
    return place(device) in scene.ledger.blocked or blocks


def _goes(draft: Draft, verdict: Verdict, at: Standing | None) -> Verdict:
    """The device belongs to a guest: find out to which now, and bring it there."""
    scene = draft.scene
    if verdict.device.partly_hub and not goes_whole(scene, verdict):
        alone = replace(verdict, state=State.GIVEN_UP, cause=Cause.HUB, target=verdict.wanted[0])
        return take_off(draft, alone, at) if at else withhold(draft, alone)
    if not at and has_twin(scene, verdict):
        return withhold(draft, replace(verdict, state=State.PENDING, cause=Cause.AMBIGUOUS))
    target = choose(draft, verdict, at)
    if isinstance(target, Verdict):
        return _waits(draft, target, at)
    if guest_paused(scene.ledger, target.name) and not (at and at.entry.guest == target.name):
        held = replace(verdict, target=target.name, state=State.PENDING, cause=Cause.PAUSED)
        return shown_at(held, at, scene, State.ATTACHED, Cause.PAUSED) if at else held
    if whole := by_controller(draft, verdict, at, target):
        return whole if at else unavailable(draft, whole)
    if at:
        target = may_stay(draft, verdict, at, target) or target
        verdict = replace(verdict, target=target.name)
        if at.entry.guest != target.name:
            return take_off(draft, verdict, at)
        return attached(draft, undone(scene, verdict, target), at, target)
    return unavailable(draft, attach(draft, replace(verdict, target=target.name), target))


def _waits(draft: Draft, verdict: Verdict, at: Standing | None) -> Verdict:
    """None of its guests can have it now; a guest that it does not belong to gives it up all the same."""
    if not at:
        return withhold(draft, verdict)
    if at.entry.guest not in verdict.wanted:
        return take_off(draft, replace(verdict, target=None), at)
    return shown_at(verdict, at, draft.scene, verdict.state, verdict.cause)


def steps_by_guest(steps: Iterable[Step]) -> dict[str, list[Step]]:
    """The steps of each guest in their order; those of no guest by their device's port."""
    queues: dict[str, list[Step]] = {}
    for step in steps:
        worker = f"={step.device.port}" if isinstance(step, Authorize | Interfaces) else getattr(step, "guest", "")
        queues.setdefault(worker, []).append(step)
    return queues
