"""`xenplug run`: wiring only. Builds the agent on its backends, opens the control socket, handles signals and watchdog.

Order at the start: the lock (a second agent refuses to start), the connection to xenstore, the policy, the watches and
monitors (before anything is enumerated), the first round, READY. If the policy does not load, the agent still runs: it
attaches nothing and reports the problems.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xenplug import __version__
from xenplug.adapters.control import ControlServer, SocketFile
from xenplug.adapters.files import Lock, Unfit, lock, read_bounded
from xenplug.adapters.history import HistoryFile
from xenplug.adapters.host_system import this_host
from xenplug.adapters.ledger import LedgerFile, NoLedger
from xenplug.adapters.notify import Notifier
from xenplug.adapters.policy_files import fault_problems
from xenplug.adapters.programs import found_xl, unsafe
from xenplug.adapters.requesters import UserNames, requested_by
from xenplug.core.documents.document import MAX_BYTES
from xenplug.core.policy.load import Loaded
from xenplug.core.protocols import UsbBus
from xenplug.core.reporting.orders import Order, Requester, Way
from xenplug.core.settings import ControlSettings, Settings
from xenplug.engine.context import LedgerStore
from xenplug.hooks_and_metrics import Extras
from xenplug.service.api import handlers
from xenplug.service.bootstrap import Agent, Backends, HostClock, Records, assemble
from xenplug.service.history import History
from xenplug.service.policy_store import PolicyStore, read_policy

if TYPE_CHECKING:
    from xenplug.scenario.simulated_host import SimulatedGuest

log = logging.getLogger("xenplug")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `run` on the command line."""

    policy: Path
    toolstack: str = "xl"
    host: str = "udev"
    guests: Path | None = None
    dry: bool = False

    @property
    def simulated(self) -> bool:
        """The guests are simulated, and nothing on this host is changed."""
        return self.toolstack == "simulated"

    @property
    def harmless(self) -> bool:
        """The run leaves nothing behind: no ledger, no history, no metrics."""
        return self.simulated or self.dry


class CannotStart(Exception):
    """An argument cannot be used. The text is the fact and the remedy, or one problem per line."""


