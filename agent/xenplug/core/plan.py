"""The plan: from (decisions, snapshot, ledger, now) to ordered steps and a verdict for every device. Pure and total.

Only the next step of each device is planned: what comes after it is planned from what is then observed (a move is a
detach, seen to be done, then an attach). Stale ports come before everything, for one of them blocks every attach on
the host (xen-facts T1). A guest that is busy with a step gets no new ones until it is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from xenplug.core import fit
from xenplug.core.ledger import (
    LIVE,
    Entry,
    Ledger,
    Trouble,
    authorize_subject,
    controller_subject,
    detach_subject,
    is_coming,
    lost,
    place,
    subject,
)
from xenplug.core.match import Decision
from xenplug.core.model import BusId, Claim, Device, Guest, GuestPort, GuestState, Snapshot
from xenplug.core.policy.rules import ControllerSpec, GuestPolicy, Policy
from xenplug.core.steps import (
    AddController,
    Attach,
    Authorize,
    Cause,
    ClearPort,
    Detach,
    Plan,
    State,
    Step,
    Verdict,
    sizes,
)

MOVE_AT_ONCE = frozenset({"keyboard", "mouse", "gamepad"})
"""Kinds that follow the first guest of a list as soon as it starts; others stay where they are used."""

LOOK_AGAIN = 0.25
"""Seconds until the next look while something is awaited that no watch or uevent tells of: libxl's userdata file, a
node opened by a device model."""

STILL_COMING = 2.0
"""The same, where no device waits for it: a guest is being created, and status and orders by hand go by its state."""


@dataclass(frozen=True, slots=True)
class Times:
    """The waits that decide (settings; seconds)."""

    settle: float = 0.3
    delivery: float = 10.0
    reboot_grace: float = 5.0
    no_frontend: float = 120.0


@dataclass(frozen=True, slots=True)
class Scene:
    """All a plan is made from."""

    snapshot: Snapshot
    ledger: Ledger
    now: float
    decisions: Mapping[BusId, Decision]
    protected: Mapping[BusId, Cause]
    policy: Policy | None
    """None: it did not load. Then nothing is done but the clearing of stale ports."""
    times: Times = Times()


@dataclass(frozen=True, slots=True)
class Standing:
    """A device on a guest port."""

    spot: GuestPort
    entry: Entry


@dataclass(slots=True)
class _Draft:
    """The plan while it is being made."""

    scene: Scene
    at: dict[BusId, Standing]
    steps: list[Step] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    allotted: list[GuestPort] = field(default_factory=list)
    building: set[int] = field(default_factory=set)
    """Domains that get a new controller in this plan."""
    wakes: list[float] = field(default_factory=list)

    def wake_in(self, seconds: float) -> None:
        self.wakes.append(self.scene.now + max(seconds, 0.0))


def make_plan(scene: Scene) -> Plan:
    """The whole plan for one instant."""
    draft = _Draft(scene, {})
    _clear_stale(draft)
    for port in sorted(scene.snapshot.devices, key=natural):
        draft.verdicts.append(_device(draft, scene.snapshot.devices[port]))
    if any(is_coming(scene.ledger, guest) for guest in scene.snapshot.guests.values()):
        draft.wake_in(STILL_COMING)
    return Plan(tuple(draft.steps), tuple(draft.verdicts), min(draft.wakes, default=None))


def natural(port: str) -> list[int]:
    """Sort key of a port path by its numbers: 1-2 before 1-10."""
    return [int(n) for n in re.findall(r"\d+", port)]


def _clear_stale(draft: _Draft) -> None:
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


def _device(draft: _Draft, device: Device) -> Verdict:
    """One device: the precedence of design §3, then the act it needs."""
    scene = draft.scene
    blank = Verdict(device, scene.decisions[device.port], State.HOST, Cause.DEFAULT)
    at = draft.at.get(device.port)
    if at and at.entry.intent:
        going = replace(blank, target=at.entry.guest if at.entry.intent == "attach" else None)
        return _shown_at(going, at, scene, State.ATTACHING, Cause.MOVING)
    if scene.policy is None:
        waiting = replace(blank, state=State.PENDING, cause=Cause.NO_POLICY)
        return _shown_at(waiting, at, scene, State.PENDING, Cause.NO_POLICY) if at else waiting
    if cause := scene.protected.get(device.port):
        return _keep(draft, replace(blank, state=State.PROTECTED, cause=cause), at)
    by_hand = scene.ledger.overrides.get(place(device))
    if by_hand and by_hand.action == "detach":
        # Off the guest is not into dom0 where nothing unnamed may come in.
        state = State.BLOCKED if scene.policy.default == "block" else State.HOST
        return _keep(draft, replace(blank, state=state, cause=Cause.BY_HAND), at)
    if at and not at.entry.ours and not by_hand:
        return _shown_at(blank, at, scene, State.FOREIGN, Cause.FOREIGN)
    wanted = (by_hand.guest or "",) if by_hand else blank.decision.guests
    if not wanted:
        return _stays(draft, blank, at)
    return _goes(draft, replace(blank, wanted=wanted), at)


def _stays(draft: _Draft, blank: Verdict, at: Standing | None) -> Verdict:
    decision = blank.decision
    state = State.BLOCKED if decision.action == "block" else State.HOST
    cause = Cause.RULE if decision.rule else Cause.DEFAULT
    return _keep(draft, replace(blank, state=state, cause=cause), at)


def _keep(draft: _Draft, verdict: Verdict, at: Standing | None) -> Verdict:
    """The device is the host's: taken off the guest if we gave it, and authorised as its state says."""
    device = verdict.device
    if at:
        if at.entry.ours:
            _take_off(draft, at, device)
        return _shown_at(verdict, at, draft.scene, verdict.state, verdict.cause)
    allowed = verdict.state is not State.BLOCKED
    if allowed and not device.authorized and not _ours_to_authorize(draft.scene, device):
        return verdict
    if device.authorized is not allowed:
        _authorize(draft, device, allowed)
    return verdict


