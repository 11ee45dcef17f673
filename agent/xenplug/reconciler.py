"""The one loop: coalesce nudges, observe, plan, act per guest, observe again.

Events (uevents, xenstore watches, a person's order, a timer) only say "look". What is done follows from what is then
seen. Each guest has one worker, which does one step at a time; after each the world is looked at anew. The one thing
done at once, before any looking, is to clear the port of a device that the kernel says is gone: later than half a
second costs the guest its other devices (seen on real Xen).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from xenplug.acts import Acts
from xenplug.core.book import ledger as book_rules
from xenplug.core.book.absorb import absorb
from xenplug.core.book.ledger import Backoff
from xenplug.core.faces import Guard, StoreLost, UsbEvent
from xenplug.core.guests import port_place
from xenplug.core.matching.belongs import foresee, protect_all, protection, wanted_by
from xenplug.core.matching.match import Decision, Matcher
from xenplug.core.model import BusId, Device, Snapshot
from xenplug.core.planning.doors import guard, parting
from xenplug.core.planning.follow import follow
from xenplug.core.planning.plan import make_plan, steps_by_guest
from xenplug.core.planning.scene import Scene, Times
from xenplug.core.planning.steps import Authorize, Cause, ClearPort, Detach, Plan, Step
from xenplug.core.policy.rules import Policy
from xenplug.observer import Observer
from xenplug.outside import Book, Keeper, Outside
from xenplug.teller import Journal, Teller, View

log = logging.getLogger("xenplug")

FIRST_STATES = 3.0
"""Seconds for which the first look waits to be told which guests are paused."""

BREATH = 0.001
"""Seconds between two looks at least: a wake-up that came a rounding error too early must not spin."""

REST = 0.1
"""Seconds at most from one look to the next for the sake of all else: a look may have taken long because the machine
stood still."""

NAP = 3.0
"""Seconds by which the time of day must jump for the host to have slept."""

FAREWELL = 30.0
"""Seconds at most that acts under way have to come to their end when the agent stops: one that waits for a xenstore
that is lost would wait for ever."""

RECONNECT = 1.0
"""Seconds between tries to reach a lost xenstore."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The settings the loop goes by."""

    times: Times = field(default_factory=Times)
    backoff: Backoff = field(default_factory=Backoff)
    rescan: float = 60.0
    """Seconds after which everything is read anew though nothing happened."""
    dry: bool = False
    """Plan and tell, but touch nothing."""
    driverless: bool = True
    """Dom0's drivers are kept off what is bound for guests (core/planning/doors)."""


