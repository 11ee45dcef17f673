"""One step of a plan, done: intent noted, facts checked once more, the tool called, its result read back and noted.

The planner said what should be; here it is looked at again at the last moment, because between plan and act a device
may have been pulled, a guest may have gone, and what was free to give away may be in use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace

from xenplug.core.book import ledger as book_rules
from xenplug.core.book.ledger import Backoff, Entry, Ledger, Leftover
from xenplug.core.guests import port_path
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
from xenplug.core.telling.explain import step_words
from xenplug.guestcontrolleracts import ControllerActs
from xenplug.outside import Book, Outside, Turns, insist
from xenplug.pciacts import PciActs
from xenplug.shell.xl import Cause as XlCause
from xenplug.shell.xl import Outcome

log = logging.getLogger("xenplug")

STALE_RETRY = Backoff(first=0.2, most=5.0, tries=20)
"""Another port of the host is stale and will be cleared in a moment: no fault of this device."""
RESETS = (0.1, 0.2, 0.4, 0.8)
"""Seconds between tries to attach a device that is being reset."""
CAUSES = {
    XlCause.NO_DEVICE_MODEL: Cause.NO_DEVICE_MODEL,
    XlCause.PHANTOM_CONTROLLER: Cause.PHANTOM_CONTROLLER,
    XlCause.STALE_PORT: Cause.STALE_PORT,
}
"""What xl's refusals of an attach are called in a verdict; all others are `refused`."""
STUCK = "the kernel does not come back from an operation on this device; unplug it, or see dmesg for what hangs"