def _take_off(draft: _Draft, at: Standing, device: Device, trouble: Cause | None = None) -> None:
    """Plan a detach, unless the last one failed and it is not yet time to try again."""
    failed = draft.scene.ledger.troubles.get(detach_subject(device, at.spot.domid))
    if failed and failed.next_try > draft.scene.now:
        draft.wakes.append(failed.next_try)
        return
    draft.steps.append(Detach(at.entry.guest, at.spot, device, trouble))


def _authorize(draft: _Draft, device: Device, allowed: bool) -> None:
    """Plan the write, unless one was just made: the facts follow it, or it failed and would fail again."""
    last = draft.scene.ledger.troubles.get(authorize_subject(device))
    if last and last.next_try > draft.scene.now:
        draft.wakes.append(last.next_try)
        return
    draft.steps.append(Authorize(device, allowed))


def _ours_to_authorize(scene: Scene, device: Device) -> bool:
    """A device that someone else deauthorised stays so, unless the policy blocks by default and lets this one in."""
    blocks = scene.policy is not None and scene.policy.default == "block"
    return place(device) in scene.ledger.blocked or blocks


def _shown_at(verdict: Verdict, at: Standing, scene: Scene, state: State, cause: Cause) -> Verdict:
    claim = scene.snapshot.claims.get(verdict.device.port, Claim())
    return replace(verdict, state=state, cause=cause, guest=at.entry.guest, spot=at.spot, used=claim.used)


def _goes(draft: _Draft, verdict: Verdict, at: Standing | None) -> Verdict:
    """The device belongs to a guest: find out to which now, and bring it there."""
    target = _choose(draft, verdict, at)
    if isinstance(target, Verdict):
        return _waits(draft, target, at)
    if at:
        target = _may_stay(draft, verdict, at, target) or target
        if at.entry.guest != target.name:
            _take_off(draft, at, verdict.device)
            moving = replace(verdict, target=target.name)
            return _shown_at(moving, at, draft.scene, State.ATTACHING, Cause.MOVING)
        return _attached(draft, replace(verdict, target=target.name), at, target)
    return _attach(draft, replace(verdict, target=target.name), target)


