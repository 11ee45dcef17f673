"""A person's orders about whole host controllers: back to the host by hand, and let go again. For service."""

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
"""Seconds for which detach waits: a guest is given ten to agree, and is not asked a second time."""


def named(text: str) -> Bdf | None:
    """The controller that a command's DEVICE names; None if it names something else."""
    try:
        return Bdf(BdfPattern.parse(text).bdf)
    except ValueError:
        return None


def refuse_away(verdict: Verdict) -> None:
    """A device that went with its controller cannot be had alone."""
    if verdict.state is State.PCI:
        raise Refused("pci", f"{explain.device_name(verdict.device)}: {explain.reason(verdict)}")


class Controllers:
    """The orders."""

    def __init__(self, agent: Reconciler) -> None:
        self._agent = agent

    def passed(self) -> dict[Bdf, float]:
        """The controllers the agent gave away, and since when (time of day)."""
        clock = self._agent.context.clock
        entries = self._agent.ledger.pci.passed.items()
        return {bdf: clock.wall() - clock.now() + entry.since for bdf, entry in entries}

    async def detach(self, bdf: Bdf) -> str:
        """Take the controller off its guest; it stays with the host until it is released."""
        self._known(bdf)
        self._mine(bdf)
        self._keep(bdf, True)
        try:
            async with asyncio.timeout(CONTROLLER_TIMEOUT):
                await self._agent.next_round_after_now()
                while bdf in self._agent.ledger.pci.passed:
                    await self._agent.next_round()
        except TimeoutError:
            trouble = self._agent.ledger.troubles.get(TroubleKey.return_pci(bdf))
            said = f": {trouble.text}" if trouble else ""
            raise Refused("timeout", f"controller {bdf}: not back after {CONTROLLER_TIMEOUT:.0f} s{said}") from None
        return f"controller {bdf} is the host's, until `xenplug release {bdf}`"

    async def release(self, bdf: Bdf) -> str:
        """Let the rules decide over it again."""
        self._known(bdf)
        self._keep(bdf, False)
        await self._agent.next_round_after_now()
        return f"controller {bdf}: the rules decide again"

    def _known(self, bdf: Bdf) -> None:
        known = [controller.bdf for controller in self._agent.view.snapshot.controllers]
        if bdf not in known:
            text = f"{bdf} is no USB host controller of this machine; there are {', '.join(known) or 'none'}"
            raise Refused("no_device", text)

    def _mine(self, bdf: Bdf) -> None:
        """Not what someone else gave away: in a guest's config, with xl, or to pciback at boot."""
        if bdf in self._agent.ledger.pci.passed:
            return
        has = holder(self._agent.view.snapshot, bdf)
        driver = next(c.driver for c in self._agent.view.snapshot.controllers if c.bdf == bdf)
        if has:
            told = f"controller {bdf} was given to {has.name} by someone else; `xl pci-detach {has.name} {bdf}`"
            raise Refused("foreign", told)
        if driver in (None, PCIBACK):
            told = f"controller {bdf} was taken from dom0 by someone else; `xl pci-assignable-remove -r {bdf}`"
            raise Refused("foreign", told)

    def _keep(self, bdf: Bdf, order: bool) -> None:
        def change(ledger: ledger_rules.Ledger) -> ledger_rules.Ledger:
            pci: PciLedger = ledger.pci
            kept = {other: known for other, known in pci.stay_orders.items() if other != bdf}
            freed = replace(ledger, pci=replace(pci, stay_orders=kept | ({bdf: StayOrder()} if order else {})))
            return ledger_rules.clear_troubles(freed, lambda key: key.bdf == bdf)

        self._agent.apply_order(change)
