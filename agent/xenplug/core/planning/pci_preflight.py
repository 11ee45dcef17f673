"""The preflight of a whole host controller: every device on it, what would happen to it, and what prevents the move.

Pure. core/planning/pci_plan runs it before any step is planned, so that a move that cannot work is reported before
anything changes. Protected devices always prevent it, others depending on the rule's `siblings`. Devices that share the
controller's slot or a bridge are found in sysfs. This is a heuristic: under Xen dom0's kernel has no IOMMU groups
(xen-facts 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.pci import PciLedger
from xenplug.core.ledger.records import OrderAction, Override
from xenplug.core.matching.match import Decision
from xenplug.core.model import Bdf, BusId, Device, Guest, GuestType, PciController, PciFunction
from xenplug.core.planning.steps import Cause, State, Verdict
from xenplug.core.policy.rules import Siblings

USB = "0c03"
"""PCI class and subclass of USB controllers."""
XHCI = "0c0330"
DIRECTIO = {GuestType.PV: "pv_directio", GuestType.HVM: "hvm_directio"}
"""Words of `virt_caps` (xl_info.c) by guest type: Xen can assign PCI devices to such guests, with an IOMMU."""
HAS_PCIBACK = "pciback"
"""Stored together with `virt_caps`: dom0 has the driver that holds PCI devices for guests."""
OTHER_CONTROLLER = "plug it into another controller"


@dataclass(frozen=True, slots=True)
class PciOutlook:
    """What a plan must know of controllers besides the snapshot; computed by core/planning/protection from the
    policy.
    """

    protected: Mapping[BusId, Cause] = field(default_factory=lambda: MappingProxyType({}))
    """Devices that must stay if all devices of their controller were to leave, and why. Being a hub is no reason."""
    decisions: Mapping[Bdf, Mapping[BusId, Decision]] = field(default_factory=lambda: MappingProxyType({}))
    """The policy's current decisions on devices that left with a controller."""
    barred: frozenset[Bdf] = frozenset()
    """Passed controllers with a device on them that the policy protects by now."""


@dataclass(frozen=True, slots=True)
class HandoverRequest:
    """The request to pass a device's whole controller to a guest."""

    device: Device
    guest: Guest
    siblings: Siblings
    condition: str | None = None
    """The condition of its rule's fallback that is true; None: the rule says via: pci."""


@dataclass(frozen=True, slots=True)
class Sibling:
    """One device of the controller and what would happen to it."""

    device: Device
    stays: str | None
    """Why it prevents the move; None: it goes along."""
    words: str

    @property
    def line(self) -> str:
        """One line of the preflight list."""
        return f"{self.device.port} {self.device.tag} {self.words}"


