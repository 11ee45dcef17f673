"""Hooks and metrics, if the settings ask for them. daemon.py adds them to the agent.

A run that must change nothing (simulated guests, --dry-run) runs no hook and writes no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xenplug.core.reporting.changes import Change
from xenplug.core.settings import Settings
from xenplug.engine.reporter import ChangeSink
from xenplug.service.bootstrap import Agent, Backends

if TYPE_CHECKING:
    from xenplug.adapters.hooks import Hooks
    from xenplug.adapters.metrics import CountedCommands, Metrics


class ChangeSinks:
    """Passes each change to several sinks."""

    def __init__(self, sinks: Sequence[ChangeSink]) -> None:
        self._sinks = sinks

    def record(self, change: Change) -> None:
        """Never raises."""
        for changes_to in self._sinks:
            changes_to.record(change)


class Extras:
    """The hooks and metrics that the settings name."""

    def __init__(self, settings: Settings, harmless: bool) -> None:
        self._hooks: Hooks | None = None
        self._counted: CountedCommands | None = None
        self._metrics: Metrics | None = None
        self._file = "" if harmless else settings.metrics.file
        if settings.hooks and not harmless:
            from xenplug.adapters.hooks import Hooks

            self._hooks = Hooks(settings.hooks, settings.times.hook)

    def changes_to(self, own: ChangeSink) -> ChangeSink:
        """A sink that passes changes to `own`, then to the hooks."""
        return ChangeSinks([own, self._hooks]) if self._hooks else own

    def backends(self, backends: Backends) -> Backends:
        """The backends; with metrics, calls of commands are counted."""
        if not self._file:
            return backends
        from xenplug.adapters.metrics import CountedCommands, Metrics

        self._counted = CountedCommands(backends.commands)
        self._metrics = Metrics(Path(self._file), self._counted)
        return replace(backends, commands=self._counted)

    def after_round(self, agent: Agent) -> None:
        """Count the round that ended."""
        if self._metrics:
            now, policy_store = agent.reconciler.context.clock.now(), agent.policy_store
            good = policy_store.policy is not None and not policy_store.problems
            self._metrics.look(agent.reconciler.view.plan.verdicts, now, good, policy_store.identity)

    async def stop(self) -> None:
        """Write the last counts; kill the hooks that still run."""
        if self._metrics:
            self._metrics.write()
        if self._hooks:
            await self._hooks.stop()
