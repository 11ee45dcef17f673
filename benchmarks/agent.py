"""The agent as its own process on the bench (real libudev, xl and xenstored): event to xl, pull to cleared port, start,
memory, wake-ups at rest.

"Event to xl" is from sending the uevent that completes a device to the first instruction of the xl process.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.agent import AgentProcess
from bench.catalogue import MOUSE
from bench.player import Player
from bench.toolstack import BenchToolstack
from bench.usb import Testbed
from bench.usbspec import Bus, HostController, UsbDevice
from bench.wait import until
from benchmarks.decide import policy

QUSB = ("type=qusb", "version=2", "ports=31")
ROUNDS = 30
REST = 20.0
"""Seconds for which wake-ups at rest are counted."""


@dataclass
class Bench:
    """A host with one guest."""

    toolstack: BenchToolstack
    testbed: Testbed
    player: Player

    def port(self, number: int) -> str | None:
        """What stands on a guest port."""
        return self.toolstack.store.read(f"/local/domain/0/backend/qusb/5/0/port/{number}")


@contextmanager
def bench() -> Iterator[Bench]:
    """The bench with the guest kiosk up."""
    # In memory, as /run is: the ledger is written and synced before each act.
    with tempfile.TemporaryDirectory(prefix="xpb-", dir="/dev/shm") as folder:
        testbed = Testbed()
        testbed.add_host_controller(HostController(buses={1: Bus(120)}))
        with BenchToolstack(Path(folder), testbed.root / "sys") as toolstack:
            player = Player(toolstack, testbed)
            player.start()
            player.boot(5, "kiosk", "pv", controllers=[QUSB])
            until(lambda: toolstack.store.read("/local/domain/5/device/vusb/0/state") == "4")
            yield Bench(toolstack, testbed, player)
            player.stop()
        testbed.close()


def measure() -> Iterator[tuple[str, list[float]]]:
    """Title and figures of each measurement."""
    for rules in (1, 100, 10_000):
        with bench() as there:
            agent = AgentProcess(there.toolstack, there.testbed, policy(rules))
            agent.start()
            attach, clear = zip(*(_round(there, agent) for _ in range(ROUNDS)), strict=True)
            agent.end()
            yield f"uevent to xl started, {rules} rules, ms", list(attach)
            yield f"remove uevent to port cleared in xenstore, {rules} rules, ms", list(clear)
    yield from _start()


def _round(there: Bench, agent: AgentProcess) -> tuple[float, float]:
    """One plug and pull; milliseconds to xl, and to the cleared port."""
    before = len(there.toolstack.calls("usbdev-attach"))
    there.testbed.plug("1-4", MOUSE, quiet=True)
    sent = time.clock_gettime(time.CLOCK_MONOTONIC)
    there.testbed.tree.announce("bind", "1-4")
    until(lambda: len(there.toolstack.calls("usbdev-attach")) > before)
    called = there.toolstack.calls("usbdev-attach")[-1].time
    agent.wait_for("1-4", state="attached")
    store = there.toolstack.store
    pulled = time.clock_gettime(time.CLOCK_MONOTONIC)
    there.testbed.unplug("1-4")
    while store.read("/local/domain/0/backend/qusb/5/0/port/1"):
        pass
    cleared = time.clock_gettime(time.CLOCK_MONOTONIC)
    agent.wait_for("1-4", state="absent")
    time.sleep(2.2)  # sooner, a replug counts as a re-enumeration and settles first
    return (called - sent) * 1e3, (cleared - pulled) * 1e3


def _start() -> Iterator[tuple[str, list[float]]]:
    """Start to READY with 100 devices, memory and wake-ups with them."""
    with bench() as there:
        for number in range(1, 101):
            there.testbed.plug(f"1-{number}", UsbDevice(f"1234:{number:04x}", product=f"Device {number}"), quiet=True)
        agent = AgentProcess(there.toolstack, there.testbed, policy(100))
        starts = []
        for _ in range(5):
            agent.log.write_text("")
            begun = time.perf_counter()
            agent.launch()
            while "is ready" not in agent.log.read_text():
                time.sleep(0.002)
            starts.append((time.perf_counter() - begun) * 1e3)
            last = agent.pid
            if len(starts) < 5:
                agent.end()
        yield "process start to READY, 100 devices, ms", starts
        time.sleep(3)
        status = Path(f"/proc/{last}/status").read_text()
        yield "resident memory, 100 devices, MB", [_field(status, "VmRSS") / 1024]
        before, ticks = _switches(last), _ticks(last)
        time.sleep(REST)
        yield "wake-ups per minute at rest", [(_switches(last) - before) * 60 / REST]
        yield "CPU at rest, ms per minute", [(_ticks(last) - ticks) * 10 * 60 / REST]
        agent.end()


def _switches(pid: int) -> int:
    """Voluntary context switches of all threads: each is one time the process had gone to sleep and woke up."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(_field((task / "status").read_text(), "voluntary_ctxt_switches") for task in tasks)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _field(status: str, name: str) -> int:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))
