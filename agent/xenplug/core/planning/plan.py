"""The plan: from (decisions, snapshot, ledger, now) to ordered steps and a verdict for every device. Pure and total.

Only the next step of each device is planned; the one after it is planned from what is observed then (a move is a detach
and, once that is observed, an attach). Stale ports come first, because one of them blocks every attach on the host
(xen-facts T1). A guest that is busy with a step gets no new step until it is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from xenplug.core.ledger.ledger import is_coming
from xenplug.core.ledger.orders import guest_paused, paused, preferred
from xenplug.core.ledger.records import Intent, OrderAction, Override
from xenplug.core.model import Device, natural
from xenplug.core.planning.attach import check_delivery, plan_attach
from xenplug.core.planning.choose_guest import choose_guest, note_failed_move, stays_until_connected
from xenplug.core.planning.driver_isolation import isolate_drivers
from xenplug.core.planning.empty_controllers import remove_empty_controllers
from xenplug.core.planning.pci_plan import by_controller, goes_whole, plan_controllers
from xenplug.core.planning.plan_builder import Attachment, PlanBuilder
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.steps import Authorize, Cause, ClearPort, DropObject, Interfaces, Plan, State, Step, Verdict
from xenplug.core.planning.unavailable import has_twin, keep_from_dom0, unavailable
from xenplug.core.policy.rules import Action

STILL_COMING = 2.0
"""Seconds until the next round while a guest is being created and no device waits for it: status and manual overrides
depend on its state."""


def make_plan(inputs: PlanInput) -> Plan:
    """The whole plan for one instant."""
    builder = PlanBuilder(inputs, {})
    _clear_stale(builder)
    _drop_objects(builder)
    for port in sorted(inputs.snapshot.devices, key=natural):
        verdict = _device(builder, inputs.snapshot.devices[port])
        builder.verdicts.append(verdict)
        isolate_drivers(builder, verdict)
    if any(is_coming(inputs.ledger, guest) for guest in inputs.snapshot.guests.values()):
        builder.wake_in(STILL_COMING)
    remove_empty_controllers(builder)
    asked = plan_controllers(builder)
    wake = min(builder.wakes, default=None)
    return Plan(tuple(builder.steps), tuple(builder.verdicts), wake, asked, tuple(f.view() for f in builder.preflights))


def _clear_stale(builder: PlanBuilder) -> None:
    """Clear ports whose device is gone or has been replaced, whoever attached it."""
    inputs = builder.inputs
    guests = {g.domid: g for g in inputs.snapshot.guests.values()}
    for guest_port, entry in inputs.ledger.entries.items():
        if entry.intent:
            builder.at.setdefault(entry.busid, Attachment(guest_port, entry))
            continue
        device = inputs.snapshot.devices.get(entry.busid)
        doubled = entry.busid in builder.at
        if device and device.number == entry.number and not doubled:
            builder.at[entry.busid] = Attachment(guest_port, entry)
            continue
        guest = guests[guest_port.domid]
        kind = next(c.type for c in guest.controllers if c.id == guest_port.controller)
        builder.steps.append(ClearPort(guest.name, guest_port, kind, entry.busid, entry.bus, entry.number))


def _drop_objects(builder: PlanBuilder) -> None:
    """Remove the device objects that cleared ports left in a qemu before anything is attached: the kernel may assign
    the same address to a new device.
    """
    names = {g.domid: g.name for g in builder.inputs.snapshot.guests.values()}
    builder.steps += [
        DropObject(names[o.domid], o) for o in sorted(builder.inputs.ledger.leftovers) if o.domid in names
    ]


def _device(builder: PlanBuilder, device: Device) -> Verdict:
    """The verdict of one device, with the step that it needs. In this order: a step under way, no policy, protection,
    pause, manual override, an attachment of someone else, the rules.
    """
    inputs = builder.inputs
    blank = Verdict(device, inputs.decisions[device.port], State.HOST, Cause.DEFAULT)
    at = builder.at.get(device.port)
    if at and at.entry.intent:
        going = replace(blank, target=at.entry.guest if at.entry.intent is Intent.ATTACH else None)
        return builder.attached_verdict(going, at, State.ATTACHING, Cause.MOVING)
    if inputs.policy is None:
        waiting = replace(blank, state=State.PENDING, cause=Cause.NO_POLICY)
        return builder.attached_verdict(waiting, at, State.PENDING, Cause.NO_POLICY) if at else waiting
    if cause := inputs.protected.get(device.port):
        return _protected(builder, blank, cause, at)
    if paused(inputs.ledger, device.port, at.entry.guest if at else None):
        return _left_alone(builder, blank, at)
    by_hand = inputs.ledger.orders.overrides.get(device.key)
    if by_hand:
        blank = replace(blank, by_hand=True)
    if by_hand and by_hand.action is OrderAction.DETACH:
        return _detached(builder, blank, by_hand, at)
    if at and not at.entry.ours and not by_hand:
        return builder.attached_verdict(blank, at, State.FOREIGN, Cause.FOREIGN)
    wanted = _ordered(inputs, device, by_hand) if by_hand else preferred(inputs.ledger, blank.decision.guests)
    if not wanted:
        return _stays(builder, blank, at)
    return _goes(builder, replace(blank, wanted=wanted), at)


def _protected(builder: PlanBuilder, blank: Verdict, cause: Cause, at: Attachment | None) -> Verdict:
    """The verdict of a protected device: no guest gets it. dom0 does not get it either if the policy blocks it."""
    if cause is Cause.PROTECT and blank.decision.over_protect:
        why = Cause.RULE if blank.decision.rule else Cause.DEFAULT
        return _keep(builder, replace(blank, state=State.BLOCKED, cause=why), at)
    return _keep(builder, replace(blank, state=State.PROTECTED, cause=cause), at)


def _detached(builder: PlanBuilder, blank: Verdict, by_hand: Override, at: Attachment | None) -> Verdict:
    """The verdict of a device that was detached: by an order, or because its port was found empty. A guest that shuts
    down empties its ports too, so in doubt wait.
    """
    if doubt := by_hand.in_doubt(builder.inputs.now):
        builder.wake_in(doubt)
        return replace(blank, state=State.PENDING, cause=Cause.PORT_EMPTIED, by_hand=False)
    # Detached from the guest does not mean that dom0 gets it: the policy may not admit it.
    policy = builder.inputs.policy
    state = State.HOST if policy is None or blank.decision.admits(policy) else State.BLOCKED
    return _keep(builder, replace(blank, state=state, cause=Cause.BY_HAND), at)


def _left_alone(builder: PlanBuilder, blank: Verdict, at: Attachment | None) -> Verdict:
    """The verdict of a paused device: it stays as it is."""
    if at:
        state = State.ATTACHED if at.entry.ours else State.FOREIGN
        return builder.attached_verdict(blank, at, state, Cause.PAUSED)
    untouched = blank.device.shut or not blank.device.configured
    blocked = builder.inputs.ledger.device(blank.device.key).blocked
    if blocked or (untouched and blank.decision.action == Action.BLOCK):
        return replace(blank, state=State.BLOCKED, cause=Cause.PAUSED)
    wanted = blank.decision.guests
    return replace(blank, state=State.PENDING if wanted else State.HOST, cause=Cause.PAUSED, wanted=wanted)


def _ordered(inputs: PlanInput, device: Device, order: Override) -> tuple[str, ...]:
    """The guest of the manual override; also the guest that it came from, once the ordered one failed to take it."""
    ordered = order.guest or ""
    there = inputs.snapshot.guests.get(ordered)
    failed = there is not None and inputs.trouble_with(device, there)
    return (ordered, order.back) if failed and order.back else (ordered,)


def _stays(builder: PlanBuilder, blank: Verdict, at: Attachment | None) -> Verdict:
    decision = blank.decision
    state = State.BLOCKED if decision.action == Action.BLOCK else State.HOST
    cause = Cause.RULE if decision.rule else Cause.DEFAULT
    return _keep(builder, replace(blank, state=state, cause=cause), at)


def _keep(builder: PlanBuilder, verdict: Verdict, at: Attachment | None) -> Verdict:
    """The device belongs to the host: detach it if the agent attached it, and set `authorized` as its state
    requires.
    """
    device = verdict.device
    if at and not at.entry.ours and verdict.state is State.PROTECTED:
        return builder.attached_verdict(verdict, at, verdict.state, verdict.cause)
    if at and not at.entry.ours:
        return builder.attached_verdict(replace(verdict, by_hand=False), at, State.FOREIGN, Cause.FOREIGN)
    if at:
        return builder.plan_detach(verdict, at)
    allowed = verdict.state is not State.BLOCKED
    if allowed and not device.authorized and not _ours_to_authorize(builder.inputs, device):
        return verdict
    return verdict if device.authorized is allowed else builder.plan_authorize(verdict, allowed)


def _ours_to_authorize(inputs: PlanInput, device: Device) -> bool:
    """Whether the agent may authorise it. A device that someone else deauthorised stays so, unless the policy blocks by
    default and admits this one.
    """
    blocks = inputs.policy is not None and inputs.policy.closed
    return inputs.ledger.device(device.key).blocked or blocks


def _goes(builder: PlanBuilder, verdict: Verdict, at: Attachment | None) -> Verdict:
    """The device belongs to a guest: choose the guest, and plan the next step towards it."""
    inputs = builder.inputs
    if verdict.device.partly_hub and not goes_whole(inputs, verdict):
        alone = replace(verdict, state=State.GIVEN_UP, cause=Cause.HUB, target=verdict.wanted[0])
        return builder.plan_detach(alone, at) if at else keep_from_dom0(builder, alone)
    if not at and has_twin(inputs, verdict):
        return keep_from_dom0(builder, replace(verdict, state=State.PENDING, cause=Cause.AMBIGUOUS))
    target = choose_guest(builder, verdict, at)
    if isinstance(target, Verdict):
        return _waits(builder, target, at)
    if guest_paused(inputs.ledger, target.name) and not (at and at.entry.guest == target.name):
        held = replace(verdict, target=target.name, state=State.PENDING, cause=Cause.PAUSED)
        return builder.attached_verdict(held, at, State.ATTACHED, Cause.PAUSED) if at else held
    if whole := by_controller(builder, verdict, at, target):
        return whole if at else unavailable(builder, whole)
    if at:
        target = stays_until_connected(builder, verdict, at, target) or target
        verdict = replace(verdict, target=target.name)
        if at.entry.guest != target.name:
            return builder.plan_detach(verdict, at)
        return check_delivery(builder, note_failed_move(inputs, verdict, target), at, target)
    return unavailable(builder, plan_attach(builder, replace(verdict, target=target.name), target))


def _waits(builder: PlanBuilder, verdict: Verdict, at: Attachment | None) -> Verdict:
    """None of its guests can take it now. It is detached from a guest that it does not belong to."""
    if not at:
        return keep_from_dom0(builder, verdict)
    if at.entry.guest not in verdict.wanted:
        return builder.plan_detach(replace(verdict, target=None), at)
    return builder.attached_verdict(verdict, at, verdict.state, verdict.cause)


def steps_by_guest(steps: Iterable[Step]) -> dict[str, list[Step]]:
    """The steps of each guest in order; steps of no guest by their device's port."""
    queues: dict[str, list[Step]] = {}
    for step in steps:
        worker = f"={step.device.port}" if isinstance(step, Authorize | Interfaces) else getattr(step, "guest", "")
        queues.setdefault(worker, []).append(step)
    return queues
