"""What a plan is made from, and the draft it is written on: the tools that all of core/planning/plan's rooms share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.records import Entry
from xenplug.core.ledger.troubles import Trouble, TroubleKey
from xenplug.core.matching.match import Decision
from xenplug.core.model import BusId, Claim, Device, Guest, GuestPort, Snapshot
from xenplug.core.planning.pci_preflight import PciOutlook, Preflight
from xenplug.core.planning.steps import Authorize, Cause, Detach, State, Step, Verdict
from xenplug.core.policy.rules import Policy

POLL_INTERVAL = 0.25
"""Seconds until the next look while something is awaited that no watch or uevent tells of: libxl's userdata file, a
node opened by a device model."""


@dataclass(frozen=True, slots=True)
class WaitTimes:
    """The waits that decide (settings; seconds)."""

    settle: float = 0.3
    delivery: float = 10.0
    reboot_grace: float = 5.0
    no_frontend: float = 120.0


@dataclass(frozen=True, slots=True)
class PlanInput:
    """All a plan is made from."""

    snapshot: Snapshot
    ledger: Ledger
    now: float
    decisions: Mapping[BusId, Decision]
    protected: Mapping[BusId, Cause]
    policy: Policy | None
    """None: it did not load. Then nothing is done but the clearing of stale ports."""
    times: WaitTimes = WaitTimes()
    pci_outlook: PciOutlook = field(default_factory=PciOutlook)
    driverless: bool = False
    """Dom0's drivers are kept off what is bound for guests (core/planning/driver_isolation)."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device on a guest port."""

    guest_port: GuestPort
    entry: Entry


@dataclass(slots=True)
class PlanBuilder:
    """The plan while it is being made."""

    inputs: PlanInput
    at: dict[BusId, Attachment]
    steps: list[Step] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    allotted: list[GuestPort] = field(default_factory=list)
    building: set[int] = field(default_factory=set)
    """Domains that get a new controller in this plan."""
    wakes: list[float] = field(default_factory=list)
    preflights: list[Preflight] = field(default_factory=list)

    def wake_in(self, seconds: float) -> None:
        self.wakes.append(self.inputs.now + max(seconds, 0.0))


def attached_verdict(verdict: Verdict, at: Attachment, inputs: PlanInput, state: State, cause: Cause) -> Verdict:
    """The verdict of a device that is with a guest now."""
    claim = inputs.snapshot.claims.get(verdict.device.port, Claim())
    return replace(verdict, state=state, cause=cause, guest=at.entry.guest, guest_port=at.guest_port, used=claim.used)


def failing_verdict(builder: PlanBuilder, verdict: Verdict, trouble: Trouble) -> Verdict:
    """The verdict of a device that an act failed for, and will be tried for again."""
    builder.wakes.append(trouble.next_try)
    next_try, count = trouble.next_try, trouble.count
    cause = Cause(trouble.cause)
    return replace(verdict, state=State.FAILING, cause=cause, attempts=count, next_try=next_try, text=trouble.text)


def plan_detach(builder: PlanBuilder, verdict: Verdict, at: Attachment, trouble: Cause | None = None) -> Verdict:
    """Plan a detach, unless the last one failed and it is not yet time to try again."""
    leaving = attached_verdict(verdict, at, builder.inputs, State.ATTACHING, Cause.MOVING)
    failed = builder.inputs.ledger.troubles.get(TroubleKey.detach(verdict.device.key, at.guest_port.domid))
    if failed and failed.next_try > builder.inputs.now:
        return failing_verdict(builder, leaving, failed)
    builder.steps.append(Detach(at.entry.guest, at.guest_port, verdict.device, trouble, builder.inputs.driverless))
    return leaving


def trouble_with(inputs: PlanInput, device: Device, guest: Guest) -> Trouble | None:
    """The trouble of a device that this guest failed to take. Another device's stale port is no fault of the guest's,
    unless it never goes away.
    """
    trouble = inputs.ledger.troubles.get(TroubleKey.attach(device.key, guest.domid))
    return trouble if trouble and (trouble.given_up or trouble.cause != Cause.STALE_PORT) else None


def plan_authorize(builder: PlanBuilder, verdict: Verdict, allowed: bool) -> Verdict:
    """Plan the write, unless one was just made: the facts follow it, or it failed and would fail again."""
    last = builder.inputs.ledger.troubles.get(TroubleKey.authorize(verdict.device.key))
    if last is None or last.next_try <= builder.inputs.now:
        builder.steps.append(Authorize(verdict.device, allowed))
        return verdict
    if last.text:
        return failing_verdict(builder, verdict, last)
    builder.wakes.append(last.next_try)
    return verdict
