"""A device and the guest it belongs to: the next step that brings it there, or how well it stands there."""

from __future__ import annotations

from dataclasses import replace

from xenplug.core.book.ledger import Trouble, controller_subject, lost, place, subject
from xenplug.core.model import Claim, ControllerType, Device, Guest, GuestPort, GuestState
from xenplug.core.planning import fit
from xenplug.core.planning.scene import LOOK_AGAIN, Draft, Scene, Standing, authorize, failing, shown_at, take_off
from xenplug.core.planning.steps import AddController, Attach, Cause, State, Verdict, sizes
from xenplug.core.policy.rules import ControllerSpec, GuestPolicy, Policy


def attached(draft: Draft, verdict: Verdict, at: Standing, guest: Guest) -> Verdict:
    """On the right guest's port. Delivered? Still held? (design law 3)"""
    scene = draft.scene
    if not guest.model_lives:
        return shown_at(verdict, at, scene, State.GIVEN_UP, Cause.DEVICE_MODEL_GONE)
    if guest.state is GuestState.RUNNING and (trouble := _undelivered(scene, at, verdict.device)):
        leaving = take_off(draft, verdict, at, trouble)
        return leaving if leaving.state is State.FAILING else shown_at(verdict, at, scene, State.FAILING, trouble)
    if not at.entry.delivered or at.entry.missing:
        draft.wake_in(LOOK_AGAIN)
    if not at.entry.delivered:
        return shown_at(verdict, at, scene, State.ATTACHING, Cause.WAITING_TO_BE_TAKEN)
    claim = scene.snapshot.claims.get(verdict.device.port, Claim())
    return shown_at(verdict, at, scene, State.ATTACHED, Cause.USED if claim.used else Cause.TAKEN)


def _undelivered(scene: Scene, at: Standing, device: Device) -> Cause | None:
    entry = at.entry
    if not entry.delivered:
        return Cause.NOT_DELIVERED if entry.waited > scene.times.delivery else None
    if not lost(entry):
        return None
    claim = scene.snapshot.claims.get(device.port, Claim())
    # Unused a second time after it was healed once: that is the guest's own choice.
    return None if claim.taken and subject(device, at.spot.domid) in scene.ledger.healed else Cause.LOST


def attach(draft: Draft, verdict: Verdict, guest: Guest) -> Verdict:
    """Not there yet: the next step towards it, or why there is none."""
    device = verdict.device
    waiting = replace(verdict, state=State.PENDING, cause=Cause.CONFIGURING)
    if not device.authorized:
        # It is authorised first, and attached once it is configured; but not in vain: whether the guest can have it is
        # known before, and dom0 would have it meanwhile.
        trial = Draft(draft.scene, draft.at, allotted=[*draft.allotted], building={*draft.building})
        outlook = _next_step(trial, verdict, guest)
        if outlook.state is not State.ATTACHING and outlook.cause is not Cause.SETTLING:
            draft.wakes += trial.wakes
            return outlook
        return authorize(draft, waiting, True)
    return _next_step(draft, verdict, guest) if device.configured else waiting


def _next_step(draft: Draft, verdict: Verdict, guest: Guest) -> Verdict:
    scene, device = draft.scene, verdict.device
    if guest.state is not GuestState.RUNNING:
        return replace(verdict, state=State.PENDING, cause=Cause.GUEST_PAUSED)
    if not guest.model_lives:
        return replace(verdict, state=State.GIVEN_UP, cause=Cause.DEVICE_MODEL_GONE)
    if (unsettled := scene.ledger.arrived.get(place(device), 0.0) + scene.times.settle - scene.now) > 0:
        draft.wake_in(unsettled)
        return replace(verdict, state=State.PENDING, cause=Cause.SETTLING)
    if trouble := scene.ledger.troubles.get(subject(device, guest.domid)):
        verdict = replace(verdict, attempts=trouble.count, text=trouble.text)
        if trouble.given_up or trouble.next_try > scene.now:
            return _after_failure(draft, verdict, trouble)
    # A port that fails again and again may be held in qemu by something that xenstore knows nothing of.
    passed_over = max(verdict.attempts - 1, 0)
    spot = fit.choose_port(guest, device, draft.allotted, passed_over, scene.snapshot.usbback)
    if isinstance(spot, GuestPort):
        draft.allotted.append(spot)
        draft.steps.append(Attach(guest.name, spot, device))
        return replace(verdict, state=State.ATTACHING, cause=Cause.MOVING)
    if spot is Cause.NO_FRONTEND:
        return _no_frontend(draft, verdict, guest)
    return _controller(draft, verdict, guest)


