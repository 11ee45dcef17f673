"""The host fails under the running agent: no disk, no file descriptors, no processes, an xl that hangs.

Each time the main work continues as far as possible, and failures are reported. Once the host has recovered, nothing is
lost and nothing attached twice.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .agent import AgentProcess
from .catalogue import MOUSE, STICK
from .player import Player
from .shims import build
from .test_agent import POLICY, kiosk, port_value
from .toolstack import BenchToolstack
from .usb import Testbed
from .wait import until

__all__ = ["kiosk"]
FAST = '{"backoff_first": "200ms", "backoff_max": "500ms", "give_up": 100, "rescan": "2s", "xl": "1s"}'

FLOOD = """
import socket, sys, time
calls = b"".join(b'{"method":"org.xenplug.%s"}\\0' % name for name in (b"Status", b"Devices", b"Reload"))
calls += b'{"method":"org.xenplug.History","parameters":{"device":"9-9"},"more":true}\\0'
lines = []
for _ in range(30):
    line = socket.socket(socket.AF_UNIX)
    line.connect(sys.argv[1])
    line.setblocking(False)
    lines.append(line)
print("begun", flush=True)
while True:
    for line in lines:
        try:
            line.send(calls)
        except BlockingIOError:
            pass
        try:
            line.recv(1 << 16)
        except BlockingIOError:
            pass
    time.sleep(0.001)
"""
"""Thirty clients that call every method, including the most expensive, as fast as they are answered."""


class Starved(AgentProcess):
    """An agent whose host can be made to run out of things."""

    @property
    def _faults(self) -> Path:
        return self.folder / "faults"

    def environment(self) -> dict[str, str]:
        """With the shim in front."""
        self._faults.mkdir(exist_ok=True)
        found = dict(super().environment())
        preload = f"{build('faults')}:{found['LD_PRELOAD']}"
        return found | {"LD_PRELOAD": preload, "XENPLUG_BENCH_FAULTS": str(self._faults)}

    def lack(self, what: str) -> None:
        """Start a fault: disk-full or no-fork."""
        (self._faults / what).touch()

    def recover(self, what: str) -> None:
        """End the fault."""
        (self._faults / what).unlink()

    def ledger(self) -> dict[str, Any]:
        """The ledger on disk."""
        kept: dict[str, Any] = json.loads((self.folder / "state/ledger.json").read_text())
        return kept


@pytest.fixture
def agent(toolstack: BenchToolstack, testbed: Testbed, player: Player) -> Iterator[Starved]:
    """One that runs."""
    running = Starved(toolstack, testbed, POLICY, FAST)
    running.start()
    yield running
    running.end()


def attaches(toolstack: BenchToolstack) -> int:
    return len(toolstack.calls("usbdev-attach"))


def test_a_full_disk(agent: Starved, kiosk: Player, testbed: Testbed) -> None:
    """Devices are attached and cleared as usual, even over a crash; with free space everything is written again."""
    testbed.plug("1-4", MOUSE)
    agent.wait_for("1-4", state="attached", used=True)
    agent.lack("disk-full")
    testbed.plug("1-3", STICK)
    agent.wait_for("1-3", state="attached", used=True)
    testbed.unplug("1-4")
    until(lambda: port_value(kiosk.toolstack, 1) == "", 2, "the stale port's clearing")
    warnings = [line for line in agent.log.read_text().splitlines() if "ledger.json: cannot be written" in line]
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]
    agent.end(signal.SIGKILL)
    testbed.plug("1-4", MOUSE)
    agent.start()
    agent.wait_for("1-3", state="attached", used=True)
    agent.wait_for("1-4", state="attached", used=True)
    assert attaches(kiosk.toolstack) == 3
    agent.recover("disk-full")
    testbed.unplug("1-3")
    until(lambda: "1-4" in str(agent.ledger()) and "1-3@" not in str(agent.ledger()), 8, "the ledger on disk")
    # The next ledger may be being written just now; what stays is a leftover.
    until(lambda: not list((agent.folder / "state").glob(".*")), 5, "no half-written ledger is left")


@pytest.mark.parametrize("how", ["cut short", "garbage", "empty", "gone", "a symlink"])
def test_a_ledger_that_cannot_be_read(agent: Starved, kiosk: Player, testbed: Testbed, how: str) -> None:
    """Attachments are adopted from xenstore, and the log says why; nothing is attached twice."""
    testbed.plug("1-4", MOUSE)
    agent.wait_for("1-4", state="attached", used=True)
    agent.end(signal.SIGKILL)
    file = agent.folder / "state/ledger.json"
    kept = file.read_bytes()
    file.unlink()
    if how == "a symlink":
        (agent.folder / "elsewhere").write_bytes(kept)
        file.symlink_to(agent.folder / "elsewhere")
    elif how != "gone":
        file.write_bytes({"cut short": kept[: len(kept) // 2], "garbage": b"\xff[[", "empty": b""}[how])
    agent.start()
    assert agent.wait_for("1-4", state="attached", used=True)["guest"] == "kiosk"
    warnings = "ledger.json: cannot be read" in agent.log.read_text()
    assert warnings is (how != "gone")
    testbed.unplug("1-4")
    until(lambda: port_value(kiosk.toolstack, 1) == "", 2, "the stale port's clearing")
    assert attaches(kiosk.toolstack) == 1
    assert not file.is_symlink()


def test_no_file_descriptors(agent: Starved, kiosk: Player, testbed: Testbed) -> None:
    """A port is still cleared in time, over the open connections; a new device is attached as soon as possible."""
    testbed.plug("1-4", MOUSE)
    agent.wait_for("1-4", state="attached", used=True)
    before = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    testbed.unplug("1-4")
    until(lambda: port_value(kiosk.toolstack, 1) == "", 2, "the stale port's clearing")
    testbed.plug("1-3", STICK)
    time.sleep(1.5)
    assert attaches(kiosk.toolstack) == 1
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, before)
    agent.wait_for("1-3", 15, state="attached", used=True, guest_port=1)
    assert agent.device("1-4")["state"] == "absent"
    assert attaches(kiosk.toolstack) == 2
    assert "Traceback" not in agent.log.read_text()


def test_no_processes(agent: Starved, kiosk: Player, testbed: Testbed) -> None:
    """xl cannot be started: reported with the kernel's error, tried again, and done when it can be."""
    agent.lack("no-fork")
    testbed.plug("1-4", MOUSE)
    device = agent.wait_for("1-4", state="failing", cause="refused")
    assert "Resource temporarily unavailable" in device["reason"]
    assert attaches(kiosk.toolstack) == 0
    agent.recover("no-fork")
    agent.wait_for("1-4", state="attached", used=True)
    agent.lack("no-fork")
    testbed.unplug("1-4")
    until(lambda: port_value(kiosk.toolstack, 1) == "", 2, "the stale port's clearing")
    agent.recover("no-fork")
    testbed.plug("1-3", STICK)
    agent.wait_for("1-3", state="attached", used=True, guest_port=1)
    assert attaches(kiosk.toolstack) == 2


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed for its memory"])
def test_an_xl_that_is_stopped_or_killed(
    agent: Starved, kiosk: Player, testbed: Testbed, toolstack: BenchToolstack, how: signal.Signals
) -> None:
    """xl was stopped by some process: after the timeout xenstore is read, and it is tried again."""
    toolstack.misbehave("usbdev-attach", "hang", 1)
    testbed.plug("1-4", MOUSE)
    until(lambda: attaches(toolstack) == 1, what="the call")
    [call] = toolstack.calls("usbdev-attach")
    os.kill(call.pid, how)
    agent.wait_for("1-4", state="attached", used=True)
    assert attaches(toolstack) == 2
    assert not Path(f"/proc/{call.pid}").exists()


