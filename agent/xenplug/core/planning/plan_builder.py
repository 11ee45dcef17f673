"""The plan while it is made. core/planning/plan visits every device; every planning module adds its steps here.

The methods are the changes that several modules make, each with its verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from xenplug.core.ledger.records import Entry, set_up_in
from xenplug.core.ledger.troubles import Trouble, TroubleKey
from xenplug.core.model import BusId, Claim, ControllerType, GuestPort, Snapshot
from xenplug.core.planning.pci_preflight import Preflight
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.steps import Authorize, Cause, Detach, State, Step, Verdict

STATES_EVERY = 2.0
"""Minimum seconds between two calls of `xl list` for guests that may be paused or suspended: no event reports the end
of that."""
POLL_INTERVAL = 0.25
"""Seconds until the next round while the agent waits for something that no watch or uevent reports: libxl's userdata
file, a node opened by a device model."""


def being_set_up(snapshot: Snapshot, guest_port: GuestPort, entry: Entry) -> float:
    """Seconds until the guest has set the device up: before, a detach could end its device model (qusb)."""
    guest = next((g for g in snapshot.guests.values() if g.domid == guest_port.domid), None)
    if guest is None or not guest.model_lives:
        return 0.0
    qusb = {c.id for c in guest.controllers if c.type is ControllerType.QUSB}
    return set_up_in(entry) if guest_port.controller in qusb else 0.0


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device on a guest port."""

    guest_port: GuestPort
    entry: Entry


@dataclass(slots=True)
class PlanBuilder:
    """The steps, the verdicts and the times of the next rounds, so far."""

    inputs: PlanInput
    at: dict[BusId, Attachment]
    """Devices on guest ports, by port."""
    steps: list[Step] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    allotted: list[GuestPort] = field(default_factory=list)
    """Guest ports that steps of this plan will fill."""
    building: set[int] = field(default_factory=set)
    """Domains that get a new controller in this plan."""
    wakes: list[float] = field(default_factory=list)
    preflights: list[Preflight] = field(default_factory=list)

    def wake_in(self, seconds: float) -> None:
        """Run the next round after this many seconds at the latest."""
        self.wakes.append(self.inputs.now + max(seconds, 0.0))

    def attached_verdict(self, verdict: Verdict, at: Attachment, state: State, cause: Cause) -> Verdict:
        """The verdict of a device that is with a guest now."""
        used = self.inputs.snapshot.claims.get(verdict.device.port, Claim()).used
        return replace(verdict, state=state, cause=cause, guest=at.entry.guest, guest_port=at.guest_port, used=used)

    def failing_verdict(self, verdict: Verdict, trouble: Trouble) -> Verdict:
        """The verdict of a device whose step failed and will be tried again."""
        self.wakes.append(trouble.next_try)
        cause, count, text = Cause(trouble.cause), trouble.count, trouble.text
        return replace(verdict, state=State.FAILING, cause=cause, attempts=count, next_try=trouble.next_try, text=text)

    def plan_detach(self, verdict: Verdict, at: Attachment, trouble: Cause | None = None) -> Verdict:
        """Plan a detach, unless the guest is still setting the device up, or the last one failed and it is too early
        for the next attempt. Protection does not wait for the guest.
        """
        if (
            trouble is None
            and verdict.state is not State.PROTECTED
            and (left := being_set_up(self.inputs.snapshot, at.guest_port, at.entry))
        ):
            self.wake_in(max(left, POLL_INTERVAL))  # while the guest is paused, `left` stays as it is
            return self.attached_verdict(verdict, at, State.ATTACHED, Cause.BEING_SET_UP)
        leaving = self.attached_verdict(verdict, at, State.ATTACHING, Cause.MOVING)
        failed = self.inputs.ledger.troubles.get(TroubleKey.detach(verdict.device.key, at.guest_port.domid))
        if failed and failed.next_try > self.inputs.now:
            return self.failing_verdict(leaving, failed)
        step = Detach(at.entry.guest, at.guest_port, verdict.device, trouble, self.inputs.driverless)
        self.steps.append(step)
        return leaving

    def plan_authorize(self, verdict: Verdict, allowed: bool) -> Verdict:
        """Plan to write `authorized`, unless it was just written (sysfs will show it soon) or has just failed."""
        last = self.inputs.ledger.troubles.get(TroubleKey.authorize(verdict.device.key))
        if last is None or last.next_try <= self.inputs.now:
            self.steps.append(Authorize(verdict.device, allowed))
            return verdict
        if last.text:
            return self.failing_verdict(verdict, last)
        self.wakes.append(last.next_try)
        return verdict
