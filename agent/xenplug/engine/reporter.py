"""Reports what a round changed: in the log, in the history, and as the times in a status."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Protocol

from xenplug.core.model import BusId, DeviceKey, Snapshot
from xenplug.core.planning.steps import Plan, Verdict
from xenplug.core.protocols import Clock
from xenplug.core.reporting.changes import Change, changes
from xenplug.core.reporting.explain import step_words
from xenplug.core.reporting.views import Timing

log = logging.getLogger("xenplug")


class ChangeSink(Protocol):
    """Where changes are reported."""

    def record(self, change: Change) -> None:
        """Report one change. Never raises."""


@dataclass(slots=True)
class LastRound:
    """The last round: what status and explain show."""

    snapshot: Snapshot = field(default_factory=lambda: Snapshot({}, {}))
    plan: Plan = field(default_factory=lambda: Plan((), ()))
    timings: dict[BusId, Timing] = field(default_factory=dict)


class Reporter:
    """Reports changes."""

    def __init__(self, changes_to: ChangeSink, clock: Clock) -> None:
        self._changes_to = changes_to
        self._clock = clock
        self._reported: dict[DeviceKey, Verdict] = {}
        """The verdict last reported for each device; short-lived intermediate states are not reported."""

    def report(self, before: Plan, plan: Plan, dry: bool) -> None:
        """One line for each change, and with `dry` one for each step that is not done."""
        if dry:
            for step in set(plan.steps) - set(before.steps):
                log.info("would %s", step_words(step))
        for change in changes(self._reported.values(), plan.verdicts):
            log.info("%s", change.line)
            self._changes_to.record(change)
            self._remember(change)

    def _remember(self, change: Change) -> None:
        if change.verdict:
            self._reported[change.verdict.device.key] = change.verdict
        elif change.before:
            del self._reported[change.before.device.key]

    def timings(self, last: LastRound, plan: Plan) -> dict[BusId, Timing]:
        """Since when each device is in its state, and when the next attempt is made."""
        wall, now = self._clock.wall(), self._clock.now()
        before = {v.device.port: v for v in last.plan.verdicts}
        timings: dict[BusId, Timing] = {}
        for verdict in plan.verdicts:
            port = verdict.device.port
            old, kept = before.get(port), last.timings.get(port)
            same = old is not None and _stage(old) == _stage(verdict)
            since = kept.since if same and kept else wall
            next_try = None if verdict.next_try is None else wall + verdict.next_try - now
            timings[port] = Timing(since, next_try)
        return timings


def _stage(verdict: Verdict) -> tuple[object, ...]:
    """While this stays the same, `since` stays the same."""
    return verdict.device.number, verdict.state, verdict.guest
