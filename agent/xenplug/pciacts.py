"""The acts on whole host controllers, done: intent noted, looked over once more, xl called, sysfs and xenstore read
back, the result noted.

What fails is noted in the ledger, and the next plan takes the controller back: nothing is rolled back in here, so that
a crash in the middle ends the same way as a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from xenplug.core.book import ledger as book_rules
from xenplug.core.book.ledger import Backoff, pci_subject
from xenplug.core.model import PCIBACK, Bdf, Device
from xenplug.core.pci.book import Given, note
from xenplug.core.pci.plan import PCI_BACKOFF, RETURN_BACKOFF
from xenplug.core.pci.preflight import HAS_PCIBACK
from xenplug.core.pci.steps import AskXl, Give, PciStep, Return, Seize, TakeBack
from xenplug.core.planning.steps import Cause
from xenplug.outside import Book, Outside, Turns
from xenplug.shell.xl import Outcome


class PciActs:
    """Does steps on controllers. `protected` tells at the moment of the act whether a device must stay."""

    def __init__(self, outside: Outside, book: Book, protected: Callable[[Device], Cause | None], turns: Turns) -> None:
        self.out, self.book = outside, book
        self._protected = protected
        self._turns = turns

    async def do(self, step: PciStep) -> None:
        """Do one step."""
        match step:
            case AskXl():
                await self._ask(step)
            case Seize():
                await self._seize(step)
            case Give():
                await self._give(step)
            case TakeBack():
                await self._take_back(step)
            case Return():
                await self._return(step)

    async def _ask(self, step: AskXl) -> None:
        info = await self.out.xl.info()
        if isinstance(info, Outcome):
            self._failed(pci_subject(step.bdf, step.domid), info, PCI_BACKOFF)
            return
        caps = set(info.get("virt_caps", "").split())
        caps |= {HAS_PCIBACK} if await self.out.xl.has_pciback() else set()
        told = await self.out.xl.passthrough(step.domid)
        pci = self.book.ledger.pci
        known = replace(pci, caps=frozenset(caps), open={**pci.open, step.domid: told})
        self.book.set(replace(self.book.ledger, pci=known))

    async def _seize(self, step: Seize) -> None:
        if not self._is_as_planned(step) or not self.out.mirror.alive(step.domid, step.guest):
            return
        self._note(step.bdf, replace(step.given, intent="seize"))
        async with self._turns[0]:
            # The turn may have been long in coming, and somebody may have mounted a stick that hangs on it meanwhile.
            # What leaves with it does not count as dom0's any more by now: of two keyboards on it, both are the last.
            if not self._is_as_planned(step):
                self._note(step.bdf, None)
                return
            outcome = await self.out.xl.pci_assignable_add(step.bdf)
        seized = self._driver(step.bdf) == PCIBACK
        home = self._driver(step.bdf) == step.given.driver
        self._note(step.bdf, None if home else step.given)
        if not (seized and outcome.ok):
            # Without an IOMMU xl says no and leaves it with pciback all the same (lab 10): the plan brings it back.
            said = Outcome(False, outcome.cause, outcome.text or "xl said yes, and pciback has it not")
            self._failed(pci_subject(step.bdf, step.domid), said, PCI_BACKOFF)

    def _is_as_planned(self, step: Seize) -> bool:
        """The same devices are on it as when it was looked over, none protected by now, none on a guest port."""
        here = [d for d in self.out.bus.devices().values() if d.controller == step.bdf]
        planned = {device.place for device in step.given.devices}
        if {device.place for device in here} != planned or self._driver(step.bdf) != step.given.driver:
            return False
        # A hub goes along, for all that it is one; what dom0 uses does not, for all that it says it is one.
        kept = any(self._protected(replace(device, hub=False)) for device in here)
        return not kept and not any(self.out.mirror.occupied(device.port) for device in here)

    async def _give(self, step: Give) -> None:
        await self.out.read_back(step.domid)
        given = self.book.ledger.pci.given.get(step.bdf)
        if given is None or self._has(step) or not self.out.mirror.alive(step.domid, step.guest):
            return
        self._note(step.bdf, replace(given, intent="give"))
        async with self._turns[step.domid]:
            outcome = await self.out.xl.pci_attach(step.domid, step.bdf)
        await self.out.read_back(step.domid)
        subject = pci_subject(step.bdf, step.domid)
        if self._has(step):
            self._note(step.bdf, replace(given, intent=None, domid=step.domid))
            self.book.set(book_rules.clear_troubles(self.book.ledger, lambda key: key == subject))
            return
        self._note(step.bdf, replace(given, intent=None, domid=None))
        if self.out.mirror.alive(step.domid, step.guest):
            said = Outcome(False, outcome.cause, outcome.text or "xl said yes, and the guest has it not")
            self._failed(subject, said, PCI_BACKOFF)

    async def _take_back(self, step: TakeBack) -> None:
        given = self.book.ledger.pci.given.get(step.bdf)
        if given is None or not self._has(step):
            return
        self._note(step.bdf, replace(given, intent="take back"))
        async with self._turns[step.domid]:
            outcome = await self.out.xl.pci_detach(step.domid, step.bdf, step.force)
        await self.out.read_back(step.domid)
        has = self._has(step)
        self._note(step.bdf, replace(given, intent=None, domid=step.domid if has else None))
        self._ended(step.bdf, outcome, done=not has)

    async def _return(self, step: Return) -> None:
        given = self.book.ledger.pci.given.get(step.bdf)
        if given is None:
            return
        self._note(step.bdf, replace(given, intent="return"))
        outcome = Outcome(True)
        if self._driver(step.bdf) == PCIBACK:
            async with self._turns[0]:
                outcome = await self.out.xl.pci_assignable_remove(step.bdf)
        if self._driver(step.bdf) in (None, PCIBACK):
            await self.out.bus.rebind(step.bdf, step.driver)
        home = self._driver(step.bdf) not in (None, PCIBACK)
        self._note(step.bdf, None if home else replace(given, intent=None))
        self._ended(step.bdf, outcome, done=home)

    def _driver(self, bdf: Bdf) -> str | None:
        return next((c.driver for c in self.out.bus.controllers() if c.bdf == bdf), None)

    def _has(self, step: Give | TakeBack) -> bool:
        seen = self.out.guest(step.domid, step.guest)
        return seen is not None and step.bdf in seen.pci

    def _note(self, bdf: Bdf, given: Given | None) -> None:
        self.book.set(replace(self.book.ledger, pci=note(self.book.ledger.pci, bdf, given)))

    def _ended(self, bdf: Bdf, outcome: Outcome, *, done: bool) -> None:
        """A step of the way back."""
        subject = pci_subject(bdf, 0)
        if done:
            self.book.set(book_rules.clear_troubles(self.book.ledger, lambda key: key == subject))
        else:
            self._failed(subject, outcome, RETURN_BACKOFF)

    def _failed(self, subject: str, outcome: Outcome, backoff: Backoff) -> None:
        why = (Cause.REFUSED, outcome.text or str(outcome.cause))
        self.book.set(book_rules.fail(self.book.ledger, subject, why, self.out.clock.now(), backoff))
