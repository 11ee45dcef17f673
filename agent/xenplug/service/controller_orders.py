"""A person's orders about whole host controllers: detach one for good, and release it again. Used by service/api."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from xenplug.adapters.varlink import Refused
from xenplug.core.ledger import ledger as ledger_rules
from xenplug.core.ledger.pci import PciLedger, StayOrder, holder
from xenplug.core.ledger.troubles import TroubleKey
from xenplug.core.model import PCIBACK, Bdf
from xenplug.core.planning.steps import State, Verdict
from xenplug.core.policy.patterns import BdfPattern
from xenplug.core.reporting import explain
from xenplug.engine.reconciler import Reconciler

CONTROLLER_TIMEOUT = 60.0
"""Seconds that detach waits for the result. A guest has ten seconds to agree; then the controller is forced off it."""


def bdf_of(text: str) -> Bdf | None:
    """The controller that a command's DEVICE names; None if it names something else."""
    try:
        return Bdf(BdfPattern.parse(text).bdf)
    except ValueError:
        return None


def refuse_passed(verdict: Verdict) -> None:
    """Raise Refused for a device that left with its controller: it cannot be attached or detached alone."""
    if verdict.state is State.PCI:
        raise Refused("pci", f"{explain.device_name(verdict.device)}: {explain.reason(verdict)}")


class Controllers:
    """The orders."""

    def __init__(self, agent: Reconciler) -> None:
        self._agent = agent

    def passed(self) -> dict[Bdf, float]:
        """The controllers that the agent passed to guests, and since when (time of day)."""
        clock = self._agent.context.clock
        entries = self._agent.ledger.pci.passed.items()
        return {bdf: clock.wall() - clock.now() + entry.since for bdf, entry in entries}

    async def detach(self, bdf: Bdf) -> str:
        """Detach the controller from its guest; it stays with the host until it is released."""
        self._known(bdf)
        self._refuse_foreign(bdf)
        self._set_stay_order(bdf, True)
        try:
            async with asyncio.timeout(CONTROLLER_TIMEOUT):
                await self._agent.next_round_after_now()
                while bdf in self._agent.ledger.pci.passed:
                    await self._agent.next_round()
        except TimeoutError:
            trouble = self._agent.ledger.troubles.get(TroubleKey.return_pci(bdf))
            detail = f": {trouble.text}" if trouble else ""
            raise Refused("timeout", f"controller {bdf}: not back after {CONTROLLER_TIMEOUT:.0f} s{detail}") from None
        return f"controller {bdf} stays with the host until `xenplug release {bdf}`"

    async def release(self, bdf: Bdf) -> str:
        """End the order: the rules decide again."""
        self._known(bdf)
        self._set_stay_order(bdf, False)
        await self._agent.next_round_after_now()
        return f"controller {bdf}: the rules decide again"

    def _known(self, bdf: Bdf) -> None:
        known = [controller.bdf for controller in self._agent.view.snapshot.controllers]
        if bdf not in known:
            text = f"{bdf} is not a USB host controller of this machine; it has {', '.join(known) or 'none'}"
            raise Refused("no_device", text)

    def _refuse_foreign(self, bdf: Bdf) -> None:
        """Raise Refused for a controller that someone else passed through: in a guest's config, with xl, or at boot."""
        if bdf in self._agent.ledger.pci.passed:
            return
        has = holder(self._agent.view.snapshot, bdf)
        driver = next(c.driver for c in self._agent.view.snapshot.controllers if c.bdf == bdf)
        if has:
            text = f"controller {bdf} was attached to {has.name} by someone else; `xl pci-detach {has.name} {bdf}`"
            raise Refused("foreign", text)
        if driver in (None, PCIBACK):
            text = f"controller {bdf} was taken from dom0 by someone else; `xl pci-assignable-remove -r {bdf}`"
            raise Refused("foreign", text)

    def _set_stay_order(self, bdf: Bdf, order: bool) -> None:
        def change(ledger: ledger_rules.Ledger) -> ledger_rules.Ledger:
            pci: PciLedger = ledger.pci
            kept = {other: known for other, known in pci.stay_orders.items() if other != bdf}
            freed = replace(ledger, pci=replace(pci, stay_orders=kept | ({bdf: StayOrder()} if order else {})))
            return ledger_rules.clear_troubles(freed, lambda key: key.bdf == bdf)

        self._agent.apply_order(change)
