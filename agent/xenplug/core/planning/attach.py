"""Attaching a device to its guest: the next step towards it, or whether the guest has taken the device."""

from __future__ import annotations

from dataclasses import replace

from xenplug.core.ledger.records import lost
from xenplug.core.ledger.troubles import Trouble, TroubleKey
from xenplug.core.model import Claim, ControllerType, Device, Guest, GuestPort, GuestState
from xenplug.core.planning import fit
from xenplug.core.planning.plan_builder import POLL_INTERVAL, STATES_EVERY, Attachment, PlanBuilder
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.steps import AddController, Attach, Cause, State, Verdict, sizes
from xenplug.core.policy.rules import ControllerSpec, GuestPolicy, Policy

CONFIGURE_TIME = 3.0
"""Seconds in which the kernel configures a device. After them it will not: a udev rule took the configuration away
(39-usbmuxd.rules), or the bus lacks the power. Deauthorised and authorised again, the kernel chooses one, and no rule
for `add` runs (drivers/usb/core/hub.c: usb_authorize_device). qemu sets one only if the device has several (lab 18).
"""


def check_delivery(builder: PlanBuilder, verdict: Verdict, at: Attachment, guest: Guest) -> Verdict:
    """The verdict of a device on its guest's port: whether the guest took it and still has it. The exit code of xl does
    not show that (law 3, docs/dev/architecture.md).
    """
    inputs = builder.inputs
    if not guest.model_lives:
        return builder.attached_verdict(verdict, at, State.GIVEN_UP, Cause.DEVICE_MODEL_GONE)
    if guest.state is GuestState.RUNNING and (trouble := _undelivered(inputs, at, verdict.device)):
        leaving = builder.plan_detach(verdict, at, trouble)
        return (
            leaving if leaving.state is State.FAILING else builder.attached_verdict(verdict, at, State.FAILING, trouble)
        )
    if not at.entry.delivered or at.entry.missing:
        builder.wake_in(POLL_INTERVAL)
    if not at.entry.delivered:
        return builder.attached_verdict(verdict, at, State.ATTACHING, Cause.WAITING_TO_BE_TAKEN)
    claim = inputs.snapshot.claims.get(verdict.device.port, Claim())
    return builder.attached_verdict(verdict, at, State.ATTACHED, Cause.USED if claim.used else Cause.TAKEN)


def _undelivered(inputs: PlanInput, at: Attachment, device: Device) -> Cause | None:
    entry = at.entry
    if not entry.delivered:
        return Cause.NOT_DELIVERED if entry.waited > inputs.times.delivery else None
    if not lost(entry):
        return None
    claim = inputs.snapshot.claims.get(device.port, Claim())
    # Unused again after it was attached again once: the guest does not want to use it.
    attachment = TroubleKey.attach(device.key, at.guest_port.domid)
    return None if claim.taken and attachment in inputs.ledger.healed_once else Cause.LOST


def plan_attach(builder: PlanBuilder, verdict: Verdict, guest: Guest) -> Verdict:
    """Plan the next step of a device that is not on its guest's port yet, or return why there is none."""
    device = verdict.device
    waiting = replace(verdict, state=State.PENDING, cause=Cause.CONFIGURING)
    if not device.authorized:
        # It is authorised first, and attached once it is configured. Check before whether the guest can take it:
        # otherwise dom0 would get a device that then goes nowhere.
        trial = PlanBuilder(builder.inputs, builder.at, allotted=[*builder.allotted], building={*builder.building})
        outlook = _next_step(trial, verdict, guest)
        if outlook.state is not State.ATTACHING and outlook.cause is not Cause.SETTLING:
            builder.wakes += trial.wakes
            return outlook
        return builder.plan_authorize(waiting, True)
    record = builder.inputs.ledger.device(device.key)
    if record.unconfigured_since is None:
        return _next_step(builder, verdict, guest)
    if (left := record.unconfigured_since + CONFIGURE_TIME - builder.inputs.now) > 0:
        builder.wake_in(left)
        return waiting
    # Once: if the kernel chooses none then either, the guest may.
    return _next_step(builder, verdict, guest) if record.reconfigured else builder.plan_authorize(waiting, False)


