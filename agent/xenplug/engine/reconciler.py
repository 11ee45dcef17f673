"""The main loop: wait for a wake-up, observe, plan, act for each guest, observe again.

Events (uevents, xenstore watches, a person's order, a timer) only wake the loop. What is done follows from what is then
observed. Each guest has one worker, which does one step at a time; after each step the loop observes again. One thing
is done at once, before anything is observed: the guest port of a device that the kernel reports gone is cleared. If
that takes longer than half a second, the guest loses its other devices (seen on real Xen).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace

from xenplug.core.guests import port_place
from xenplug.core.ledger import ledger as ledger_rules
from xenplug.core.ledger.troubles import Backoff
from xenplug.core.ledger.update import update
from xenplug.core.matching.match import Decision, Matcher
from xenplug.core.model import BusId, Device, Snapshot
from xenplug.core.planning.driver_isolation import guard_on_stop, new_device_guard
from xenplug.core.planning.follow import follow
from xenplug.core.planning.plan import make_plan, steps_by_guest
from xenplug.core.planning.plan_builder import being_set_up
from xenplug.core.planning.plan_input import PlanInput, WaitTimes
from xenplug.core.planning.protection import pci_outlook, protect_all, protection, wanted_guests
from xenplug.core.planning.steps import Authorize, Cause, ClearPort, Detach, Plan, Step
from xenplug.core.policy.rules import Policy
from xenplug.core.protocols import Guard, StoreLost, UsbEvent
from xenplug.engine.context import EngineContext, LedgerStore, LedgerWriter, wait_for_end
from xenplug.engine.executor import Executor
from xenplug.engine.observer import Observer
from xenplug.engine.reporter import ChangeSink, LastRound, Reporter

log = logging.getLogger("xenplug")

FIRST_STATES_TIMEOUT = 3.0
"""Seconds that the first round waits for `xl list`, which shows the paused guests."""

MIN_INTERVAL = 0.001
"""Minimum seconds between two rounds: a timer that fires too early by a rounding error must not make the loop spin."""

MAX_YIELD = 0.1
"""Maximum seconds that the loop yields to other tasks between two rounds: a round may have taken long only because the
machine was stopped."""

SUSPEND_JUMP = 3.0
"""If the time of day jumps by more seconds than this, the host was suspended."""

RECONNECT_INTERVAL = 1.0
"""Seconds between attempts to reconnect to xenstore."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The settings of the loop."""

    times: WaitTimes = field(default_factory=WaitTimes)
    backoff: Backoff = field(default_factory=Backoff)
    rescan: float = 60.0
    """Seconds after which everything is read again, even if nothing happened."""
    dry: bool = False
    """Plan and report, but change nothing."""
    driverless: bool = True
    """dom0's drivers are kept off devices that go to guests (core/planning/driver_isolation)."""


