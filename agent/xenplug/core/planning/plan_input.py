"""What a plan is made from: one value, given to core/planning/plan by the reconciler and read by all planning modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.troubles import Trouble, TroubleKey
from xenplug.core.matching.match import Decision
from xenplug.core.model import BusId, Device, Guest, Snapshot
from xenplug.core.planning.pci_preflight import PciOutlook
from xenplug.core.planning.steps import Cause
from xenplug.core.policy.rules import Policy


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

    def trouble_with(self, device: Device, guest: Guest) -> Trouble | None:
        """The trouble of a device that this guest failed to take. Another device's stale port is not the guest's fault,
        unless it never goes away.
        """
        trouble = self.ledger.troubles.get(TroubleKey.attach(device.key, guest.domid))
        return trouble if trouble and (trouble.given_up or trouble.cause != Cause.STALE_PORT) else None
