"""Carries out the steps on whole host controllers: note the intent, check the facts again, call xl, read sysfs and
xenstore back, note the result.

A failure is noted in the ledger, and the next plan takes the controller back. Nothing is rolled back here, so a crash
in the middle of a step has the same outcome as a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from xenplug.adapters.xl import XlOutcome
from xenplug.core.ledger import ledger as ledger_rules
from xenplug.core.ledger.pci import PassedController, PciIntent, with_passed
from xenplug.core.ledger.troubles import Backoff, TroubleKey
from xenplug.core.model import PCIBACK, Bdf, Device
from xenplug.core.planning.pci_plan import PCI_BACKOFF, RETURN_BACKOFF
from xenplug.core.planning.pci_preflight import HAS_PCIBACK
from xenplug.core.planning.pci_steps import AskXl, MakeAssignable, PciAttach, PciDetach, PciStep, ReturnToDom0
from xenplug.core.planning.steps import Cause
from xenplug.engine.context import EngineContext, LedgerWriter

NOT_WITH_PCIBACK = "xl reported success, but pciback is not bound to the controller"
NOT_WITH_GUEST = "xl reported success, but the guest does not have the controller"


class PciExecutor:
    """Carries out steps on controllers. `protected` returns why a device must stay, asked just before the step."""

    def __init__(
        self,
        context: EngineContext,
        writer: LedgerWriter,
        protected: Callable[[Device], Cause | None],
    ) -> None:
        self.context, self.writer = context, writer
        self._protected = protected

    async def do(self, step: PciStep) -> None:
        """Do one step."""
        match step:
            case AskXl():
                await self._ask(step)
            case MakeAssignable():
                await self._make_assignable(step)
            case PciAttach():
                await self._attach(step)
            case PciDetach():
                await self._detach(step)
            case ReturnToDom0():
                await self._return(step)

    async def _ask(self, step: AskXl) -> None:
        info = await self.context.xl.info()
        if isinstance(info, XlOutcome):
            self._failed(TroubleKey.pass_pci(step.bdf, step.domid), info, PCI_BACKOFF)
            return
        caps = set(info.get("virt_caps", "").split())
        caps |= {HAS_PCIBACK} if await self.context.xl.has_pciback() else set()
        passthrough = await self.context.xl.passthrough(step.domid)
        pci = self.writer.ledger.pci
        known = replace(pci, caps=frozenset(caps), open={**pci.open, step.domid: passthrough})
        self.writer.set(replace(self.writer.ledger, pci=known))

    async def _make_assignable(self, step: MakeAssignable) -> None:
        if not self._is_as_planned(step) or not self.context.mirror.alive(step.domid, step.guest):
            return
        self._note(step.bdf, replace(step.passed, intent=PciIntent.MAKE_ASSIGNABLE))
        async with self.context.domain_locks[0]:
            # The wait for the lock may have been long, and a stick on the controller may have been mounted since. #
            # Devices that leave with it do not count as dom0's any more: of two keyboards on it, each is the last.
            if not self._is_as_planned(step):
                self._note(step.bdf, None)
                return
            outcome = await self.context.xl.pci_assignable_add(step.bdf)
        seized = self._driver(step.bdf) == PCIBACK
        returned = self._driver(step.bdf) == step.passed.driver
        self._note(step.bdf, None if returned else step.passed)
        if not (seized and outcome.ok):
            # Without an IOMMU xl reports a failure and still leaves it with pciback (lab 10): the plan returns it.
            failure = XlOutcome(False, outcome.cause, outcome.text or NOT_WITH_PCIBACK)
            self._failed(TroubleKey.pass_pci(step.bdf, step.domid), failure, PCI_BACKOFF)

    def _is_as_planned(self, step: MakeAssignable) -> bool:
        """Whether the same devices are on it as in the preflight, none is protected by now, and none is on a guest
        port.
        """
        here = [d for d in self.context.bus.devices().values() if d.controller == step.bdf]
        planned = {device.key for device in step.passed.devices}
        if {device.key for device in here} != planned or self._driver(step.bdf) != step.passed.driver:
            return False
        # That a device is a hub is no protection here: hubs go with their controller. Any other reason still is.
        kept = any(self._protected(replace(device, hub=False)) for device in here)
        return not kept and not any(self.context.mirror.occupied(device.port) for device in here)

    async def _attach(self, step: PciAttach) -> None:
        await self.context.read_back(step.domid)
        passed = self.writer.ledger.pci.passed.get(step.bdf)
        if passed is None or self._has(step) or not self.context.mirror.alive(step.domid, step.guest):
            return
        self._note(step.bdf, replace(passed, intent=PciIntent.ATTACH))
        async with self.context.domain_locks[step.domid]:
            outcome = await self.context.xl.pci_attach(step.domid, step.bdf)
        await self.context.read_back(step.domid)
        key = TroubleKey.pass_pci(step.bdf, step.domid)
        if self._has(step):
            self._note(step.bdf, replace(passed, intent=None, domid=step.domid))
            self.writer.set(ledger_rules.clear_trouble(self.writer.ledger, key))
            return
        self._note(step.bdf, replace(passed, intent=None, domid=None))
        if self.context.mirror.alive(step.domid, step.guest):
            failure = XlOutcome(False, outcome.cause, outcome.text or NOT_WITH_GUEST)
            self._failed(key, failure, PCI_BACKOFF)

    async def _detach(self, step: PciDetach) -> None:
        passed = self.writer.ledger.pci.passed.get(step.bdf)
        if passed is None or not self._has(step):
            return
        self._note(step.bdf, replace(passed, intent=PciIntent.DETACH))
        async with self.context.domain_locks[step.domid]:
            outcome = await self.context.xl.pci_detach(step.domid, step.bdf, step.force)
        await self.context.read_back(step.domid)
        has = self._has(step)
        self._note(step.bdf, replace(passed, intent=None, domid=step.domid if has else None))
        self._note_return(step.bdf, outcome, done=not has)

    async def _return(self, step: ReturnToDom0) -> None:
        passed = self.writer.ledger.pci.passed.get(step.bdf)
        if passed is None:
            return
        self._note(step.bdf, replace(passed, intent=PciIntent.RETURN))
        outcome = XlOutcome(True)
        if self._driver(step.bdf) == PCIBACK:
            async with self.context.domain_locks[0]:
                outcome = await self.context.xl.pci_assignable_remove(step.bdf)
        if self._driver(step.bdf) in (None, PCIBACK):
            await self.context.bus.rebind(step.bdf, step.driver)
        returned = self._driver(step.bdf) not in (None, PCIBACK)
        self._note(step.bdf, None if returned else replace(passed, intent=None))
        self._note_return(step.bdf, outcome, done=returned)

    def _driver(self, bdf: Bdf) -> str | None:
        return next((c.driver for c in self.context.bus.controllers() if c.bdf == bdf), None)

    def _has(self, step: PciAttach | PciDetach) -> bool:
        seen = self.context.guest(step.domid, step.guest)
        return seen is not None and step.bdf in seen.pci

    def _note(self, bdf: Bdf, passed: PassedController | None) -> None:
        self.writer.set(replace(self.writer.ledger, pci=with_passed(self.writer.ledger.pci, bdf, passed)))

    def _note_return(self, bdf: Bdf, outcome: XlOutcome, *, done: bool) -> None:
        """Note the result of a step that returns the controller to dom0."""
        key = TroubleKey.return_pci(bdf)
        if done:
            self.writer.set(ledger_rules.clear_trouble(self.writer.ledger, key))
        else:
            self._failed(key, outcome, RETURN_BACKOFF)

    def _failed(self, key: TroubleKey, outcome: XlOutcome, backoff: Backoff) -> None:
        why = (Cause.REFUSED, outcome.text or str(outcome.cause))
        self.writer.set(ledger_rules.fail(self.writer.ledger, key, why, self.context.clock.now(), backoff))