def _may_stay(draft: _Draft, verdict: Verdict, at: Standing, target: Guest) -> Guest | None:
    """The guest of its list that has it, while the driver of its new one has not connected: it would be nobody's."""
    here = draft.scene.snapshot.guests.get(at.entry.guest)
    if here is None or here.name not in verdict.wanted or here.state not in LIVE:
        return None
    return here if fit.choose_port(target, verdict.device, draft.allotted) is Cause.NO_FRONTEND else None


def _waits(draft: _Draft, verdict: Verdict, at: Standing | None) -> Verdict:
    """None of its guests can have it now; a guest that it does not belong to gives it up all the same."""
    if not at:
        return verdict
    if at.entry.guest not in verdict.wanted:
        _take_off(draft, at, verdict.device)
    return _shown_at(verdict, at, draft.scene, verdict.state, verdict.cause)


def _choose(draft: _Draft, verdict: Verdict, at: Standing | None) -> Guest | Verdict:
    """The guest of the list that gets it now, or the verdict that none can yet."""
    scene = draft.scene
    guests = scene.snapshot.guests
    there = [guests[name] for name in verdict.wanted if name in guests]
    running = [guest for guest in there if guest.state in LIVE]
    home = scene.ledger.homes.get(place(verdict.device))
    present = next((g for g in running if g.name == (at.entry.guest if at else home)), None)
    if present and _move(verdict) == "on_stop":
        return present
    coming = [guest.name for guest in there if is_coming(scene.ledger, guest)]
    if coming:
        draft.wake_in(LOOK_AGAIN)
    if _may_return(scene, verdict, home):
        return _awaits(draft, verdict, home, coming)
    if running:
        return running[0]
    cause = Cause.GUEST_STARTING if coming else Cause.GUEST_STOPPED
    target = [*coming, *(guest.name for guest in there), *verdict.wanted][0]
    return replace(verdict, state=State.PENDING, cause=cause, target=target)


def _move(verdict: Verdict) -> str:
    rule = verdict.decision.rule
    if rule and rule.move:
        return rule.move
    return "on_start" if verdict.device.kinds & MOVE_AT_ONCE else "on_stop"


def _may_return(scene: Scene, verdict: Verdict, home: str | None) -> bool:
    """Its guest went away and is given time to come back before the device goes to the next of the list."""
    return len(verdict.wanted) > 1 and home in verdict.wanted and home in scene.ledger.gone


def _awaits(draft: _Draft, verdict: Verdict, home: str | None, coming: list[str]) -> Verdict:
    if home in coming:
        return replace(verdict, state=State.PENDING, cause=Cause.GUEST_STARTING, target=home)
    scene = draft.scene
    draft.wake_in(scene.ledger.gone[home or ""] + scene.times.reboot_grace - scene.now)
    return replace(verdict, state=State.PENDING, cause=Cause.REBOOT_GRACE, target=home)


def _attached(draft: _Draft, verdict: Verdict, at: Standing, guest: Guest) -> Verdict:
    """On the right guest's port. Delivered? Still held? (design law 3)"""
    scene = draft.scene
    if guest.state is GuestState.RUNNING and (trouble := _undelivered(scene, at, verdict.device)):
        _take_off(draft, at, verdict.device, trouble)
        return _shown_at(verdict, at, scene, State.FAILING, trouble)
    if not at.entry.delivered or at.entry.missing:
        draft.wake_in(LOOK_AGAIN)
    if not at.entry.delivered:
        return _shown_at(verdict, at, scene, State.ATTACHING, Cause.WAITING_TO_BE_TAKEN)
    claim = scene.snapshot.claims.get(verdict.device.port, Claim())
    return _shown_at(verdict, at, scene, State.ATTACHED, Cause.USED if claim.used else Cause.TAKEN)


def _undelivered(scene: Scene, at: Standing, device: Device) -> Cause | None:
    entry = at.entry
    if not entry.delivered:
        return Cause.NOT_DELIVERED if entry.waited > scene.times.delivery else None
    if not lost(entry):
        return None
    claim = scene.snapshot.claims.get(device.port, Claim())
    # Unused a second time after it was healed once: that is the guest's own choice.
    return None if claim.taken and subject(device, at.spot.domid) in scene.ledger.healed else Cause.LOST


