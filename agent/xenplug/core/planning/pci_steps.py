"""The acts on whole host controllers: there (AskXl, Seize, Give) and back (TakeBack, Return), one at a time.

Each is planned from where the controller is seen to be, so that whoever comes after a crash goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from xenplug.core.ledger.pci import PassedController
from xenplug.core.model import Bdf


@dataclass(frozen=True, slots=True)
class AskXl:
    """Ask xl whether this host and this guest can do it at all, before anything is touched."""

    guest: str
    domid: int
    bdf: Bdf
    plan: tuple[str, ...] = ()
    """The preflight so far, for people."""


@dataclass(frozen=True, slots=True)
class MakeAssignable:
    """Take the controller from dom0: pciback binds to it, and all its devices are gone from dom0."""

    guest: str
    domid: int
    bdf: Bdf
    passed: PassedController
    plan: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PciAttach:
    """Give a seized controller to its guest."""

    guest: str
    domid: int
    bdf: Bdf


@dataclass(frozen=True, slots=True)
class PciDetach:
    """Take it off the guest again. `force`: without waiting for the guest's consent, which it did not give."""

    guest: str
    domid: int
    bdf: Bdf
    force: bool = False


@dataclass(frozen=True, slots=True)
class ReturnToDom0:
    """Give it back to dom0's driver; its devices appear anew."""

    guest: str
    bdf: Bdf
    driver: str


PciStep = AskXl | MakeAssignable | PciAttach | PciDetach | ReturnToDom0


def pci_step_words(step: PciStep) -> str:
    """What a step does, for --dry-run, explain and the journal."""
    match step:
        case AskXl():
            words = f"ask xl whether controller {step.bdf} can go to {step.guest}"
            return words + (f"; if so, {'; '.join(step.plan)}" if step.plan else "")
        case MakeAssignable():
            return f"take controller {step.bdf} from dom0 for {step.guest}: {'; '.join(step.plan)}"
        case PciAttach():
            return f"give controller {step.bdf} to {step.guest}"
        case PciDetach():
            return f"take controller {step.bdf} off {step.guest}{' by force' if step.force else ''}"
        case ReturnToDom0():
            return f"give controller {step.bdf} back to dom0 ({step.driver})"
