"""Tells what the reconciler's rounds changed: a line of the journal, an entry of the history, the times of a status."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Protocol

from xenplug.core.ledger.ledger import Place, place
from xenplug.core.protocols import Clock
from xenplug.core.model import BusId, Snapshot
from xenplug.core.reporting.changes import Change, changes
from xenplug.core.planning.steps import Plan, Verdict
from xenplug.core.reporting.explain import step_words
from xenplug.core.reporting.views import Shown

log = logging.getLogger("xenplug")


class Journal(Protocol):
    """Where changes are told."""

    def record(self, change: Change) -> None:
        """Tell one change. Never raises."""


@dataclass(slots=True)
class View:
    """The last round, for whoever asks how things stand."""

    snapshot: Snapshot = field(default_factory=lambda: Snapshot({}, {}))
    plan: Plan = field(default_factory=lambda: Plan((), ()))
    shown: dict[BusId, Shown] = field(default_factory=dict)


class Teller:
    """Tells changes."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._told: dict[Place, Verdict] = {}
        """What was told last of each device: moments on the way to something are not."""

    def tell(self, before: Plan, plan: Plan, dry: bool) -> None:
        """One line for each change, and with `dry` one for each step that is not done."""
        if dry:
            for step in set(plan.steps) - set(before.steps):
                log.info("would %s", step_words(step))
        for change in changes(self._told.values(), plan.verdicts):
            log.info("%s", change.line)
            self._journal.record(change)
            self._remember(change)

    def _remember(self, change: Change) -> None:
        if change.verdict:
            self._told[place(change.verdict.device)] = change.verdict
        elif change.before:
            del self._told[place(change.before.device)]

    def shown(self, last: View, plan: Plan) -> dict[BusId, Shown]:
        """Since when each device stands as it does, and when it is tried next."""
        wall, now = self._clock.wall(), self._clock.now()
        before = {v.device.port: v for v in last.plan.verdicts}
        shown: dict[BusId, Shown] = {}
        for verdict in plan.verdicts:
            port = verdict.device.port
            old, kept = before.get(port), last.shown.get(port)
            same = old is not None and _stage(old) == _stage(verdict)
            since = kept.since if same and kept else wall
            next_try = None if verdict.next_try is None else wall + verdict.next_try - now
            shown[port] = Shown(since, next_try)
        return shown


def _stage(verdict: Verdict) -> tuple[object, ...]:
    """What `since` counts from the beginning of."""
    return verdict.device.number, verdict.state, verdict.guest
