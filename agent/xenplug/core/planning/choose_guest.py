"""Which guest of its list a device goes to now: the first that runs, unless the device should stay or wait."""

from __future__ import annotations

from dataclasses import replace

from xenplug.core.ledger.ledger import is_coming
from xenplug.core.model import LIVE_STATES, Guest
from xenplug.core.planning import fit
from xenplug.core.planning.plan_builder import POLL_INTERVAL, Attachment, PlanBuilder
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.steps import Cause, State, Verdict
from xenplug.core.policy.rules import Move

MOVE_AT_ONCE = frozenset({"keyboard", "mouse", "gamepad"})
"""Kinds that move to the first guest of a list as soon as it starts; others stay where they are."""


def choose_guest(builder: PlanBuilder, verdict: Verdict, at: Attachment | None) -> Guest | Verdict:
    """The guest of the list that gets the device now, or the verdict why none can yet."""
    inputs = builder.inputs
    guests = inputs.snapshot.guests
    there = [guests[name] for name in verdict.wanted if name in guests]
    last_guest = inputs.ledger.device(verdict.device.key).last_guest
    running = _without_failed(inputs, verdict, [guest for guest in there if guest.state in LIVE_STATES], last_guest)
    if running and running[0].name == inputs.ledger.orders.preferred:
        return running[0]
    present = next((g for g in running if g.name == (at.entry.guest if at else last_guest)), None)
    if present and _move(verdict) == Move.ON_STOP:
        return present
    coming = [guest.name for guest in there if is_coming(inputs.ledger, guest)]
    if coming:
        builder.wake_in(POLL_INTERVAL)
    if _may_return(inputs, verdict, last_guest):
        return _wait_for(builder, verdict, last_guest, coming)
    if running:
        return running[0]
    cause = Cause.GUEST_STARTING if coming else Cause.GUEST_STOPPED
    target = [*coming, *(guest.name for guest in there), *verdict.wanted][0]
    return replace(verdict, state=State.PENDING, cause=cause, target=target)


def _without_failed(inputs: PlanInput, verdict: Verdict, running: list[Guest], last_guest: str | None) -> list[Guest]:
    """The running guests without those that failed to take the device, if others are left. A failed move is undone
    after the first failure, because the device can return to its last guest; otherwise all attempts are made first.
    """
    elsewhere = {guest.name for guest in running if guest.name == last_guest}

    def failed(guest: Guest) -> bool:
        trouble = inputs.trouble_with(verdict.device, guest)
        return trouble is not None and (trouble.given_up or bool(elsewhere - {guest.name}))

    return [guest for guest in running if not failed(guest)] or running


def note_failed_move(inputs: PlanInput, verdict: Verdict, here: Guest) -> Verdict:
    """The verdict of a device on its guest, with a note if a guest earlier in the list failed to take it."""
    for name in verdict.wanted:
        guest = inputs.snapshot.guests.get(name)
        trouble = guest and inputs.trouble_with(verdict.device, guest)
        if name == here.name:
            break
        if trouble:
            words = f"{name} failed to take it" + (f" ({trouble.text})" if trouble.text else "")
            return replace(verdict, attempts=trouble.count, text=words)
    return verdict


def stays_until_connected(builder: PlanBuilder, verdict: Verdict, at: Attachment, target: Guest) -> Guest | None:
    """The guest that has the device, while the driver of its new guest has not connected. Otherwise no guest would have
    it for that time.
    """
    here = builder.inputs.snapshot.guests.get(at.entry.guest)
    if here is None or here is target or here.name not in verdict.wanted or here.state not in LIVE_STATES:
        return None
    usbback = builder.inputs.snapshot.usbback
    guest_port = fit.choose_port(target, verdict.device, builder.allotted, usbback=usbback)
    return here if guest_port is Cause.NO_FRONTEND else None


def _move(verdict: Verdict) -> Move:
    rule = verdict.decision.rule
    if rule and rule.move:
        return rule.move
    return Move.ON_START if verdict.device.kinds & MOVE_AT_ONCE else Move.ON_STOP


def _may_return(inputs: PlanInput, verdict: Verdict, last_guest: str | None) -> bool:
    """Its last guest ended and has time to return before the device goes to the next guest of the list."""
    return len(verdict.wanted) > 1 and last_guest in verdict.wanted and last_guest in inputs.ledger.guest_gone_since


def _wait_for(builder: PlanBuilder, verdict: Verdict, last_guest: str | None, coming: list[str]) -> Verdict:
    if last_guest in coming:
        return replace(verdict, state=State.PENDING, cause=Cause.GUEST_STARTING, target=last_guest)
    inputs = builder.inputs
    builder.wake_in(inputs.ledger.guest_gone_since[last_guest or ""] + inputs.times.reboot_grace - inputs.now)
    return replace(verdict, state=State.PENDING, cause=Cause.REBOOT_GRACE, target=last_guest)
