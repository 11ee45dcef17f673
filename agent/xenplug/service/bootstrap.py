"""Builds an agent from a set of backends. Used by the daemon, the simulator and the tests."""

from __future__ import annotations

import time
from dataclasses import dataclass

from xenplug.adapters.mirror import Mirror
from xenplug.adapters.xl import Xl
from xenplug.core import settings as conf
from xenplug.core.ledger.troubles import Backoff
from xenplug.core.planning.plan_input import WaitTimes
from xenplug.core.protocols import Clock, Commands, Domains, Store, UsbBus
from xenplug.engine.context import EngineContext, LedgerStore
from xenplug.engine.reconciler import Reconciler, Tuning
from xenplug.engine.reporter import ChangeSink
from xenplug.service.api import Service
from xenplug.service.history import History
from xenplug.service.policy_store import PolicyStore


class HostClock:
    """This machine's clocks."""

    def now(self) -> float:
        """CLOCK_MONOTONIC: the same scale for all processes until the next boot."""
        return time.monotonic()

    def wall(self) -> float:
        """Time of day."""
        return time.time()


@dataclass(frozen=True, slots=True)
class Backends:
    """The parts of the host, real or simulated, that an agent uses."""

    bus: UsbBus
    store: Store
    commands: Commands
    domains: Domains
    clock: Clock


@dataclass(frozen=True, slots=True)
class Records:
    """Where an agent stores what must survive it."""

    ledger_store: LedgerStore
    changes_to: ChangeSink
    history: History
    """What the service reads and follows; changes reach it through `changes_to`."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent, ready to be started."""

    reconciler: Reconciler
    policy_store: PolicyStore
    service: Service


def tuning(settings: conf.Settings, dry: bool = False) -> Tuning:
    """The settings of the loop."""
    times = settings.times
    return Tuning(
        WaitTimes(times.settle, times.delivery, times.reboot_grace, times.no_frontend),
        Backoff(times.backoff_first, times.backoff_max, times.give_up),
        times.rescan,
        dry,
        settings.hand_over == "driverless",
    )


def assemble(
    backends: Backends, records: Records, policy_store: PolicyStore, settings: conf.Settings, dry: bool = False
) -> Agent:
    """An agent on these backends. The policy is read, and put in force if it is valid."""
    mirror = Mirror(backends.store, lambda domid: reconciler.store_changed(domid))
    xl = Xl(backends.commands, settings.toolstack.xl, settings.times.xl)
    context = EngineContext(backends.bus, backends.store, mirror, backends.domains, xl, backends.clock)
    reconciler = Reconciler(context, records.ledger_store, records.changes_to, tuning(settings, dry))
    if policy_store.reload():
        reconciler.set_policy(policy_store.policy)
    return Agent(reconciler, policy_store, Service(reconciler, policy_store, records.history))