class Reconciler:
    """Keeps devices where the policy wants them."""

    def __init__(
        self, context: EngineContext, ledger_store: LedgerStore, changes_to: ChangeSink, tuning: Tuning
    ) -> None:
        self.context = context
        self.tuning = tuning
        self.matcher: Matcher | None = None
        self.view = LastRound()
        self.after_round: Callable[[], object] | None = None
        """Called at the end of each round."""
        self.round = 0
        """The number of rounds that have ended."""
        self._round_seconds = 0.0
        """Seconds that the last round took."""
        self._round_running = False
        self._observer = Observer(context)
        self._reporter = Reporter(changes_to, context.clock)
        self._writer = LedgerWriter(ledger_store, ledger_store.load())
        self._executor = Executor(context, self._writer, self._protection, tuning.backoff)
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._round_ended = asyncio.Condition()
        self._asking: asyncio.Task[None] | None = None
        self._decided: dict[BusId, tuple[Device, Decision]] = {}
        self._background_tasks: set[asyncio.Task[None]] = set()
        self._reconnecting: asyncio.Task[None] | None = None
        self._rescan_at = context.clock.now() + tuning.rescan
        self._clock_offset = context.clock.wall() - context.clock.now()

    @property
    def ledger(self) -> ledger_rules.Ledger:
        """The ledger in use."""
        return self._writer.ledger

    @property
    def kept_decisions(self) -> int:
        """How many devices' decisions are kept for the next round."""
        return len(self._decided)

    def apply_order(self, change: Callable[[ledger_rules.Ledger], ledger_rules.Ledger]) -> None:
        """Carry out a person's order: change the ledger and wake the loop."""
        self._writer.set(change(self._writer.ledger))
        self.wake()

    def set_policy(self, policy: Policy | None) -> None:
        """Put a policy in force. None: no policy loaded; do nothing but clear stale ports."""
        self.matcher = Matcher(policy) if policy else None
        self._decided.clear()
        ledger = self._writer.ledger
        self._writer.set(ledger_rules.clear_troubles(ledger, lambda _key: True))
        self._guard(new_device_guard(policy, self.tuning.driverless))
        self.wake()

    def _guard(self, wanted: Guard | None) -> None:
        if wanted and not self.tuning.dry:
            self.context.bus.guard(wanted)

    def wake(self) -> None:
        """Start a round soon."""
        self._woken.set()

    # -- events ---------------------------------------------------------------------------------------------------

    def usb_changed(self, event: UsbEvent) -> None:
        if event.action == "remove" and event.port:
            self._clear_at_once(event.port, event.number)
        self.wake()

    def _clear_at_once(self, port: BusId, number: int | None) -> None:
        """Empty every guest port that names a device which the kernel has just reported gone.

        Why this is synchronous, inside the uevent's own callback: the guest keeps its other devices if the port is
        empty within half a second of the removal, and loses them if it takes a second (lab 13). A task would wait
        behind everything that is runnable, during a storm of events for tens of milliseconds and more. So the write,
        one transaction on a separate connection with a time limit of milliseconds, is made right here. Only its
        confirmation, or all of it if xenstored was too slow, continues in the background. No decision is involved: a
        port that names a missing device is wrong under every policy. The regular plan finds such ports too.
        """
        for guest_port, path in self.context.mirror.occupied(port):
            entry = self._writer.ledger.entries.get(guest_port)
            if entry and number is not None and entry.number not in (0, number):
                continue  # a late event about an earlier device at this port
            place = port_place(path)
            if place is None or self.tuning.dry:
                continue
            guest, bus, old_number = (entry.guest, entry.bus, entry.number) if entry else ("", 0, 0)
            step = ClearPort(guest, guest_port, place.type, port, bus, old_number)
            emptied = self._executor.empty_at_once(step)
            self._background(self._executor.clear(step, emptied))

    def _background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except StoreLost:
            log.debug("the connection to xenstore was lost during a step; the next round plans it again")
            await asyncio.sleep(RECONNECT_INTERVAL)  # while it is lost, the same step would fail again at once
        except Exception:
            # The only boundary around steps: a bug in one must not end the agent. It is logged, and a new round
            # follows.
            log.exception("a step failed because of a bug in xenplug; please report it")
            await asyncio.sleep(RECONNECT_INTERVAL)
        self.wake()

    def store_changed(self, domid: int | None) -> None:
        if domid is None:
            self._observer.states_due = True
        self.wake()

    def store_lost(self) -> None:
        """The connection to xenstore broke: reconnect and read everything again."""
        if self._reconnecting is None or self._reconnecting.done():
            log.warning("xenstore: connection lost; reconnecting")
            self._reconnecting = asyncio.get_running_loop().create_task(self._guarded(self._reconnect()))

    async def _reconnect(self) -> None:
        while True:
            try:
                await self.context.store.connect()
                await self.context.mirror.load()
            except (StoreLost, OSError) as error:
                log.debug("xenstore: %s", error)
                await asyncio.sleep(RECONNECT_INTERVAL)
                continue
            log.info("xenstore: connected again")
            self._observer.states_due = True
            return

    # -- the loop ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start to watch and listen before anything is read, then read everything."""
        self.context.store.lost = self.store_lost
        self.context.domains.ended = self.wake
        await self.context.mirror.load()
        await self.context.bus.start(self.usb_changed)

    async def run(self) -> None:
        """Run rounds until cancelled."""
        while True:
            self._woken.clear()
            await self.run_round()
            # A storm can bring an event every millisecond. Leave half of the time to other tasks, such as clearing
            # ports.
            await asyncio.sleep(min(self._round_seconds, MAX_YIELD))
            if self.context.clock.now() >= self._rescan_at or self._was_suspended():
                await self.rescan()
            # Not wait_for: in Python 3.11 it loses a cancellation that arrives together with a wake-up, and never ends.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_wait()):
                    await self._woken.wait()

    def _was_suspended(self) -> bool:
        """Whether the time of day moved against the monotonic clock: the host was suspended, or its clock was set."""
        before, self._clock_offset = self._clock_offset, self.context.clock.wall() - self.context.clock.now()
        return abs(self._clock_offset - before) > SUSPEND_JUMP

    def _seconds_to_wait(self) -> float:
        """Seconds until the next round, if nothing wakes the loop before."""
        wake = self.view.plan.wake
        until = self._rescan_at if wake is None else min(wake, self._rescan_at)
        return max(until - self.context.clock.now(), MIN_INTERVAL)

    async def rescan(self) -> None:
        """Read everything again, in case an event was missed."""
        self._rescan_at = self.context.clock.now() + self.tuning.rescan
        await self.context.bus.rescan()
        self._observer.states_due = True
        self.wake()

    async def run_round(self) -> None:
        """One round."""
        self._round_running = True
        if self._observer.wants_states(self.ledger):
            await self._ask_for_states()
        begun = self.context.clock.now()
        snapshot = self._observer.observe()
        plan = self._plan(snapshot)
        before, self.view = self.view, LastRound(snapshot, plan, self._reporter.timings(self.view, plan))
        if not self.tuning.dry:
            self._dispatch(plan)
        self._round_seconds = self.context.clock.now() - begun
        # After the steps have started: a slow disk under the log must not delay them.
        asyncio.get_running_loop().call_soon(self._reporter.report, before.plan, plan, self.tuning.dry)
        self.round += 1
        self._round_running = False
        if self.after_round:
            self.after_round()
        async with self._round_ended:
            self._round_ended.notify_all()

    async def next_round_after_now(self) -> None:
        """Wake the loop, and wait for the end of the round that starts after this call."""
        seen = self.round + 1 if self._round_running else self.round
        self.wake()
        async with self._round_ended:
            await self._round_ended.wait_for(lambda: self.round > seen)

    async def next_round(self) -> None:
        """Wait for the end of the next round, without starting one."""
        seen = self.round
        async with self._round_ended:
            await self._round_ended.wait_for(lambda: self.round > seen)

    async def _ask_for_states(self) -> None:
        """Call `xl list` in the background: an xl that hangs must not block the loop. Only the first round waits a
        little.
        """
        if self._asking is None or self._asking.done():
            self._asking = self._background(self._observer.ask_for_states())
        if self.round == 0:
            await asyncio.wait({self._asking}, timeout=FIRST_STATES_TIMEOUT)

    def _protection(self, device: Device) -> Cause | None:
        return protection(self.matcher, device, self.context.bus.devices(), self.ledger) if self.matcher else None

    def _plan(self, snapshot: Snapshot) -> Plan:
        now = self.context.clock.now()
        matcher = self.matcher or Matcher(Policy())
        wanted = wanted_guests(matcher, self.ledger)
        grace = self.tuning.times.reboot_grace
        self._writer.set(update(self.ledger, snapshot, now, wanted, grace))
        if matcher.policy.closed:
            self._writer.set(ledger_rules.note_kept_out(self.ledger, snapshot.devices.values()))
        decided = {port: self._decide(matcher, device) for port, device in snapshot.devices.items()}
        self._decided = {port: self._decided[port] for port in decided}
        ledger, decisions = follow(self.ledger, snapshot.devices, decided, matcher.policy)
        self._writer.set(ledger)
        plan = make_plan(
            PlanInput(
                snapshot,
                self.ledger,
                now,
                decisions,
                protect_all(matcher, snapshot.devices, self.ledger),
                self.matcher.policy if self.matcher else None,
                self.tuning.times,
                pci_outlook(matcher, snapshot, self.ledger),
                self.tuning.driverless,
            )
        )
        self._writer.set(replace(self.ledger, pci=replace(self.ledger.pci, asked=plan.asked)))
        return plan

    def _decide(self, matcher: Matcher, device: Device) -> Decision:
        known = self._decided.get(device.port)
        if known and known[0] is device:
            return known[1]
        decision = matcher.decide(device)
        self._decided[device.port] = (device, decision)
        return decision

    def _dispatch(self, plan: Plan) -> None:
        """Start one step for each idle guest. Ports are cleared first, whatever else their guest does."""
        for guest, steps in steps_by_guest(plan.steps).items():
            clears = [s for s in steps if isinstance(s, ClearPort)]
            for step in clears:
                self._begin(f"clear {step.guest_port}", step)
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
                await self._executor.do(step)
            finally:
                # Before the wake-up that ends every step: the round that follows must find the worker idle.
                self._busy.pop(worker, None)

        await self._guarded(act())

    # -- the end -------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Wait for running steps to end, then stop listening."""
        await wait_for_end([*self._busy.values(), *self._background_tasks])
        if self._reconnecting:
            self._reconnecting.cancel()
        self._guard(guard_on_stop(self.matcher.policy if self.matcher else None))
        await self.context.bus.stop()

    async def cancel_all(self) -> None:
        """End as a killed process does: running steps are cut short, nothing is noted."""
        tasks = [*self._busy.values(), *self._background_tasks, *([self._reconnecting] if self._reconnecting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.context.bus.stop()

    async def detach_all(self) -> None:
        """Detach every device that the agent attached (setting on_stop: detach). dom0 gets those that the policy
        admits. Those that their guest is setting up are detached once that is done.
        """
        ours = {at: entry for at, entry in self.ledger.entries.items() if entry.ours}
        left = (being_set_up(self.view.snapshot, at, entry) for at, entry in ours.items())
        await asyncio.sleep(max(left, default=0.0))
        verdicts = {verdict.device.port: verdict for verdict in self.view.plan.verdicts}
        policy = self.matcher.policy if self.matcher else Policy()
        for guest_port, entry in self.ledger.entries.items():
            device = self.view.snapshot.devices.get(entry.busid)
            if entry.ours and device:
                kept = not verdicts[device.port].decision.admits(policy)
                await self._do_last(Detach(entry.guest, guest_port, device, driverless=kept))
                if kept:
                    await self._do_last(Authorize(device, allowed=False))

    async def _do_last(self, step: Step) -> None:
        await wait_for_end([asyncio.get_running_loop().create_task(self._guarded(self._executor.do(step)))])
