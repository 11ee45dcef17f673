"""Carries out one step of a plan: note the intent, check the facts again, call the tool, read the result back, note it.

The facts are checked again at the last moment because they may have changed since the plan was made: a device may have
been unplugged, a guest may have ended, a device that was free may be in use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from xenplug.adapters.xl import XlCause, XlOutcome
from xenplug.core.guests import port_path
from xenplug.core.ledger import ledger as ledger_rules
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.records import Entry, Intent, Leftover
from xenplug.core.ledger.troubles import Backoff, TroubleKey
from xenplug.core.model import ControllerType, Device, GuestPort
from xenplug.core.planning.steps import (
    AddController,
    Attach,
    Authorize,
    Cause,
    ClearPort,
    Detach,
    DropObject,
    Interfaces,
    RemoveController,
    Step,
)
from xenplug.core.reporting.explain import step_words
from xenplug.engine.context import EngineContext, LedgerWriter, retry_until_connected
from xenplug.engine.controller_executor import ControllerExecutor
from xenplug.engine.pci_executor import PciExecutor

log = logging.getLogger("xenplug")

STALE_RETRY = Backoff(first=0.2, most=5.0, tries=20)
"""Another port of the host is stale and will be cleared soon: the failure is not this device's."""
RESET_PAUSES = (0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts to attach a device that is being reset."""
ATTACH_CAUSES = {
    XlCause.NO_DEVICE_MODEL: Cause.NO_DEVICE_MODEL,
    XlCause.PHANTOM_CONTROLLER: Cause.PHANTOM_CONTROLLER,
    XlCause.STALE_PORT: Cause.STALE_PORT,
}
"""The causes, in a verdict, of xl's refusals of an attach; all others are `refused`."""
STUCK = "an operation on this device hangs in the kernel; unplug the device, or see dmesg for the cause"


class Executor:
    """Carries out steps. `protected` returns why a device must stay with the host, asked just before the step."""

    def __init__(
        self,
        context: EngineContext,
        writer: LedgerWriter,
        protected: Callable[[Device], Cause | None],
        backoff: Backoff,
    ) -> None:
        self.context = context
        self.writer = writer
        self.protected = protected
        self.backoff = backoff
        self._clearing: dict[GuestPort, asyncio.Event] = {}
        self.pci = PciExecutor(context, writer, protected)
        self.controllers = ControllerExecutor(context, writer, self._failed)

    async def do(self, step: Step) -> None:
        """Do one step. A failure is noted in the ledger, where the next plan sees it."""
        log.debug("%s", step_words(step))
        match step:
            case Attach():
                await self._attach(step)
            case Detach():
                await self._detach(step)
            case ClearPort():
                await self.clear(step)
            case DropObject():
                await self._drop_object(step)
            case AddController() | RemoveController():
                await self.controllers.do(step)
            case Authorize():
                await self._authorize(step)
            case Interfaces():
                await self._interfaces(step)
            case _:
                await self.pci.do(step)

    def _present(self, device: Device) -> Device | None:
        now = self.context.bus.devices().get(device.port)
        return now if now and now.number == device.number else None

    def _free(self, device: Device) -> Device | None:
        """The device, if it is still present and may still leave the host."""
        now = self._present(device)
        return None if now is None or now.partly_hub or self.protected(now) else now

    def _holds(self, guest_port: GuestPort, device: Device) -> bool:
        return any(at == guest_port for at, _path in self.context.mirror.occupied(device.port))

    async def _attach(self, step: Attach) -> None:
        device, guest_port = self._free(step.device), step.guest_port
        if device is None or not self.context.mirror.alive(guest_port.domid, step.guest):
            return
        if self.context.bus.stuck(device.port):  # xl would hang too, and block all calls for this guest
            self._failed(TroubleKey.attach(device.key, guest_port.domid), XlOutcome(False, text=STUCK))
            return
        entry = Entry(step.guest, device.port, device.bus, device.number, device.tag, ours=True, intent=Intent.ATTACH)
        self.writer.set(ledger_rules.begin(self.writer.ledger, guest_port, entry))
        async with self.context.domain_locks[guest_port.domid]:
            # The wait for the lock may have been long, and the stick may have been mounted since.
            device = self._free(device)
            if device and (step.driverless or device.shut):  # read again: its interfaces may not have been complete
                await self.context.bus.interfaces(device, True)
            now = device and self._free(device)
            if device is None or now is None or (device.configured and not now.configured):
                self.writer.set(ledger_rules.forget(self.writer.ledger, guest_port))
                return
            outcome = await self._xl_attach(device, guest_port)
        await self.context.read_back(guest_port)
        if self._holds(guest_port, device):
            self.writer.set(ledger_rules.settle(self.writer.ledger, guest_port))
            return
        self.writer.set(ledger_rules.forget(self.writer.ledger, guest_port))
        if outcome.cause is XlCause.PHANTOM_CONTROLLER:
            await self.controllers.recreate_in_qemu(guest_port, step.guest)
        if self._present(device):
            self._failed(TroubleKey.attach(device.key, guest_port.domid), outcome)
            if device.shut:
                await self._shut(device)

    async def _xl_attach(self, device: Device, guest_port: GuestPort) -> XlOutcome:
        """Call xl; repeat if xl finds no device at the address because its previous holder is resetting it (T48)."""
        for pause in (*RESET_PAUSES, None):
            outcome = await self.context.xl.usbdev_attach(
                guest_port.domid, device.bus, device.number, guest_port.controller, guest_port.port
            )
            if outcome.cause is not XlCause.NOT_ASSIGNABLE or pause is None:
                break
            await asyncio.sleep(pause)
            if self._free(device) is None:
                break
        return outcome

    async def _detach(self, step: Detach) -> None:
        guest_port, device = step.guest_port, step.device
        entry = self.writer.ledger.entries.get(guest_port)
        if entry is None or not self._holds(guest_port, device):
            return
        self.writer.set(ledger_rules.begin(self.writer.ledger, guest_port, replace(entry, intent=Intent.DETACH)))
        async with self.context.domain_locks[guest_port.domid]:
            if step.driverless:
                await self._shut(device)
            outcome = await self.context.xl.usbdev_detach(guest_port.domid, guest_port.controller, guest_port.port)
        await self.context.read_back(guest_port)
        if outcome.cause is XlCause.PHANTOM_DEVICE and self._holds(guest_port, device):
            # qemu has no such device, so xl wrote the busid back (T22) and would do so every time.
            path = port_path(ControllerType.DEVICEMODEL, guest_port)
            await retry_until_connected(lambda: self.context.store.replace(path, device.port, ""))
            await self.context.read_back(guest_port)
        key = TroubleKey.detach(device.key, guest_port.domid)
        if self._holds(guest_port, device):
            self.writer.set(ledger_rules.settle(self.writer.ledger, guest_port))
            self._failed(key, outcome)
            if step.driverless:
                await self.context.bus.interfaces(device, True)
            return
        detached = (ledger_rules.forget if step.trouble else ledger_rules.free_port)(self.writer.ledger, guest_port)
        self.writer.set(self._blame(ledger_rules.clear_trouble(detached, key), step))

    def _blame(self, ledger: Ledger, step: Detach) -> Ledger:
        """Note why a failing device was detached: a first loss is retried at once, anything else after a backoff."""
        if step.trouble is None:
            return ledger
        key = TroubleKey.attach(step.device.key, step.guest_port.domid)
        if step.trouble is Cause.LOST and key not in ledger.healed_once:
            return replace(ledger, healed_once=ledger.healed_once | {key})
        return ledger_rules.fail(ledger, key, (step.trouble, ""), self.context.clock.now(), self.backoff)

    def empty_at_once(self, step: ClearPort) -> bool:
        """Empty the port in xenstore before this call returns. False if the port belongs to another device by now, or
        if xenstored did not answer within its short time limit: then `clear` does it.
        """
        return self._is_stale(step) and self._write_empty(step)

    async def clear(self, step: ClearPort, emptied: bool = False) -> None:
        """Empty a port whose device is gone (unless `emptied` already); wait until the mirror shows it."""
        if other := self._clearing.get(step.guest_port):
            # The kernel's event and the plan both get here for one unplug. The next round does what is left.
            await other.wait()
            return
        if not self._is_stale(step):
            return
        done = self._clearing[step.guest_port] = asyncio.Event()
        try:
            if not emptied and not self._write_empty(step):
                await self.context.store.replace(port_path(step.type, step.guest_port), step.busid, "")
            await self.context.mirror.sync(step.guest_port)
            if self._is_stale(step):
                self.writer.set(ledger_rules.free_port(self.writer.ledger, step.guest_port))
        finally:
            del self._clearing[step.guest_port]
            done.set()

    async def _drop_object(self, step: DropObject) -> None:
        """Remove it by the address it had (T21). One attempt, whatever qemu answers: an object that is missing is fine
        too.
        """
        left = step.left
        async with self.context.domain_locks[left.domid]:
            await self.context.xl.monitor(left.domid, f"device_del xenusb-{left.bus}-{left.number}")
        self.writer.set(replace(self.writer.ledger, leftovers=self.writer.ledger.leftovers - {left}))

    def _is_stale(self, step: ClearPort) -> bool:
        """Whether the port still names the device that is gone, not a new one with the same busid."""
        entry = self.writer.ledger.entries.get(step.guest_port)
        return entry is None or entry.number == step.number

    def _write_empty(self, step: ClearPort) -> bool:
        """The transaction. For devicemodel, note first that qemu keeps the device object: DropObject removes it."""
        if step.type is ControllerType.DEVICEMODEL and step.number:
            left = Leftover(step.guest_port.domid, step.bus, step.number)
            self.writer.set(replace(self.writer.ledger, leftovers=self.writer.ledger.leftovers | {left}))
        return self.context.store.replace_at_once(port_path(step.type, step.guest_port), step.busid, "")

    async def _authorize(self, step: Authorize) -> None:
        device = self._present(step.device)
        if device is None:
            return
        done = await self.context.bus.authorize(device, step.allowed)
        if self._noted(device, TroubleKey.authorize(device.key), done, step):
            self.writer.set(ledger_rules.with_device(self.writer.ledger, device.key, blocked=not step.allowed))

    async def _shut(self, device: Device) -> None:
        """Close the interfaces to dom0's drivers. The guest loses the device too."""
        await self.context.bus.interfaces(device, False)
        self._note_released(device, False)

    async def _interfaces(self, step: Interfaces) -> None:
        device = self._present(step.device)
        if device is None:
            return
        done = await self.context.bus.interfaces(device, step.allowed)
        if done and step.probe:
            await self.context.bus.probe(device)
        if self._noted(device, TroubleKey.interfaces(device.key), done, step):
            self._note_released(device, step.probe)

    def _note_released(self, device: Device, released: bool) -> None:
        """Note whether dom0's drivers may bind to the device."""
        self.writer.set(ledger_rules.with_device(self.writer.ledger, device.key, released_to_dom0=released))

    def _noted(self, device: Device, key: TroubleKey, done: bool, step: Step) -> bool:
        """Note a write to sysfs, also a successful one: until the facts show it, the plan would repeat it."""
        ledger = self.writer.ledger
        if done:
            ledger = ledger_rules.clear_trouble(ledger, key)
        else:
            log.warning("%s: not done", step_words(step))
        stuck = not done and self.context.bus.stuck(device.port)
        why = (Cause.REFUSED, "" if done else STUCK if stuck else "sysfs: writing authorized failed")
        self.writer.set(ledger_rules.fail(ledger, key, why, self.context.clock.now(), self.backoff))
        return done

    def _failed(self, key: TroubleKey, outcome: XlOutcome) -> None:
        backoff = STALE_RETRY if outcome.cause is XlCause.STALE_PORT else self.backoff
        cause = ATTACH_CAUSES.get(outcome.cause, Cause.REFUSED)
        text = outcome.text or str(outcome.cause)
        ledger = ledger_rules.fail(self.writer.ledger, key, (cause, text), self.context.clock.now(), backoff)
        self.writer.set(ledger)