class Acts:
    """Does steps. `protected` tells at the moment of the act whether a device must stay with the host."""

    def __init__(
        self, outside: Outside, book: Book, protected: Callable[[Device], Cause | None], backoff: Backoff
    ) -> None:
        self.out = outside
        self.book = book
        self.protected = protected
        self.backoff = backoff
        self.driverless = False
        """Interfaces are shut before a detach (core/planning/doors)."""
        self._turns = Turns()
        self._clearing: dict[GuestPort, asyncio.Event] = {}
        self.pci = PciActs(outside, book, protected, self._turns)
        self.controllers = ControllerActs(outside, book, self._turns, self._failed)

    async def do(self, step: Step) -> None:
        """Do one step. What goes wrong is noted in the ledger, and the next plan sees it."""
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
        now = self.out.bus.devices().get(device.port)
        return now if now and now.number == device.number else None

    def _free(self, device: Device) -> Device | None:
        """The device if it is still there and nothing says by now that it must stay with the host."""
        now = self._present(device)
        return None if now is None or now.partly_hub or self.protected(now) else now

    def _holds(self, spot: GuestPort, device: Device) -> bool:
        return any(at == spot for at, _path in self.out.mirror.occupied(device.port))

    async def _attach(self, step: Attach) -> None:
        device, spot = self._free(step.device), step.spot
        if device is None or not self.out.mirror.alive(spot.domid, step.guest):
            return
        if self.out.bus.stuck(device.port):  # xl would hang as well, and with it all calls for this guest
            self._failed(book_rules.subject(device, spot.domid), Outcome(False, text=STUCK))
            return
        entry = Entry(step.guest, device.port, device.bus, device.number, device.tag, ours=True, intent="attach")
        self.book.set(book_rules.begin(self.book.ledger, spot, entry))
        async with self._turns[spot.domid]:
            # The turn may have been long in coming, and somebody may have mounted the stick meanwhile.
            device = self._free(device)
            if device and (self.driverless or device.shut):  # it may have been read before its interfaces were complete
                await self.out.bus.interfaces(device, True)
            if device is None or self._free(device) is None:
                self.book.set(book_rules.forget(self.book.ledger, spot))
                return
            outcome = await self._xl_attach(device, spot)
        await self.out.read_back(spot)
        subject = book_rules.subject(device, spot.domid)
        if self._holds(spot, device):
            self.book.set(book_rules.settle(self.book.ledger, spot))
            return
        self.book.set(book_rules.forget(self.book.ledger, spot))
        if outcome.cause is XlCause.PHANTOM_CONTROLLER:
            await self.controllers.mend(spot, step.guest)
        if self._present(device):
            self._failed(subject, outcome)
            if device.shut:
                await self._shut(device)

    async def _xl_attach(self, device: Device, spot: GuestPort) -> Outcome:
        """xl, and again if the device was just being reset by who had it before: xl finds none of its address (T48)."""
        for pause in (*RESETS, None):
            outcome = await self.out.xl.usbdev_attach(spot.domid, device.bus, device.number, spot.controller, spot.port)
            if outcome.cause is not XlCause.NOT_ASSIGNABLE or pause is None:
                break
            await asyncio.sleep(pause)
            if self._free(device) is None:
                break
        return outcome

    async def _detach(self, step: Detach) -> None:
        spot, device = step.spot, step.device
        entry = self.book.ledger.entries.get(spot)
        if entry is None or not self._holds(spot, device):
            return
        self.book.set(book_rules.begin(self.book.ledger, spot, replace(entry, intent="detach")))
        async with self._turns[spot.domid]:
            if self.driverless:
                await self._shut(device)
            outcome = await self.out.xl.usbdev_detach(spot.domid, spot.controller, spot.port)
        await self.out.read_back(spot)
        if outcome.cause is XlCause.PHANTOM_DEVICE and self._holds(spot, device):
            # qemu has no such device, so xl wrote the busid back (T22) and always would.
            path = port_path(ControllerType.DEVICEMODEL, spot)
            await insist(lambda: self.out.store.replace(path, device.port, ""))
            await self.out.read_back(spot)
        subject = book_rules.detach_subject(device, spot.domid)
        if self._holds(spot, device):
            self.book.set(book_rules.settle(self.book.ledger, spot))
            self._failed(subject, outcome)
            if self.driverless:
                await self.out.bus.interfaces(device, True)
            return
        detached = (book_rules.forget if step.trouble else book_rules.vacate)(self.book.ledger, spot)
        self.book.set(self._blame(book_rules.clear_troubles(detached, lambda key: key == subject), step))

    def _blame(self, ledger: Ledger, step: Detach) -> Ledger:
        """A device taken off because it failed: the first loss is healed at once, all else is tried again later."""
        if step.trouble is None:
            return ledger
        subject = book_rules.subject(step.device, step.spot.domid)
        if step.trouble is Cause.LOST and subject not in ledger.healed:
            return replace(ledger, healed=ledger.healed | {subject})
        return book_rules.fail(ledger, subject, (step.trouble, ""), self.out.clock.now(), self.backoff)

    def clear_at_once(self, step: ClearPort) -> Coroutine[None, None, None]:
        """As much of `clear` as can be done before anything else has its turn; the rest of it is to be awaited."""
        return self.clear(step, self._empties(step) and self._empty_at_once(step))

    async def clear(self, step: ClearPort, emptied: bool = False) -> None:
        """Empty a port whose device is gone; of a devicemodel's it is noted first that qemu keeps an object."""
        if other := self._clearing.get(step.spot):
            # For one pull both the kernel's event and the plan lead here. What is left to do shows in the next look.
            await other.wait()
            return
        if not self._empties(step):
            return
        done = self._clearing[step.spot] = asyncio.Event()
        try:
            if not emptied and not self._empty_at_once(step):
                await self.out.store.replace(port_path(step.type, step.spot), step.busid, "")
            await self.out.mirror.sync(step.spot)
            if self._empties(step):
                self.book.set(book_rules.vacate(self.book.ledger, step.spot))
        finally:
            del self._clearing[step.spot]
            done.set()

    async def _drop_object(self, step: DropObject) -> None:
        """By the address it had (T21). Whatever qemu says, it is asked once: an object that is not there is as good."""
        left = step.left
        async with self._turns[left.domid]:
            await self.out.xl.monitor(left.domid, f"device_del xenusb-{left.bus}-{left.number}")
        self.book.set(replace(self.book.ledger, leftovers=self.book.ledger.leftovers - {left}))

    def _empties(self, step: ClearPort) -> bool:
        """Not if by now the port is another device's, which may well bear the same name."""
        entry = self.book.ledger.entries.get(step.spot)
        return entry is None or entry.number == step.number

    def _empty_at_once(self, step: ClearPort) -> bool:
        if step.type is ControllerType.DEVICEMODEL and step.number:
            left = Leftover(step.spot.domid, step.bus, step.number)
            self.book.set(replace(self.book.ledger, leftovers=self.book.ledger.leftovers | {left}))
        return self.out.store.replace_at_once(port_path(step.type, step.spot), step.busid, "")

    async def _authorize(self, step: Authorize) -> None:
        device = self._present(step.device)
        if device is None:
            return
        done = await self.out.bus.authorize(device, step.allowed)
        if not self._noted(device, book_rules.authorize_subject(device), done, step):
            return
        at, ledger = {book_rules.place(device)}, self.book.ledger
        self.book.set(replace(ledger, blocked=ledger.blocked - at if step.allowed else ledger.blocked | at))

    async def _shut(self, device: Device) -> None:
        """Against dom0's drivers. The guest loses the device with it."""
        await self.out.bus.interfaces(device, False)
        ledger = self.book.ledger
        self.book.set(replace(ledger, opened=ledger.opened - {book_rules.place(device)}))

    async def _interfaces(self, step: Interfaces) -> None:
        device = self._present(step.device)
        if device is None:
            return
        done = await self.out.bus.interfaces(device, step.allowed)
        if done and step.probe:
            await self.out.bus.probe(device)
        if self._noted(device, book_rules.open_subject(device), done, step):
            at, ledger = {book_rules.place(device)}, self.book.ledger
            self.book.set(replace(ledger, opened=ledger.opened | at if step.probe else ledger.opened - at))

    def _noted(self, device: Device, subject: str, done: bool, step: Step) -> bool:
        """Note a write to sysfs, even if it went well: until the facts show it, the plan would ask for it again."""
        ledger = self.book.ledger
        if done:
            ledger = book_rules.clear_troubles(ledger, lambda key: key == subject)
        else:
            log.warning("%s: not done", step_words(step))
        stuck = not done and self.out.bus.stuck(device.port)
        why = (Cause.REFUSED, "" if done else STUCK if stuck else "sysfs: authorized was not written")
        self.book.set(book_rules.fail(ledger, subject, why, self.out.clock.now(), self.backoff))
        return done

    def _failed(self, subject: str, outcome: Outcome) -> None:
        backoff = STALE_RETRY if outcome.cause is XlCause.STALE_PORT else self.backoff
        cause = CAUSES.get(outcome.cause, Cause.REFUSED)
        text = outcome.text or str(outcome.cause)
        ledger = book_rules.fail(self.book.ledger, subject, (cause, text), self.out.clock.now(), backoff)
        self.book.set(ledger)