def serve(options: Options, settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code. cli/run turns what it raises into one line."""
    return asyncio.run(_serve(options, settings))


async def _serve(options: Options, settings: Settings) -> int:
    clock, notifier, signals = HostClock(), Notifier(), Signals()
    async with AsyncExitStack() as stack:
        ledger_file = None if options.harmless else LedgerFile(Path(settings.state) / "ledger.json", clock)
        upkeep = Upkeep(ledger_file)
        if not options.dry:
            stop = this_host().service("stop")
            upkeep.lock = stack.enter_context(lock(Path(settings.state) / "agent.lock", stop))
        extras = Extras(settings, options.harmless)
        agent = await _agent(options, _with_watchdog(settings, notifier), clock, ledger_file or NoLedger(), extras)
        # The policy lives as long as the agent: the garbage collector need not visit it each time.
        gc.freeze()
        stack.push_async_callback(extras.stop)
        agent.reconciler.after_round = lambda: _after_round(agent, notifier, extras, upkeep)
        with requested_by(await UserNames().own()):
            agent.service.started()
        # xenstored may never answer here, and a signal must still end the agent.
        if not await _before_signal(_begin(agent), signals):
            await agent.reconciler.stop()
            return 0
        if not options.dry:
            server = ControlServer(handlers(agent.service), _socket_file(settings.control))
            await server.start()
            upkeep.server = server
            stack.push_async_callback(server.stop)
        log.info("xenplug %s is ready: %s", __version__, agent.policy_store.message)
        notifier.ready()
        notifier.status(agent.policy_store.message)
        if options.dry and options.host != "udev":
            signals.end.set()  # nothing ever changes in a recording
        await _run_until_signal(agent, notifier, signals)
        notifier.stopping()
        if signals.ended_by:
            with requested_by(Requester(Way.SIGNAL)):
                agent.service.order_log.taken(Order("stop", (signals.ended_by,)))
        if settings.on_stop == "detach":
            await agent.reconciler.detach_all()
        await agent.reconciler.stop()
    return 0


async def _begin(agent: Agent) -> None:
    await agent.reconciler.start()
    await agent.reconciler.run_round()


async def _before_signal(work: Coroutine[None, None, None], signals: Signals) -> bool:
    """Do the work; False if a signal ended the agent before. Raises what the work raises."""
    working, end = asyncio.create_task(work), asyncio.create_task(signals.end.wait())
    await asyncio.wait({working, end}, return_when=asyncio.FIRST_COMPLETED)
    end.cancel()
    if not working.done():
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return False
    working.result()
    return True


def _socket_file(control: ControlSettings) -> SocketFile:
    mode = 0o666 if control.readers == "all" else 0o660  # control.py checks for each peer whether it may act
    return SocketFile(Path(control.socket), mode, control.owner or None, control.group)


def _with_watchdog(settings: Settings, notifier: Notifier) -> Settings:
    """The settings with a rescan interval short enough for the watchdog, which each round notifies."""
    rescan = min(settings.times.rescan, notifier.watchdog_interval or settings.times.rescan)
    return replace(settings, times=replace(settings.times, rescan=rescan))


def _after_round(agent: Agent, notifier: Notifier, extras: Extras, upkeep: Upkeep) -> None:
    """After each round: notify the watchdog, count the round, and look for files that were removed."""
    if notifier.watchdog_interval:
        notifier.alive()
    extras.after_round(agent)
    upkeep.after_round(agent)


class Upkeep:
    """Makes the agent's own files again if they are removed while it runs: at the latest after the next rescan."""

    def __init__(self, ledger_file: LedgerFile | None) -> None:
        self._ledger_file = ledger_file
        self.lock: Lock | None = None
        self.server: ControlServer | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._lock_lost = False

    def after_round(self, agent: Agent) -> None:
        """Never raises."""
        if self._ledger_file:
            self._ledger_file.restore(agent.reconciler.ledger)
        if self.lock:
            lost = not self.lock.restore()
            if lost and not self._lock_lost:
                log.error("agent.lock was removed or replaced, and cannot be taken again: do not start a second agent")
            self._lock_lost = lost
        if self.server and (self._restoring is None or self._restoring.done()):
            self._restoring = asyncio.get_running_loop().create_task(self.server.restore())


async def _agent(
    options: Options, settings: Settings, clock: HostClock, ledger_store: LedgerStore, extras: Extras
) -> Agent:
    file = None if options.harmless else HistoryFile(Path(settings.history.file), settings.history.size)
    history = History(clock, file)
    records = Records(ledger_store, extras.changes_to(history), history)
    if options.simulated:
        from xenplug.scenario.simulated_host import SimulatedHost

        host = SimulatedHost(usb_bus(options, settings), _guests_named(options))
        policy_store = PolicyStore(lambda: host.start_named_guests(read_policy(options.policy)), clock.wall)
        return assemble(host.backends(clock), records, policy_store, settings, options.dry)
    guarded = os.geteuid() == 0
    policy_store = PolicyStore(lambda: read_safe_policy(options, settings, guarded=guarded), clock.wall)
    backends = _real_backends(options, settings, clock)
    await backends.store.connect()
    with_xl_path = replace(settings, toolstack=replace(settings.toolstack, xl=found_xl(settings.toolstack.xl)))
    return assemble(extras.backends(backends), records, policy_store, with_xl_path, options.dry)


def read_safe_policy(options: Options, settings: Settings, *, guarded: bool) -> Loaded:
    """The policy. `guarded`: refuse it if users other than root may change it, or a program that the agent runs."""
    programs = fault_problems(unsafe(settings)) if guarded and not options.dry else []
    loaded = read_policy(options.policy, guarded=guarded)
    return Loaded(None, (*programs, *loaded.problems)) if programs else loaded


def _guests_named(options: Options) -> list[SimulatedGuest] | None:
    from xenplug.scenario.simulated_host import read_guests

    if options.guests is None:
        return None
    try:
        return read_guests(read_bounded(options.guests, MAX_BYTES), str(options.guests))
    except OSError as error:
        raise CannotStart(f"{options.guests}: cannot be read ({error.strerror}); name a file of guests") from None
    except (Unfit, ValueError) as error:
        raise CannotStart(str(error)) from None


def _real_backends(options: Options, settings: Settings, clock: HostClock) -> Backends:
    from xenplug.adapters.domains import XenDomains
    from xenplug.adapters.proc import Processes
    from xenplug.adapters.xenstore import Xenstore, default_socket

    paths = settings.paths
    store = Xenstore(paths.xenstored or default_socket())
    domains = XenDomains(Path(paths.xen_lib), Path(paths.proc), Path(paths.dev))
    return Backends(usb_bus(options, settings), store, Processes(), domains, clock)


def usb_bus(options: Options, settings: Settings) -> UsbBus:
    """The devices of this host, followed live, or of a recording."""
    if options.host != "udev":
        from xenplug.adapters.recording import RecordedBus

        try:
            return RecordedBus(Path(options.host))
        except OSError as error:
            text = f"{options.host}: cannot be read ({error.strerror}); name a .umockdev recording"
            raise CannotStart(text) from None
        except ValueError as error:
            raise CannotStart(str(error)) from None
    from xenplug.adapters.in_use import InUse
    from xenplug.adapters.root_hubs import RootHubs
    from xenplug.adapters.sysfs import Sysfs
    from xenplug.adapters.udev import UdevBus

    paths = settings.paths
    hubs = RootHubs(Path(paths.sys), Path(settings.state) / "guard.json")
    return UdevBus(Sysfs(Path(paths.sys)), asyncio.get_running_loop(), InUse(), hubs=hubs)


class Signals:
    """The signals received. Handled from the very start: a SIGHUP without a handler would end the agent."""

    def __init__(self) -> None:
        self.end, self.reload = asyncio.Event(), asyncio.Event()
        self.ended_by = ""
        """The name of the signal that ends the agent."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number.name)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def _end(self, name: str) -> None:
        self.ended_by = name
        self.end.set()


async def _run_until_signal(agent: Agent, notifier: Notifier, signals: Signals) -> None:
    """Run the loop until a signal ends it; SIGHUP reloads the policy."""
    work = [asyncio.create_task(agent.reconciler.run()), asyncio.create_task(_reloads(agent, notifier, signals))]
    end = asyncio.create_task(signals.end.wait())
    done, _ = await asyncio.wait({*work, end}, return_when=asyncio.FIRST_COMPLETED)
    for task in (*work, end):
        task.cancel()
    await asyncio.gather(*work, end, return_exceptions=True)
    for task in done:
        task.result()


async def _reloads(agent: Agent, notifier: Notifier, signals: Signals) -> None:
    while await signals.reload.wait():
        signals.reload.clear()
        notifier.reloading()
        with requested_by(Requester(Way.SIGNAL)):
            message, _problems = await agent.service.reload()
        notifier.ready()
        notifier.status(message)
