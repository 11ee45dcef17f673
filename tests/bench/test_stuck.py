"""The real agent among devices over which the kernel does not come back: the others are served, and it ends when told.

An attribute of such a device is a FIFO that somebody holds open and nobody fills: opening it works, reading it waits.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from .agent import AgentProcess
from .catalogue import MOUSE, STICK
from .player import Player
from .test_agent import POLICY, Start, agent, kiosk, port_value
from .toolstack import BenchToolstack
from .usb import Testbed
from .usbspec import Bus, HostController
from .wait import until

__all__ = ["agent", "kiosk"]
SLOW = 20.0


@contextmanager
def hanging(testbed: Testbed, port: str) -> Iterator[None]:
    """Reading this device's product waits."""
    file = testbed.tree.folder(port) / "product"
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    held = os.open(file, os.O_RDWR)
    try:
        yield
    finally:
        os.close(held)


@pytest.mark.parametrize("count", [8, 9, 20])
def test_devices_that_hang(
    agent: Start, kiosk: Player, testbed: Testbed, toolstack: BenchToolstack, count: int
) -> None:
    """Another device is attached, pulled and cleared, one that was there before too; a signal ends the agent."""
    testbed.add_host_controller(HostController("0000:00:1d.0", buses={9: Bus(30)}))
    with ExitStack() as stack:
        for number in range(1, count + 1):
            testbed.plug(f"9-{number}", STICK, quiet=True)
            stack.enter_context(hanging(testbed, f"9-{number}"))
        testbed.plug("1-3", STICK, quiet=True)
        running: AgentProcess = agent(POLICY)
        running.wait_for("1-3", SLOW, state="attached", guest="kiosk")
        testbed.plug("1-4", MOUSE)
        running.wait_for("1-4", SLOW, state="attached", guest="kiosk")
        port = running.device("1-4")["guest_port"]
        testbed.unplug("1-4")
        until(lambda: port_value(toolstack, port) == "", 5, "the stale port's clearing")
        assert "9-1: an operation hangs in the kernel for" in running.log.read_text()
        assert running.end(signal.SIGTERM) == 0