def _after_failure(draft: Draft, verdict: Verdict, trouble: Trouble) -> Verdict:
    if trouble.given_up:
        return replace(verdict, state=State.GIVEN_UP, cause=Cause(trouble.cause))
    return failing(draft, verdict, trouble)


def _no_frontend(draft: Draft, verdict: Verdict, guest: Guest) -> Verdict:
    """The guest's PVUSB driver has not connected: it boots, or it has none."""
    scene = draft.scene
    ledger = scene.ledger
    since = max(ledger.born.get(guest.domid, scene.now), ledger.built.get(guest.domid, 0.0))
    left = scene.times.no_frontend - (scene.now - since)
    if left <= 0:
        return replace(verdict, state=State.GIVEN_UP, cause=Cause.NO_FRONTEND)
    draft.wake_in(left)
    return replace(verdict, state=State.PENDING, cause=Cause.GUEST_STARTING)


def _controller(draft: Draft, verdict: Verdict, guest: Guest) -> Verdict:
    """No port to be had: make a controller if that is allowed and would help."""
    ledger, spec = draft.scene.ledger, _spec(draft.scene, guest, verdict.device)
    if guest.domid in draft.building and isinstance(spec, ControllerSpec):
        return replace(verdict, state=State.ATTACHING, cause=Cause.MOVING)
    if trouble := ledger.troubles.get(controller_subject(guest.domid)):
        verdict = replace(verdict, attempts=trouble.count, text=trouble.text)
        if trouble.given_up or trouble.next_try > draft.scene.now:
            return _after_failure(draft, verdict, trouble)
    if (left := _connecting(draft.scene, guest, verdict.device)) > 0:
        draft.wake_in(left)
        return replace(verdict, state=State.PENDING, cause=Cause.GUEST_STARTING)
    if isinstance(spec, ControllerSpec):
        draft.building.add(guest.domid)
        draft.steps.append(AddController(guest.name, guest.domid, spec, sizes(guest.controllers)))
        return replace(verdict, state=State.ATTACHING, cause=Cause.MOVING)
    state = State.PENDING if spec is Cause.NO_FREE_PORT else State.GIVEN_UP
    return replace(verdict, state=state, cause=spec)


def _spec(scene: Scene, guest: Guest, device: Device) -> ControllerSpec | Cause:
    """The controller that can be made for the device, or why there is none."""
    rules = (scene.policy or Policy()).guests.get(guest.name, GuestPolicy())
    made = len(scene.ledger.made.get(guest.domid, ()))
    return fit.new_controller(guest, rules, made, device, scene.snapshot.usbback)


def _connecting(scene: Scene, guest: Guest, device: Device) -> float:
    """Seconds for which a controller that the agent made last may still connect and take the device."""
    # What nobody serves (a dead pv controller, T43) is not waited for.
    served = [c for c in guest.controllers if c.type is not ControllerType.PV or scene.snapshot.usbback]
    waiting = [c for c in served if not c.connected and not fit.unfit(device, c.type, c.version)]
    built = scene.ledger.built.get(guest.domid)
    return built + scene.times.no_frontend - scene.now if waiting and built is not None else 0.0
