"""What a plan is made from, and the draft it is written on: the tools that all of core/planning/plan's rooms share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from xenplug.core.ledger.ledger import Entry, Ledger, Trouble, authorize_subject, detach_subject, subject
from xenplug.core.matching.match import Decision
from xenplug.core.model import BusId, Claim, Device, Guest, GuestPort, Snapshot
from xenplug.core.planning.pci_preflight import Foresight, Preflight
from xenplug.core.planning.steps import Authorize, Cause, Detach, State, Step, Verdict
from xenplug.core.policy.rules import Policy

LOOK_AGAIN = 0.25
"""Seconds until the next look while something is awaited that no watch or uevent tells of: libxl's userdata file, a
node opened by a device model."""


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
    foresight: Foresight = field(default_factory=Foresight)
    driverless: bool = False
    """Dom0's drivers are kept off what is bound for guests (core/planning/driver_isolation)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A device on a guest port."""

    spot: GuestPort
    entry: Entry


@dataclass(slots=True)
class Draft:
    """The plan while it is being made."""

    scene: Scene
    at: dict[BusId, Standing]
    steps: list[Step] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    allotted: list[GuestPort] = field(default_factory=list)
    building: set[int] = field(default_factory=set)
    """Domains that get a new controller in this plan."""
    wakes: list[float] = field(default_factory=list)
    flights: list[Preflight] = field(default_factory=list)

    def wake_in(self, seconds: float) -> None:
        self.wakes.append(self.scene.now + max(seconds, 0.0))


def shown_at(verdict: Verdict, at: Standing, scene: Scene, state: State, cause: Cause) -> Verdict:
    """The verdict of a device that is with a guest now."""
    claim = scene.snapshot.claims.get(verdict.device.port, Claim())
    return replace(verdict, state=state, cause=cause, guest=at.entry.guest, spot=at.spot, used=claim.used)


def failing(draft: Draft, verdict: Verdict, trouble: Trouble) -> Verdict:
    """The verdict of a device that an act failed for, and will be tried for again."""
    draft.wakes.append(trouble.next_try)
    next_try, count = trouble.next_try, trouble.count
    cause = Cause(trouble.cause)
    return replace(verdict, state=State.FAILING, cause=cause, attempts=count, next_try=next_try, text=trouble.text)


def take_off(draft: Draft, verdict: Verdict, at: Standing, trouble: Cause | None = None) -> Verdict:
    """Plan a detach, unless the last one failed and it is not yet time to try again."""
    leaving = shown_at(verdict, at, draft.scene, State.ATTACHING, Cause.MOVING)
    failed = draft.scene.ledger.troubles.get(detach_subject(verdict.device, at.spot.domid))
    if failed and failed.next_try > draft.scene.now:
        return failing(draft, leaving, failed)
    draft.steps.append(Detach(at.entry.guest, at.spot, verdict.device, trouble))
    return leaving


def failed_there(scene: Scene, device: Device, guest: Guest) -> Trouble | None:
    """The trouble of a device that this guest failed to take. Another device's stale port is no fault of the guest's,
    unless it never goes away.
    """
    trouble = scene.ledger.troubles.get(subject(device, guest.domid))
    return trouble if trouble and (trouble.given_up or trouble.cause != Cause.STALE_PORT) else None


def authorize(draft: Draft, verdict: Verdict, allowed: bool) -> Verdict:
    """Plan the write, unless one was just made: the facts follow it, or it failed and would fail again."""
    last = draft.scene.ledger.troubles.get(authorize_subject(verdict.device))
    if last is None or last.next_try <= draft.scene.now:
        draft.steps.append(Authorize(verdict.device, allowed))
        return verdict
    if last.text:
        return failing(draft, verdict, last)
    draft.wakes.append(last.next_try)
    return verdict