def _next_step(builder: PlanBuilder, verdict: Verdict, guest: Guest) -> Verdict:
    inputs, device = builder.inputs, verdict.device
    if guest.state is not GuestState.RUNNING:
        builder.wake_in(STATES_EVERY)
        return replace(verdict, state=State.PENDING, cause=not_running(guest))
    if not guest.model_lives:
        return replace(verdict, state=State.GIVEN_UP, cause=Cause.DEVICE_MODEL_GONE)
    reenumerated_at = inputs.ledger.device(device.key).reenumerated_at or 0.0
    if (unsettled := reenumerated_at + inputs.times.settle - inputs.now) > 0:
        builder.wake_in(unsettled)
        return replace(verdict, state=State.PENDING, cause=Cause.SETTLING)
    if trouble := inputs.ledger.troubles.get(TroubleKey.attach(device.key, guest.domid)):
        verdict = replace(verdict, attempts=trouble.count, text=trouble.text)
        if trouble.given_up or trouble.next_try > inputs.now:
            return _after_failure(builder, verdict, trouble)
    # A port that fails repeatedly may be occupied in qemu by something that xenstore does not show.
    skip = max(verdict.attempts - 1, 0)
    guest_port = fit.choose_port(guest, device, builder.allotted, skip, inputs.snapshot.usbback)
    if isinstance(guest_port, GuestPort):
        builder.allotted.append(guest_port)
        builder.steps.append(Attach(guest.name, guest_port, device, inputs.driverless))
        return replace(verdict, state=State.ATTACHING, cause=Cause.MOVING)
    if guest_port is Cause.NO_FRONTEND:
        return _no_frontend(builder, verdict, guest)
    return _controller(builder, verdict, guest)


def not_running(guest: Guest) -> Cause:
    """Why a live guest that does not run gets nothing now."""
    return Cause.GUEST_SUSPENDED if guest.state is GuestState.SUSPENDED else Cause.GUEST_PAUSED


def _after_failure(builder: PlanBuilder, verdict: Verdict, trouble: Trouble) -> Verdict:
    if trouble.given_up:
        return replace(verdict, state=State.GIVEN_UP, cause=Cause(trouble.cause))
    return builder.failing_verdict(verdict, trouble)


def _no_frontend(builder: PlanBuilder, verdict: Verdict, guest: Guest) -> Verdict:
    """The guest's PVUSB driver has not connected: the guest is booting, or it has no such driver."""
    inputs = builder.inputs
    record = inputs.ledger.domain(guest.domid)
    running = inputs.now if record.first_running is None else record.first_running
    since = max(running, record.last_made_at or 0.0)
    left = inputs.times.no_frontend - (inputs.now - since)
    if left <= 0:
        return replace(verdict, state=State.GIVEN_UP, cause=Cause.NO_FRONTEND)
    builder.wake_in(left)
    return replace(verdict, state=State.PENDING, cause=Cause.GUEST_STARTING)


def _controller(builder: PlanBuilder, verdict: Verdict, guest: Guest) -> Verdict:
    """No port is free: create a controller if that is allowed and helps."""
    ledger, spec = builder.inputs.ledger, _spec(builder.inputs, guest, verdict.device)
    if guest.domid in builder.building and isinstance(spec, ControllerSpec):
        return replace(verdict, state=State.ATTACHING, cause=Cause.MOVING)
    if trouble := ledger.troubles.get(TroubleKey.add_controller(guest.domid)):
        verdict = replace(verdict, attempts=trouble.count, text=trouble.text)
        if trouble.given_up or trouble.next_try > builder.inputs.now:
            return _after_failure(builder, verdict, trouble)
    if (left := _connecting(builder.inputs, guest, verdict.device)) > 0:
        builder.wake_in(left)
        return replace(verdict, state=State.PENDING, cause=Cause.GUEST_STARTING)
    if isinstance(spec, ControllerSpec):
        builder.building.add(guest.domid)
        builder.steps.append(AddController(guest.name, guest.domid, spec, sizes(guest.controllers)))
        return replace(verdict, state=State.ATTACHING, cause=Cause.MOVING)
    state = State.PENDING if spec is Cause.NO_FREE_PORT else State.GIVEN_UP
    return replace(verdict, state=state, cause=spec)


def _spec(inputs: PlanInput, guest: Guest, device: Device) -> ControllerSpec | Cause:
    """The controller that can be created for the device, or why none can."""
    rules = (inputs.policy or Policy()).guests.get(guest.name, GuestPolicy())
    made = len(inputs.ledger.domain(guest.domid).controllers_made)
    return fit.new_controller(guest, rules, made, device, inputs.snapshot.usbback)


def _connecting(inputs: PlanInput, guest: Guest, device: Device) -> float:
    """Seconds left for the controller that the agent created last to connect and take the device."""
    # Do not wait for a controller without a backend (a dead pv controller, T43).
    served = [c for c in guest.controllers if c.type is not ControllerType.PV or inputs.snapshot.usbback]
    waiting = [c for c in served if not c.connected and not fit.unfit(device, c.type, c.version)]
    last_made_at = inputs.ledger.domain(guest.domid).last_made_at
    return last_made_at + inputs.times.no_frontend - inputs.now if waiting and last_made_at is not None else 0.0
