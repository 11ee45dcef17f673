"""The input of a plan: one value, made by the reconciler and read by all planning modules."""

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
    """The waiting times that decisions depend on (settings; seconds)."""

    settle: float = 0.3
    delivery: float = 10.0
    reboot_grace: float = 5.0
    no_frontend: float = 120.0


@dataclass(frozen=True, slots=True)
class PlanInput:
    """Everything that a plan depends on."""

    snapshot: Snapshot
    ledger: Ledger
    now: float
    decisions: Mapping[BusId, Decision]
    protected: Mapping[BusId, Cause]
    policy: Policy | None
    """None: it did not load. Then only stale ports are cleared."""
    times: WaitTimes = WaitTimes()
    pci_outlook: PciOutlook = field(default_factory=PciOutlook)
    driverless: bool = False
    """dom0's drivers are kept off devices that go to guests (core/planning/driver_isolation)."""

    def trouble_with(self, device: Device, guest: Guest) -> Trouble | None:
        """The failures of this guest to take the device. Another device's stale port is not the guest's failure, unless
        it never goes away.
        """
        trouble = self.ledger.troubles.get(TroubleKey.attach(device.key, guest.domid))
        return trouble if trouble and (trouble.given_up or trouble.cause != Cause.STALE_PORT) else None
