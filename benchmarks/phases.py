"""Where the time between uevent and attached port goes: netlink, sysfs, look, plan, ledger, start of xl, xl itself.

From the moments that benchmarks.traced notes in the agent, the bench's xl at its first instruction, and xenstored.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.catalogue import MOUSE
from bench.toolstack import XEN_BIN
from bench.wait import until
from bench.xswire import Xenstore
from benchmarks.bench_host import Agent, BenchHost, Figures, bench_host, now
from benchmarks.decide import policy

ROUNDS = 15
PHASES = (
    ("sent", "received", "netlink, libudev and waking up"),
    ("received", "read", "reading the device from sysfs, in a thread"),
    ("read", "looking", "back from the thread, to the loop"),
    ("looking", "seen", "observing guests and devices"),
    ("seen", "planned", "deciding and planning"),
    ("planned", "noted", "beginning the act, the ledger written and synced"),
    ("noted", "starting", "facts looked at once more"),
    ("starting", "xl", "starting the process, to its first instruction"),
    ("xl", "written", "xl itself, until the port is written"),
)
OURS = slice(0, 7)


def measure() -> Figures:
    """Title and figures of each phase."""
    with bench_host() as host:
        yield from floors(host)
        agent = host.agent(policy(100), traced=True)
        agent.start()
        rounds = [_round(host, agent) for _ in range(ROUNDS)]
        agent.end()
    spans = [[(found[end] - found[begin]) * 1e3 for begin, end, _ in PHASES] for found in rounds]
    for number, (_, _, words) in enumerate(PHASES):
        yield f"phase {number + 1}, {words}, ms", [span[number] for span in spans]
    yield "uevent to port written in xenstored, ms", [sum(span) for span in spans]
    yield "of that ours: from the uevent to the call of xl, ms", [sum(span[OURS]) for span in spans]


def floors(host: BenchHost) -> Figures:
    """The part of the time that every agent would need."""
    xl = [str(XEN_BIN / "xl"), "--version"]
    yield "floor: starting and ending a program (true), ms", [_spawn(["/bin/true"]) for _ in range(30)]
    yield "floor: xl that does nothing (--version), ms", [_spawn(xl) for _ in range(30)]
    list_ = [str(host.toolstack.xl_path), "list"]
    yield "floor: xl list on the bench, ms", [_spawn(list_) for _ in range(30)]
    trips = []
    for _ in range(300):
        begun = now()
        host.toolstack.store.read("/local/domain/0/name")
        trips.append((now() - begun) * 1e6)
    yield "floor: one round trip to xenstored, µs", trips


def _spawn(argv: list[str]) -> float:
    begun = now()
    subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return (now() - begun) * 1e3


class Watcher:
    """Notes when a node is written, on a connection of its own: seen one round trip after it is."""

    def __init__(self, socket: Path, path: str) -> None:
        self._store, self._path = Xenstore(socket), path
        self.written: float | None = None
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        while self.written is None:
            if self._store.read(self._path):
                self.written = now()
            time.sleep(0.0002)
        self._store.close()


def _round(host: BenchHost, agent: Agent) -> dict[str, float]:
    """One plug and pull: the moments by name."""
    before = len(host.toolstack.calls("usbdev-attach"))
    host.testbed.plug("1-4", MOUSE, quiet=True)
    moments(agent)
    watcher = Watcher(host.toolstack.socket, f"/local/domain/0/backend/qusb/{host.guests['kiosk']}/0/port/1")
    sent = now()
    host.testbed.tree.announce("bind", "1-4")
    agent.wait_for("1-4", state="attached")
    until(lambda: watcher.written is not None)
    found = dict(path(sent, moments(agent)))
    found |= {"sent": sent, "xl": host.toolstack.calls("usbdev-attach")[before].time, "written": watcher.written or 0}
    host.testbed.unplug("1-4")
    agent.wait_for("1-4", state="absent")
    time.sleep(2.2)  # sooner, a replug counts as a re-enumeration and settles first
    return found


def path(sent: float, seen: list[tuple[float, str]]) -> Iterator[tuple[str, float]]:
    """The moments of one act, each the first of its name after the one before it."""
    last = sent
    for name in ("received", "read", "looking", "seen", "planned", "acting", "noted", "starting"):
        last = next(when for when, what in seen if what == name and when >= last)
        yield name, last


def moments(agent: Agent) -> list[tuple[float, str]]:
    """What the agent noted since it was asked last."""
    trace = Path(agent.environment()["XENPLUG_TRACE"])
    trace.unlink(missing_ok=True)
    os.kill(agent.pid, signal.SIGUSR1)
    until(trace.exists)
    lines = [line.split() for line in trace.read_text().splitlines()]
    return [(float(when), name) for when, name in lines]
