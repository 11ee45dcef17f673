"""A guest that writes xenstore all the time delays nothing: no start, no attach, no unplug, no stop."""

from __future__ import annotations

import pytest

from .agent import AgentProcess
from .catalogue import MOUSE, STICK
from .hammer import hammering
from .player import Player
from .test_agent import POLICY, QUSB, Start, agent, kiosk, port_value
from .toolstack import BenchToolstack
from .usb import Testbed
from .wait import until

__all__ = ["agent", "kiosk"]
SLOW = 20.0
"""Seconds: the machine may have much else to do; without a bound it takes for ever."""


@pytest.mark.parametrize(
    "pattern",
    [
        "/local/domain/7/device/vusb/{}/state",
        "/local/domain/7/device/vusb/0/state",
        "/local/domain/0/backend/qusb/7/0/x{}",
    ],
    ids=["900 controllers of a guest", "a guest's only controller", "dom0 itself"],
)
def test_a_writer_that_never_rests(
    agent: Start, kiosk: Player, testbed: Testbed, toolstack: BenchToolstack, pattern: str
) -> None:
    """Another guest's device is still attached, used, cleared and detached."""
    kiosk.boot(7, "loud", "pv", controllers=[QUSB])
    until(lambda: toolstack.store.read("/local/domain/7/device/vusb/0/state") == "4", what="the frontend")
    with hammering(toolstack.socket, 900, pattern):
        running: AgentProcess = agent(POLICY)
        testbed.plug("1-4", MOUSE)
        running.wait_for("1-4", SLOW, state="attached", guest="kiosk")
        testbed.plug("1-3", STICK)
        running.wait_for("1-3", SLOW, state="attached", guest="kiosk")
        running.client.call("Detach", device="1-3")
        testbed.unplug("1-4")
        until(lambda: port_value(toolstack, 1) == "", 5, "the stale port's clearing")
        assert running.end() == 0
