"""Counts, and writes the counts to a file for node_exporter's textfile collector, at most once a second."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from xenplug import __version__
from xenplug.adapters.files import write_atomic
from xenplug.core.planning.steps import Verdict
from xenplug.core.policy.digest import PolicyIdentity
from xenplug.core.protocols import Commands, Result
from xenplug.core.reporting.metrics import Tally, count, exposition

PAUSE = 1.0
"""Minimum seconds between two writes."""

log = logging.getLogger("xenplug")


class CountedCommands:
    """Commands (core/protocols) that counts the results of calls."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self.calls: Counter[tuple[str, str]] = Counter()

    async def run(self, argv: Sequence[str], timeout: float) -> Result:
        """Like Commands.run."""
        result = await self._commands.run(argv, timeout)
        ending = "ok" if result.ok else "timed_out" if result.timed_out else "failed"
        self.calls[(argv[1] if len(argv) > 1 else argv[0], ending)] += 1
        return result


class Metrics:
    """The counts of one agent and their file."""

    def __init__(self, path: Path, commands: CountedCommands) -> None:
        self._path = path
        self._commands = commands
        self._tally = Tally()
        self._written: asyncio.TimerHandle | None = None
        self._failing = False

    def look(
        self, verdicts: Iterable[Verdict], now: float, policy: bool, identity: PolicyIdentity | None = None
    ) -> None:
        """Count one round, and write soon. `identity`: the policy in force."""
        self._tally = count(self._tally, verdicts, now, policy, identity)
        if self._written is None:
            self._written = asyncio.get_running_loop().call_later(PAUSE, self.write)

    def write(self) -> None:
        """Write the file. A failure is logged when it begins; nothing depends on it."""
        if self._written:
            self._written.cancel()
            self._written = None
        text = exposition(self._tally, self._commands.calls, __version__)
        try:
            write_atomic(self._path, text.encode())
        except OSError as error:
            if not self._failing:
                log.warning(
                    "metrics are not written: %s: %s; create the folder, or remove metrics.file", self._path, error
                )
            self._failing = True
        else:
            self._failing = False
