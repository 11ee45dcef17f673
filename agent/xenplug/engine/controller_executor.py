"""Carries out the steps on guest controllers: create one, remove an empty one, create one that qemu lacks.

Like every step: check the facts again, call xl, read xenstore back, note the result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from xenplug.adapters.xl import XlCause, XlOutcome
from xenplug.core.ledger import ledger as ledger_rules
from xenplug.core.ledger.troubles import TroubleKey
from xenplug.core.model import ControllerType, GuestController, GuestPort
from xenplug.core.planning.steps import AddController, RemoveController, sizes
from xenplug.engine.context import EngineContext, LedgerWriter

log = logging.getLogger("xenplug")

QEMU_NAMES = {1: "piix3-usb-uhci", 2: "usb-ehci", 3: "nec-usb-xhci"}
"""qemu's name of a devicemodel controller, by version (libxl_usb.c: libxl__device_usbctrl_add_qmp)."""


class ControllerExecutor:
    """Carries out steps on guest controllers. `failed` notes a failure in the ledger."""

    def __init__(
        self,
        context: EngineContext,
        writer: LedgerWriter,
        failed: Callable[[TroubleKey, XlOutcome], None],
    ) -> None:
        self.context, self.writer = context, writer
        self._failed = failed

    async def do(self, step: AddController | RemoveController) -> None:
        """Do one step."""
        await (self._add(step) if isinstance(step, AddController) else self._remove(step))

    def _all(self, domid: int, name: str) -> tuple[GuestController, ...] | None:
        """The controllers the guest has now; None if it is gone."""
        seen = self.context.guest(domid, name)
        return seen.controllers if seen else None

    async def _add(self, step: AddController) -> None:
        # libxl finishes the creation of a guest a moment before the mirror has read all of its controllers.
        await self.context.read_back(step.domid)
        before = self._all(step.domid, step.guest)
        if before is None or sizes(before) != step.known:
            return
        spec, now = step.spec, self.context.clock.now()
        self.writer.set(ledger_rules.with_domain(self.writer.ledger, step.domid, last_made_at=now))
        async with self.context.domain_locks[step.domid]:
            outcome = await self.context.xl.usbctrl_attach(step.domid, spec.type, spec.version, spec.ports)
        await self.context.read_back(step.domid)
        new = frozenset(c.id for c in self._all(step.domid, step.guest) or ()) - {c.id for c in before}
        key = TroubleKey.add_controller(step.domid)
        if not new:
            failure = (
                XlOutcome(False, XlCause.REFUSED, "xl reported success, but created no controller")
                if outcome.ok
                else outcome
            )
            self._failed(key, failure)
            return
        ledger = ledger_rules.clear_trouble(self.writer.ledger, key)
        made = ledger.domain(step.domid).controllers_made | new
        self.writer.set(ledger_rules.with_domain(ledger, step.domid, controllers_made=made))

    async def _remove(self, step: RemoveController) -> None:
        """xl may report a failure although the controller is gone (T30), and takes 20 s if the guest has no driver for
        it.
        """
        domid = step.domid
        async with self.context.domain_locks[domid]:
            await self.context.read_back(domid)
            here = next((c for c in self._all(domid, step.guest) or () if c.id == step.controller), None)
            if here is None or any(here.ports.values()):
                return
            outcome = await self.context.xl.usbctrl_detach(domid, step.controller)
        await self.context.read_back(domid)
        key = TroubleKey.remove_controller(domid, step.controller)
        if any(c.id == step.controller for c in self._all(domid, step.guest) or ()):
            self._failed(key, outcome)
            return
        log.info("controller %s of %s was empty and has been removed", step.controller, step.guest)
        ledger = ledger_rules.clear_trouble(self.writer.ledger, key)
        made = ledger.domain(domid).controllers_made - {step.controller}
        self.writer.set(ledger_rules.with_domain(ledger, domid, controllers_made=made))

    async def recreate_in_qemu(self, guest_port: GuestPort, name: str) -> None:
        """xenstore names a controller that the guest's qemu lacks: libxl created it in xenstore only (T5), and can
        neither use nor remove it. Once it is created in qemu as well, it works like any other.
        """
        here = next((c for c in self._all(guest_port.domid, name) or () if c.id == guest_port.controller), None)
        if here is None or here.type is not ControllerType.DEVICEMODEL:
            return
        ports = f",p2={len(here.ports)},p3={len(here.ports)}" if here.version == 3 else ""
        command = f"device_add {QEMU_NAMES[here.version]},id=xenusb-{here.id}{ports}"
        async with self.context.domain_locks[guest_port.domid]:
            outcome = await self.context.xl.monitor(guest_port.domid, command)
        done = "it has been created there" if outcome.ok else f"it cannot be created there: {outcome.text}"
        log.warning("controller %s of %s was in xenstore only, not in its qemu; %s", here.id, name, done)
