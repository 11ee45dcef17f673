"""`xenplug run`: wiring only. Puts the agent on its faces, opens the control socket, minds signals and the watchdog.

Order at the start: the lock (a second agent refuses), the connection to xenstore, the policy, the watches and monitors
(before anything is enumerated), the first round, READY. A policy that does not load does not keep the agent from
running: it attaches nothing and says so.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from xenplug import __version__
from xenplug.acts import Keeper
from xenplug.assembly import Agent, Faces, HostClock, Notes, assemble
from xenplug.core.changes import Change
from xenplug.core.faces import UsbBus
from xenplug.core.settings import Settings
from xenplug.policies import Policies, read_policy
from xenplug.service import handlers
from xenplug.shell.control import ControlServer, Place
from xenplug.shell.files import lock
from xenplug.shell.history import History
from xenplug.shell.ledger import LedgerFile, NoLedger
from xenplug.shell.notify import Notifier

log = logging.getLogger("xenplug")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line of `run` says beside the settings."""

    policy: Path
    toolstack: str = "xl"
    host: str = "udev"
    guests: Path | None = None
    dry: bool = False

    @property
    def simulated(self) -> bool:
        """The guests are played, and nothing of this host is touched."""
        return self.toolstack == "simulated"

    @property
    def harmless(self) -> bool:
        """Nothing outlives the run."""
        return self.simulated or self.dry


class HistoryJournal:
    """Changes go to the history file with the time of day."""

    def __init__(self, history: History | None, clock: HostClock) -> None:
        self._history = history
        self._clock = clock

    def record(self, change: Change) -> None:
        """Never raises."""
        if self._history:
            self._history.record({"at": self._clock.wall(), **change.view()})


def serve(options: Options, settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code. Raises what main turns into one line (see cli/run)."""
    return asyncio.run(_serve(options, settings))


async def _serve(options: Options, settings: Settings) -> int:
    clock, notifier = HostClock(), Notifier()
    async with AsyncExitStack() as stack:
        if not options.dry:
            stack.enter_context(lock(Path(settings.state) / "agent.lock"))
        agent = await _agent(options, _fed(settings, notifier), clock)
        # The policy stays as long as the agent does: not to be walked by each of the collector's rounds.
        gc.freeze()
        await agent.reconciler.start()
        await agent.reconciler.look()
        if not options.dry:
            server = ControlServer(
                handlers(agent.service), Place(Path(settings.control.socket), group=settings.control.group)
            )
            await server.start()
            stack.push_async_callback(server.stop)
        log.info("xenplug %s is ready: %s", __version__, agent.policies.message)
        notifier.ready()
        notifier.status(agent.policies.message)
        await _until_told(agent, notifier, options)
        notifier.stopping()
        if settings.on_stop == "detach":
            await agent.reconciler.take_all_off()
        await agent.reconciler.stop()
    return 0


def _fed(settings: Settings, notifier: Notifier) -> Settings:
    """The watchdog is fed by rounds: there must be one as often as it wants to be."""
    rescan = min(settings.times.rescan, notifier.watchdog_interval or settings.times.rescan)
    return replace(settings, times=replace(settings.times, rescan=rescan))


async def _agent(options: Options, settings: Settings, clock: HostClock) -> Agent:
    policies = Policies(lambda: read_policy(options.policy), clock.wall)
    keeper: Keeper = NoLedger() if options.harmless else LedgerFile(Path(settings.state) / "ledger.json", clock)
    history = None if options.harmless else History(Path(settings.history.file), settings.history.size)
    notes = Notes(keeper, HistoryJournal(history, clock))
    if options.simulated:
        from xenplug import simulated

        policies.reload()
        guests = simulated.read_guests_file(options.guests) if options.guests else simulated.guests_of(policies.policy)
        faces = await simulated.faces(usb_bus(options, settings), guests, clock)
        return assemble(faces, notes, policies, settings, options.dry)
    faces = _real_faces(options, settings, clock)
    await faces.store.connect()
    return assemble(faces, notes, policies, settings, options.dry)


def _real_faces(options: Options, settings: Settings, clock: HostClock) -> Faces:
    from xenplug.shell.domains import XenDomains
    from xenplug.shell.proc import Processes
    from xenplug.shell.xenstore import Xenstore, default_socket

    paths = settings.paths
    store = Xenstore(paths.xenstored or default_socket())
    domains = XenDomains(Path(paths.xen_lib), Path(paths.proc), Path(paths.dev))
    return Faces(usb_bus(options, settings), store, Processes(), domains, clock)


def usb_bus(options: Options, settings: Settings) -> UsbBus:
    """The devices of this host, followed live, or of a recording."""
    if options.host != "udev":
        from xenplug.shell.recording import RecordedBus

        return RecordedBus(Path(options.host))
    from xenplug.shell.inuse import InUse
    from xenplug.shell.sysfs import Sysfs
    from xenplug.shell.udev import UdevBus

    paths = settings.paths
    return UdevBus(Sysfs(Path(paths.sys)), asyncio.get_running_loop(), InUse())


async def _until_told(agent: Agent, notifier: Notifier, options: Options) -> None:
    """The loop, until a signal ends it; SIGHUP reads the policy anew."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    reloads: set[asyncio.Task[object]] = set()

    def reload() -> None:
        task: asyncio.Task[object] = loop.create_task(_reload(agent, notifier))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    agent.reconciler.after_round = notifier.alive if notifier.watchdog_interval else None
    main = loop.create_task(agent.reconciler.run())
    end = loop.create_task(told.wait())
    if options.dry and options.host != "udev":
        told.set()
    await asyncio.wait({main, end}, return_when=asyncio.FIRST_COMPLETED)
    for task in (main, end):
        task.cancel()
    if not told.is_set():
        main.result()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(main, end)


async def _reload(agent: Agent, notifier: Notifier) -> None:
    notifier.reloading()
    message, _problems = await agent.service.reload()
    notifier.ready()
    notifier.status(message)