class Reconciler:
    """Keeps devices where the policy wants them."""

    def __init__(self, outside: Outside, keeper: Keeper, journal: Journal, tuning: Tuning) -> None:
        self.out = outside
        self.tuning = tuning
        self.matcher: Matcher | None = None
        self.view = View()
        self.after_round: Callable[[], object] | None = None
        """Called at the end of each round."""
        self.round = 0
        """Counts the rounds that ended."""
        self._took = 0.0
        """Seconds that the last round took."""
        self._in_round = False
        self._eyes = Observer(outside)
        self._teller = Teller(journal, outside.clock)
        self._book = Book(keeper, keeper.load())
        self._acts = Acts(outside, self._book, self._protection, tuning.backoff)
        self._acts.driverless = tuning.driverless
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._nudged = asyncio.Event()
        self._looked = asyncio.Condition()
        self._asking: asyncio.Task[None] | None = None
        self._decided: dict[BusId, tuple[Device, Decision]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._reconnecting: asyncio.Task[None] | None = None
        self._rescan_at = outside.clock.now() + tuning.rescan
        self._ahead = outside.clock.wall() - outside.clock.now()

    @property
    def ledger(self) -> book_rules.Ledger:
        """The ledger in use."""
        return self._book.ledger

    def order(self, change: Callable[[book_rules.Ledger], book_rules.Ledger]) -> None:
        """A person's order: change the ledger and look."""
        self._book.set(change(self._book.ledger))
        self.nudge()

    def set_policy(self, policy: Policy | None) -> None:
        """Put a policy in force; None: none did load, do nothing but clear stale ports."""
        self.matcher = Matcher(policy) if policy else None
        self._decided.clear()
        ledger = self._book.ledger
        self._book.set(book_rules.clear_troubles(ledger, lambda _key: True))
        self._guard(guard(policy, self.tuning.driverless))
        self.nudge()

    def _guard(self, wanted: Guard | None) -> None:
        if wanted and not self.tuning.dry:
            self.out.bus.guard(wanted)

    def nudge(self) -> None:
        """Look soon."""
        self._nudged.set()

    # -- what happens outside ------------------------------------------------------------------------------------

    def _usb(self, event: UsbEvent) -> None:
        if event.action == "remove" and event.port:
            self._clear_now(event.port, event.number)
        self.nudge()

    def _clear_now(self, port: BusId, number: int | None) -> None:
        """The fastest path there is: empty the ports that name a device which the kernel says is gone."""
        for spot, path in self.out.mirror.occupied(port):
            entry = self._book.ledger.entries.get(spot)
            if entry and number is not None and entry.number not in (0, number):
                continue  # a late word about an earlier device in this place
            place = port_place(path)
            guest = entry.guest if entry else ""
            if place and not self.tuning.dry:
                bus, old = (entry.bus, entry.number) if entry else (0, 0)
                self._chore(self._acts.clear_at_once(ClearPort(guest, spot, place.type, port, bus, old)))

    def _chore(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except StoreLost:
            log.debug("xenstore was lost during an act; it is read anew")
            await asyncio.sleep(RECONNECT)  # as long as it is lost, the same act would fail again at once
        except Exception:
            # The one boundary of acts: a bug in one step must not end the agent. It is told, and all is looked at anew.
            log.exception("a step failed in a way that should not happen; please report it")
            await asyncio.sleep(RECONNECT)
        self.nudge()

    def store_changed(self, domid: int | None) -> None:
        if domid is None:
            self._eyes.states_due = True
        self.nudge()

    def store_lost(self) -> None:
        """The connection to xenstore broke: reconnect and read everything anew."""
        if self._reconnecting is None or self._reconnecting.done():
            log.warning("xenstore: connection lost; reconnecting")
            self._reconnecting = asyncio.get_running_loop().create_task(self._guarded(self._reconnect()))

    async def _reconnect(self) -> None:
        while True:
            try:
                await self.out.store.connect()
                await self.out.mirror.load()
            except (StoreLost, OSError) as error:
                log.debug("xenstore: %s", error)
                await asyncio.sleep(RECONNECT)
                continue
            log.info("xenstore: connected again")
            self._eyes.states_due = True
            return

    # -- the loop ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to watch and listen (before anything is read), then read everything."""
        self.out.store.lost = self.store_lost
        self.out.domains.ended = self.nudge
        await self.out.mirror.load()
        await self.out.bus.start(self._usb)

    async def run(self) -> None:
        """Keep things right until cancelled."""
        while True:
            self._nudged.clear()
            await self.look()
            # A storm brings an event a millisecond. Half of the time belongs to all else, the clearing of ports first.
            await asyncio.sleep(min(self._took, REST))
            if self.out.clock.now() >= self._rescan_at or self._slept():
                await self.rescan()
            # Not wait_for: Python 3.11's loses a cancellation that comes together with a nudge, and would never end.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience()):
                    await self._nudged.wait()

    def _slept(self) -> bool:
        """People's time has moved against ours: the host slept (or its clock was set, which is as good a reason)."""
        ahead, self._ahead = self._ahead, self.out.clock.wall() - self.out.clock.now()
        return abs(self._ahead - ahead) > NAP

    def _patience(self) -> float:
        """Seconds until something must be looked at even if nothing happens."""
        wake = self.view.plan.wake
        until = self._rescan_at if wake is None else min(wake, self._rescan_at)
        return max(until - self.out.clock.now(), BREATH)

    async def rescan(self) -> None:
        """Read everything anew: the net under all events."""
        self._rescan_at = self.out.clock.now() + self.tuning.rescan
        await self.out.bus.rescan()
        self._eyes.states_due = True
        self.nudge()

    async def look(self) -> None:
        """One round."""
        self._in_round = True
        if self._eyes.wants_states(self.ledger):
            await self._ask_for_states()
        begun = self.out.clock.now()
        snapshot = self._eyes.observe()
        plan = self._plan(snapshot)
        before, self.view = self.view, View(snapshot, plan, self._teller.shown(self.view, plan))
        if not self.tuning.dry:
            self._dispatch(plan)
        self._took = self.out.clock.now() - begun
        # After the acts have begun: a slow disk under the log must not hold them up.
        asyncio.get_running_loop().call_soon(self._teller.tell, before.plan, plan, self.tuning.dry)
        self.round += 1
        self._in_round = False
        if self.after_round:
            self.after_round()
        async with self._looked:
            self._looked.notify_all()

    async def looked(self) -> None:
        """Look, and wait for the round that begins after now to end."""
        seen = self.round + 1 if self._in_round else self.round
        self.nudge()
        async with self._looked:
            await self._looked.wait_for(lambda: self.round > seen)

    async def looked_by_itself(self) -> None:
        """Wait for the next round, whenever there is reason for one."""
        seen = self.round
        async with self._looked:
            await self._looked.wait_for(lambda: self.round > seen)

    async def _ask_for_states(self) -> None:
        """Beside the loop: an xl that hangs must not keep us from looking. Only the first look waits a little."""
        if self._asking is None or self._asking.done():
            self._asking = self._chore(self._eyes.ask_for_states())
        if self.round == 0:
            await asyncio.wait({self._asking}, timeout=FIRST_STATES)

    def _protection(self, device: Device) -> Cause | None:
        return protection(self.matcher, device, self.out.bus.devices(), self.ledger) if self.matcher else None

    def _plan(self, snapshot: Snapshot) -> Plan:
        now = self.out.clock.now()
        matcher = self.matcher or Matcher(Policy())
        wanted = wanted_by(matcher, self.ledger)
        grace = self.tuning.times.reboot_grace
        self._book.set(absorb(self.ledger, snapshot, now, wanted, grace))
        decided = {port: self._decide(matcher, device) for port, device in snapshot.devices.items()}
        self._decided = {port: self._decided[port] for port in decided}
        ledger, decisions = follow(self.ledger, snapshot.devices, decided, matcher.policy)
        self._book.set(ledger)
        plan = make_plan(
            Scene(
                snapshot,
                self.ledger,
                now,
                decisions,
                protect_all(matcher, snapshot.devices, self.ledger),
                self.matcher.policy if self.matcher else None,
                self.tuning.times,
                foresee(matcher, snapshot, self.ledger),
                self.tuning.driverless,
            )
        )
        self._book.set(replace(self.ledger, pci=replace(self.ledger.pci, asked=plan.asked)))
        return plan

    def _decide(self, matcher: Matcher, device: Device) -> Decision:
        known = self._decided.get(device.port)
        if known and known[0] is device:
            return known[1]
        decision = matcher.decide(device)
        self._decided[device.port] = (device, decision)
        return decision

    def _dispatch(self, plan: Plan) -> None:
        """One step for each guest that is idle; clearing a port goes before all, whatever its guest does."""
        for guest, steps in steps_by_guest(plan.steps).items():
            clears = [s for s in steps if isinstance(s, ClearPort)]
            for step in clears:
                self._begin(f"clear {step.spot}", step)
            others = [s for s in steps if not isinstance(s, ClearPort)]
            if others and not clears:
                self._begin(guest, others[0])

    def _begin(self, worker: str, step: Step) -> None:
        if worker in self._busy:
            return
        self._busy[worker] = asyncio.get_running_loop().create_task(self._work(worker, step))

    async def _work(self, worker: str, step: Step) -> None:
        async def act() -> None:
            try:
                await self._acts.do(step)
            finally:
                # Before the nudge that ends every act: the round it brings must find the worker idle.
                self._busy.pop(worker, None)

        await self._guarded(act())

    # -- the end -------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Let acts under way come to their end, then listen no more."""
        await _ended([*self._busy.values(), *self._chores])
        if self._reconnecting:
            self._reconnecting.cancel()
        self._guard(parting(self.matcher.policy if self.matcher else None))
        await self.out.bus.stop()

    async def abandon(self) -> None:
        """End as a killed process does: nothing under way comes to its end, nothing is noted."""
        tasks = [*self._busy.values(), *self._chores, *([self._reconnecting] if self._reconnecting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.out.bus.stop()

    async def take_all_off(self) -> None:
        """Take every device off that the agent gave to a guest (setting on_stop: detach). dom0 gets what the policy
        lets it have.
        """
        verdicts = {verdict.device.port: verdict for verdict in self.view.plan.verdicts}
        policy = self.matcher.policy if self.matcher else Policy()
        for spot, entry in self.ledger.entries.items():
            device = self.view.snapshot.devices.get(entry.busid)
            if entry.ours and device:
                kept = not verdicts[device.port].decision.admits(policy)
                self._acts.driverless = kept
                await self._last(Detach(entry.guest, spot, device))
                if kept:
                    await self._last(Authorize(device, allowed=False))

    async def _last(self, step: Step) -> None:
        await _ended([asyncio.get_running_loop().create_task(self._guarded(self._acts.do(step)))])


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for their end, at most FAREWELL seconds; those that go on are cancelled."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=FAREWELL)
    if late:
        log.warning("%d acts did not come to their end within %.0f s; left as they are", len(late), FAREWELL)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
