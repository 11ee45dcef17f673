"""The simulator's speed, and the agent's memory and files over a simulated week (`--days`, by default one day).

Kiosk life: every ten minutes something is plugged or pulled, every two hours the guest reboots.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from pathlib import Path

from tests.simulated_agent import KIOSK, MICE, SimulatedAgent, run

from benchmarks.bench_host import Figures, now, status
from xenplug.adapters.history import HistoryFile
from xenplug.adapters.ledger import LedgerFile
from xenplug.core.reporting.changes import Change

EVERY = 600
REBOOT = 12
"""Every so many plugs and pulls."""
days = 1
"""Set by --days."""


class Kept:
    """The real history, of the size it has by default."""

    def __init__(self, folder: Path) -> None:
        self._history, self.recorded = HistoryFile(folder / "history.jsonl", 1 << 20), 0

    def record(self, change: Change) -> None:
        """To the file."""
        self.recorded += 1
        self._history.record({"at": 0.0, **change.view()})


def measure() -> Figures:
    """Title and figures."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        memory, sizes, events, took = run(_life(folder))
    yield f"simulated days of kiosk life: {days}; real time of one, s", [took / days]
    yield "simulated events per second of real time", [events / took]
    yield "resident memory after each quarter of it, MB", memory
    yield "files kept after each quarter of it, KB", sizes


async def _life(folder: Path) -> tuple[list[float], list[float], int, float]:
    simulated = SimulatedAgent(MICE, KIOSK)
    simulated.history = Kept(folder)  # type: ignore[assignment]
    await simulated.start()
    simulated.ledger_store.save(simulated.agent.reconciler.ledger)
    file = LedgerFile(folder / "ledger.json", simulated.world.clock)
    steps, begun = days * 86_400 // EVERY, now()
    memory: list[float] = []
    sizes: list[float] = []
    events = 0
    for step in range(steps):
        port = f"1-{step // 2 % 4 + 1}"
        if step % 2:
            simulated.pull(port)
        else:
            simulated.plug(port)
        if step % REBOOT == REBOOT - 1:
            simulated.world.guests.reboot("kiosk")
        events += 1
        await asyncio.sleep(EVERY)
        if (step + 1) % (steps // 4) == 0:
            simulated.world.commands.calls.clear()  # the simulated xl's own record of every call
            simulated.world.store.changes.clear()
            gc.collect()
            memory.append(status(os.getpid(), "VmRSS") / 1024)
            file.save(simulated.agent.reconciler.ledger)
            sizes.append(sum(kept.stat().st_size for kept in folder.iterdir()) / 1e3)
    took = now() - begun
    recorded = simulated.history.recorded  # type: ignore[attr-defined]
    await simulated.kill()
    return memory, sizes, events + recorded, took
