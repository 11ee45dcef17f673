"""Puts an agent together from the faces of a floor. The real daemon, the simulator and the tests all do it here."""

from __future__ import annotations

import time
from dataclasses import dataclass

from xenplug.service.history import Chronicle
from xenplug.core import settings as conf
from xenplug.core.ledger.ledger import Backoff
from xenplug.core.protocols import Clock, Commands, Domains, Store, UsbBus
from xenplug.core.planning.plan_input import Times
from xenplug.engine.context import Keeper, Outside
from xenplug.service.policy_store import Policies
from xenplug.engine.reconciler import Reconciler, Tuning
from xenplug.service.api import Service
from xenplug.adapters.mirror import Mirror
from xenplug.adapters.xl import Xl
from xenplug.engine.reporter import Journal


class HostClock:
    """This machine's clocks."""

    def now(self) -> float:
        """CLOCK_MONOTONIC: the same scale for all processes until the next boot."""
        return time.monotonic()

    def wall(self) -> float:
        """Time of day."""
        return time.time()


@dataclass(frozen=True, slots=True)
class Faces:
    """What an agent is put on."""

    bus: UsbBus
    store: Store
    commands: Commands
    domains: Domains
    clock: Clock


@dataclass(frozen=True, slots=True)
class Notes:
    """Where an agent writes down what must outlive it."""

    keeper: Keeper
    journal: Journal
    chronicle: Chronicle
    """What the service reads and follows; `journal` tells it."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent, ready to be started."""

    reconciler: Reconciler
    policies: Policies
    service: Service


def tuning(settings: conf.Settings, dry: bool = False) -> Tuning:
    """The loop's part of the settings."""
    times = settings.times
    return Tuning(
        Times(times.settle, times.delivery, times.reboot_grace, times.no_frontend),
        Backoff(times.backoff_first, times.backoff_max, times.give_up),
        times.rescan,
        dry,
        settings.hand_over == "driverless",
    )


def assemble(faces: Faces, notes: Notes, policies: Policies, settings: conf.Settings, dry: bool = False) -> Agent:
    """An agent on these faces; the policy is read, and in force if it is good."""
    mirror = Mirror(faces.store, lambda domid: reconciler.store_changed(domid))
    xl = Xl(faces.commands, settings.toolstack.xl, settings.times.xl)
    outside = Outside(faces.bus, faces.store, mirror, faces.domains, xl, faces.clock)
    reconciler = Reconciler(outside, notes.keeper, notes.journal, tuning(settings, dry))
    if policies.reload():
        reconciler.set_policy(policies.policy)
    return Agent(reconciler, policies, Service(reconciler, policies, notes.chronicle))
