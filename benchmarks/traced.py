"""Runs `xenplug` and records when each part of the path from event to act begins, for phases.py:
`python -m benchmarks.traced run …`.

A line of $XENPLUG_TRACE is CLOCK_MONOTONIC seconds and the name of the moment. Kept in memory and written at SIGUSR1,
so that noting costs the path some microseconds only.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xenplug.adapters.proc import Processes
from xenplug.adapters.udev import UdevBus
from xenplug.cli import main
from xenplug.engine.context import LedgerWriter
from xenplug.engine.executor import Executor
from xenplug.engine.observer import Observer
from xenplug.engine.reconciler import Reconciler

moments: list[tuple[float, str]] = []


def note(name: str) -> None:
    """This moment."""
    moments.append((time.clock_gettime(time.CLOCK_MONOTONIC), name))


def noted(kind: type, method: str, before: str = "", after: str = "") -> None:
    """Have a method note when it begins, or when it has ended."""
    real: Callable[..., Any] = getattr(kind, method)

    @functools.wraps(real)
    def called(*arguments: Any, **named: Any) -> Any:
        if before:
            note(before)
        result = real(*arguments, **named)
        if after:
            note(after)
        return result

    setattr(kind, method, called)


def write(*_: object) -> None:
    """All moments so far, to the file."""
    lines = [f"{when:.9f} {name}\n" for when, name in moments]
    moments.clear()
    target = Path(os.environ["XENPLUG_TRACE"])
    scratch = target.with_suffix(".new")
    scratch.write_text("".join(lines))
    scratch.replace(target)


# A tracer names the moments inside a class, private ones too; if one is renamed, getattr fails at the start.
noted(UdevBus, "_take", before="received")
noted(UdevBus, "_observe", before="reading", after="read")
noted(Reconciler, "usb_changed", before="event")
noted(Observer, "observe", before="looking", after="seen")
noted(Reconciler, "_plan", after="planned")
noted(Executor, "do", before="acting")
noted(LedgerWriter, "set", after="noted")
noted(Processes, "run", before="starting")
noted(UdevBus, "_removed", before="removed")
signal.signal(signal.SIGUSR1, write)
sys.argv[0] = "xenplug"
main.entry()