@dataclass(frozen=True, slots=True)
class Preflight:
    """The effects of a move of a controller to a guest. `cause` None: nothing known prevents it."""

    request: HandoverRequest
    controller: PciController
    siblings: tuple[Sibling, ...]
    notes: tuple[str, ...]
    cause: Cause | None = None
    text: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """The list that --dry-run and explain show."""
        return (*(sibling.line for sibling in self.siblings), *self.notes)

    def view(self) -> dict[str, Any]:
        """The list in JSON."""
        return {
            "controller": self.controller.bdf,
            "guest": self.request.guest.name,
            "asked_by": self.request.device.port,
            "fallback": self.request.condition,
            "obstacle": None if self.cause in (None, Cause.ASKING_XL) else str(self.cause),
            "devices": [
                {"port": m.device.port, "device": m.device.tag, "goes": m.stays is None, "words": m.words}
                for m in self.siblings
            ],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class PreflightInput:
    """The part of the unfinished plan that the preflight needs."""

    ledger: Ledger
    pci_outlook: PciOutlook
    foreign: frozenset[BusId]
    """Devices that someone else attached to a guest."""


def run_preflight(
    inputs: PreflightInput, request: HandoverRequest, controller: PciController, verdicts: Iterable[Verdict]
) -> Preflight:
    """The preflight of one controller. `verdicts`: those of the devices on it."""
    siblings = tuple(_sibling(inputs, request, verdict) for verdict in verdicts)
    cause, text = _obstacle(inputs.ledger.pci, request, controller, siblings)
    return Preflight(request, controller, siblings, tuple(_notes(controller)), cause, text)


def _sibling(inputs: PreflightInput, request: HandoverRequest, verdict: Verdict) -> Sibling:
    device = verdict.device
    if why := _in_the_way(inputs, request, verdict):
        return Sibling(device, why, f"prevents this: {why}")
    return Sibling(device, None, f"asks for {request.guest.name}" if device is request.device else "goes along")


def _in_the_way(inputs: PreflightInput, request: HandoverRequest, verdict: Verdict) -> str | None:
    """Why the device must not go along with the controller; None: it may."""
    device = verdict.device
    if cause := inputs.pci_outlook.protected.get(device.port):
        return f"it is protected ({cause}); {OTHER_CONTROLLER}"
    if device.hub:
        return None
    if device.port in inputs.foreign:
        return f"someone else attached it to {verdict.guest}; `xl usbdev-detach` it, or {OTHER_CONTROLLER}"
    if device.port == request.device.port:
        return None
    if order := inputs.ledger.orders.overrides.get(device.key):
        return _ordered(order, request.guest.name)
    if verdict.state is State.BLOCKED and verdict.decision.rule:
        return f"rule {verdict.decision.rule.name!r} blocks it; {OTHER_CONTROLLER}"
    if request.siblings == Siblings.TAKE or (
        request.siblings == Siblings.SAME_GUEST and _bound_for(verdict, request.guest.name)
    ):
        return None
    return f"{_owner(verdict)}, and the rule says siblings: {request.siblings}; {OTHER_CONTROLLER}, or change the rule"


def _ordered(order: Override, guest: str) -> str | None:
    if order.action is OrderAction.ATTACH and order.guest == guest:
        return None
    words = f"attached to {order.guest}" if order.action is OrderAction.ATTACH else "detached"
    return f"it was {words} manually; `xenplug release` it, or {OTHER_CONTROLLER}"


def _bound_for(verdict: Verdict, guest: str) -> bool:
    return guest in (verdict.guest, verdict.target) or verdict.wanted[:1] == (guest,)


def _owner(verdict: Verdict) -> str:
    guest = verdict.guest or verdict.target or next(iter(verdict.wanted), None)
    return f"it belongs to {guest}" if guest else "it belongs to the host"


def _obstacle(
    pci: PciLedger, request: HandoverRequest, controller: PciController, siblings: tuple[Sibling, ...]
) -> tuple[Cause | None, str]:
    """The first reason that forbids the move. Reasons known without calling xl come first."""
    guest = request.guest
    if guest.type not in DIRECTIO:
        return Cause.UNFIT_GUEST, ""
    if blocking := [sibling for sibling in siblings if sibling.stays]:
        return Cause.SIBLING, "; ".join(sibling.line for sibling in blocking)
    if companions := _companions(controller):
        names = ", ".join(function.bdf for function in companions)
        return Cause.SIBLING, f"{names} serve the same sockets at lower speeds; list all of them in the guest's pci="
    if pci.caps is None or guest.domid not in pci.open:
        return Cause.ASKING_XL, ""
    if HAS_PCIBACK not in pci.caps:
        return Cause.NO_PCIBACK, ""
    if DIRECTIO[guest.type] not in pci.caps:
        return Cause.NO_IOMMU, ""
    return (Cause.NO_PASSTHROUGH if pci.open[guest.domid] is False else None), ""


def _companions(controller: PciController) -> list[PciFunction]:
    """The other USB controllers of the same sockets: before xHCI a socket had two in one slot, one for high speed, one
    for lower speeds (EHCI 1.0, 4.2).
    """
    siblings = [f for f in controller.slot if f.program.startswith(USB)]
    old = controller.program not in ("", XHCI)
    return [f for f in siblings if f.program != XHCI] if old else []


def _notes(controller: PciController) -> Iterable[str]:
    for function in controller.slot:
        yield f"{function.bdf} ({function.driver or 'no driver'}) is in the same slot and stays with dom0"
    for function in controller.bridge:
        yield f"{function.bdf} ({function.driver or 'no driver'}) is not isolated from it by the bridge above both"
    if controller.resettable is False:
        yield "the kernel cannot reset it alone: the next guest may find data that the last one left in it"