def test_an_agent_that_was_stopped(agent: Starved, kiosk: Player, testbed: Testbed) -> None:
    """SIGSTOP, or a host that swaps: afterwards the agent corrects at once what changed."""
    testbed.plug("1-4", MOUSE)
    agent.wait_for("1-4", state="attached", used=True)
    os.kill(agent.pid, signal.SIGSTOP)
    testbed.unplug("1-4")
    testbed.plug("1-3", STICK)
    time.sleep(1)
    os.kill(agent.pid, signal.SIGCONT)
    agent.wait_for("1-3", 25.0, state="attached", used=True)  # on a busy machine the first try may not be taken in time
    assert [port_value(kiosk.toolstack, n) for n in (1, 2, 3, 4)].count("1-3") == 1
    assert "1-4" not in [port_value(kiosk.toolstack, n) for n in (1, 2, 3, 4)]


def test_a_flooded_socket(agent: Starved, kiosk: Player, testbed: Testbed) -> None:
    """Clients of the group that send requests all the time delay nothing: a port is cleared in time, a device is
    attached.
    """
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, str(agent.socket)], stdout=subprocess.PIPE)
    try:
        assert flood.stdout
        assert flood.stdout.readline() == b"begun\n"
        for _ in range(3):
            testbed.plug("1-4", MOUSE)
            until(lambda: port_value(kiosk.toolstack, 1) == "1-4", 5, "the attach")
            testbed.unplug("1-4")
            until(lambda: port_value(kiosk.toolstack, 1) == "", 1, "the stale port's clearing")
    finally:
        flood.kill()
        flood.wait()
        if flood.stdout:
            flood.stdout.close()
    testbed.plug("1-4", MOUSE)
    agent.wait_for("1-4", state="attached", used=True)