def _attach(draft: _Draft, verdict: Verdict, guest: Guest) -> Verdict:
    """Not there yet: the next step towards it, or why there is none."""
    scene, device = draft.scene, verdict.device
    if not device.configured:
        _let_in(draft, device)
        return replace(verdict, state=State.PENDING, cause=Cause.CONFIGURING)
    if guest.state is not GuestState.RUNNING:
        return replace(verdict, state=State.PENDING, cause=Cause.GUEST_PAUSED)
    if (unsettled := scene.ledger.arrived.get(place(device), 0.0) + scene.times.settle - scene.now) > 0:
        draft.wake_in(unsettled)
        return replace(verdict, state=State.PENDING, cause=Cause.SETTLING)
    if trouble := scene.ledger.troubles.get(subject(device, guest.domid)):
        verdict = replace(verdict, attempts=trouble.count, text=trouble.text)
        if trouble.given_up or trouble.next_try > scene.now:
            return _after_failure(draft, verdict, trouble)
    # A port that fails again and again may be held in qemu by something that xenstore knows nothing of.
    spot = fit.choose_port(guest, device, draft.allotted, max(verdict.attempts - 1, 0))
    if isinstance(spot, GuestPort):
        draft.allotted.append(spot)
        draft.steps.append(Attach(guest.name, spot, device))
        return replace(verdict, state=State.ATTACHING, cause=Cause.MOVING)
    if spot is Cause.NO_FRONTEND:
        return _no_frontend(draft, verdict, guest)
    return _controller(draft, verdict, guest)


def _let_in(draft: _Draft, device: Device) -> None:
    """An unauthorised device is authorised first, and attached once it is configured."""
    if not device.authorized:
        _authorize(draft, device, True)


def _after_failure(draft: _Draft, verdict: Verdict, trouble: Trouble) -> Verdict:
    cause = Cause(trouble.cause)
    if trouble.given_up:
        return replace(verdict, state=State.GIVEN_UP, cause=cause)
    draft.wake_in(trouble.next_try - draft.scene.now)
    return replace(verdict, state=State.FAILING, cause=cause, next_try=trouble.next_try)


def _no_frontend(draft: _Draft, verdict: Verdict, guest: Guest) -> Verdict:
    """The guest's PVUSB driver has not connected: it boots, or it has none."""
    scene = draft.scene
    ledger = scene.ledger
    since = max(ledger.born.get(guest.domid, scene.now), ledger.built.get(guest.domid, 0.0))
    left = scene.times.no_frontend - (scene.now - since)
    if left <= 0:
        return replace(verdict, state=State.GIVEN_UP, cause=Cause.NO_FRONTEND)
    draft.wake_in(left)
    return replace(verdict, state=State.PENDING, cause=Cause.GUEST_STARTING)


def _controller(draft: _Draft, verdict: Verdict, guest: Guest) -> Verdict:
    """No port to be had: make a controller if that is allowed and would help."""
    ledger = draft.scene.ledger
    if guest.domid in draft.building:
        return replace(verdict, state=State.ATTACHING, cause=Cause.MOVING)
    if trouble := ledger.troubles.get(controller_subject(guest.domid)):
        verdict = replace(verdict, attempts=trouble.count, text=trouble.text)
        if trouble.given_up or trouble.next_try > draft.scene.now:
            return _after_failure(draft, verdict, trouble)
    policy = draft.scene.policy or Policy()
    rules = policy.guests.get(guest.name, GuestPolicy())
    spec = fit.new_controller(guest, rules, ledger.made.get(guest.domid, 0), verdict.device)
    if isinstance(spec, ControllerSpec):
        draft.building.add(guest.domid)
        draft.steps.append(AddController(guest.name, guest.domid, spec, sizes(guest.controllers)))
        return replace(verdict, state=State.ATTACHING, cause=Cause.MOVING)
    state = State.PENDING if spec is Cause.NO_FREE_PORT else State.GIVEN_UP
    return replace(verdict, state=state, cause=spec)


def steps_by_guest(steps: Iterable[Step]) -> dict[str, list[Step]]:
    """The steps of each guest in their order; those of no guest under ""."""
    queues: dict[str, list[Step]] = {}
    for step in steps:
        queues.setdefault(getattr(step, "guest", ""), []).append(step)
    return queues
