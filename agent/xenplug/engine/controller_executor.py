"""The acts on guest controllers, done: made, taken away when empty, and made good in a qemu that lacks one.

Like all acts: looked over once more, xl called, xenstore read back, the result noted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from xenplug.adapters.xl import XlCause, XlOutcome
from xenplug.core.ledger import ledger as ledger_rules
from xenplug.core.model import ControllerType, GuestController, GuestPort
from xenplug.core.planning.steps import AddController, RemoveController, sizes
from xenplug.engine.context import EngineContext, LedgerWriter

log = logging.getLogger("xenplug")

QEMU_NAMES = {1: "piix3-usb-uhci", 2: "usb-ehci", 3: "nec-usb-xhci"}
"""What qemu calls a devicemodel controller of a version (libxl_usb.c: libxl__device_usbctrl_add_qmp)."""


class ControllerExecutor:
    """Does steps on guest controllers. `failed` notes what went wrong."""

    def __init__(self, context: EngineContext, writer: LedgerWriter, failed: Callable[[str, XlOutcome], None]) -> None:
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
        # libxl says "finished" a moment before the mirror has read all controllers of a guest that just started.
        await self.context.read_back(step.domid)
        before = self._all(step.domid, step.guest)
        if before is None or sizes(before) != step.known:
            return
        spec, ledger = step.spec, self.writer.ledger
        self.writer.set(replace(ledger, last_made_at={**ledger.last_made_at, step.domid: self.context.clock.now()}))
        async with self.context.domain_locks[step.domid]:
            outcome = await self.context.xl.usbctrl_attach(step.domid, spec.type, spec.version, spec.ports)
        await self.context.read_back(step.domid)
        new = frozenset(c.id for c in self._all(step.domid, step.guest) or ()) - {c.id for c in before}
        subject = ledger_rules.controller_subject(step.domid)
        if not new:
            said = XlOutcome(False, XlCause.REFUSED, "xl said yes, and made none") if outcome.ok else outcome
            self._failed(subject, said)
            return
        ledger = ledger_rules.clear_troubles(self.writer.ledger, lambda key: key == subject)
        controllers_made = {
            **ledger.controllers_made,
            step.domid: ledger.controllers_made.get(step.domid, frozenset()) | new,
        }
        self.writer.set(replace(ledger, controllers_made=controllers_made))

    async def _remove(self, step: RemoveController) -> None:
        """xl may say no though it is done (T30), and takes 20 s where the guest has no driver for it."""
        domid = step.domid
        async with self.context.domain_locks[domid]:
            await self.context.read_back(domid)
            here = next((c for c in self._all(domid, step.guest) or () if c.id == step.controller), None)
            if here is None or any(here.ports.values()):
                return
            outcome = await self.context.xl.usbctrl_detach(domid, step.controller)
        await self.context.read_back(domid)
        subject = ledger_rules.removal_subject(domid, step.controller)
        if any(c.id == step.controller for c in self._all(domid, step.guest) or ()):
            self._failed(subject, outcome)
            return
        log.info("controller %s of %s was empty and is taken away", step.controller, step.guest)
        ledger = ledger_rules.clear_troubles(self.writer.ledger, lambda key: key == subject)
        controllers_made = {
            **ledger.controllers_made,
            domid: ledger.controllers_made.get(domid, frozenset()) - {step.controller},
        }
        self.writer.set(replace(ledger, controllers_made=controllers_made))

    async def recreate_in_qemu(self, guest_port: GuestPort, name: str) -> None:
        """xenstore names a controller that the guest's qemu has not: libxl made it there only (T5), and can neither
        use it nor take it away. Made in qemu, too, it is as good as any.
        """
        here = next((c for c in self._all(guest_port.domid, name) or () if c.id == guest_port.controller), None)
        if here is None or here.type is not ControllerType.DEVICEMODEL:
            return
        ports = f",p2={len(here.ports)},p3={len(here.ports)}" if here.version == 3 else ""
        command = f"device_add {QEMU_NAMES[here.version]},id=xenusb-{here.id}{ports}"
        async with self.context.domain_locks[guest_port.domid]:
            outcome = await self.context.xl.monitor(guest_port.domid, command)
        done = "it is made there" if outcome.ok else f"it could not be made there: {outcome.text}"
        log.warning("controller %s of %s stood in xenstore only, not in its qemu; %s", here.id, name, done)
