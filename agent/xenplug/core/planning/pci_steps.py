"""The steps on whole host controllers: to a guest (AskXl, MakeAssignable, PciAttach) and back (PciDetach,
ReturnToDom0).

Each is planned from where the controller is now, so an agent that starts after a crash continues from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from xenplug.core.ledger.pci import PassedController
from xenplug.core.model import Bdf


@dataclass(frozen=True, slots=True)
class AskXl:
    """Ask xl whether this host and this guest support PCI passthrough, before anything changes."""

    guest: str
    domid: int
    bdf: Bdf
    plan: tuple[str, ...] = ()
    """The lines of the preflight so far."""


@dataclass(frozen=True, slots=True)
class MakeAssignable:
    """Take the controller from dom0: pciback binds to it, and all its devices disappear from dom0."""

    guest: str
    domid: int
    bdf: Bdf
    passed: PassedController
    plan: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PciAttach:
    """Attach an assignable controller to its guest."""

    guest: str
    domid: int
    bdf: Bdf


@dataclass(frozen=True, slots=True)
class PciDetach:
    """Detach the controller from the guest. `force`: without the guest's consent, after it did not consent in time."""

    guest: str
    domid: int
    bdf: Bdf
    force: bool = False


@dataclass(frozen=True, slots=True)
class ReturnToDom0:
    """Return the controller to dom0's driver; its devices appear in dom0 again."""

    guest: str
    bdf: Bdf
    driver: str


PciStep = AskXl | MakeAssignable | PciAttach | PciDetach | ReturnToDom0


def pci_step_words(step: PciStep) -> str:
    """What a step does, as a clause for --dry-run, explain and the log."""
    match step:
        case AskXl():
            words = f"ask xl whether controller {step.bdf} can go to {step.guest}"
            return words + (f"; if so, {'; '.join(step.plan)}" if step.plan else "")
        case MakeAssignable():
            return f"take controller {step.bdf} from dom0 for {step.guest}: {'; '.join(step.plan)}"
        case PciAttach():
            return f"attach controller {step.bdf} to {step.guest}"
        case PciDetach():
            return f"detach controller {step.bdf} from {step.guest}{' by force' if step.force else ''}"
        case ReturnToDom0():
            return f"return controller {step.bdf} to dom0 ({step.driver})"
