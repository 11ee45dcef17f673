"""The host for measurements on the bench: guests, the agent as its own process, and its use of CPU and memory."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.agent import AgentProcess
from bench.player import Player
from bench.qusb import Manners
from bench.toolstack import BenchToolstack
from bench.usb import Testbed
from bench.usbspec import Bus, HostController
from bench.wait import until

ROOT = Path(__file__).resolve().parents[1]
MEMORY = "/dev/shm"
QUSB = ("type=qusb", "version=2", "ports=31")
Figures = Iterator[tuple[str, list[float]]]
"""A measurement: titles, which end with the unit, and figures."""


class Agent(AgentProcess):
    """The agent as it is installed: with its bytecode on disk. `traced`: the moments of its path are recorded."""

    traced = False

    def argv(self, *words: str) -> list[str]:
        """A command line of xenplug."""
        line = super().argv(*words)
        return [part if part != "xenplug" else "benchmarks.traced" for part in line] if self.traced else line

    def environment(self) -> Mapping[str, str]:
        """The bench's, with bytecode written."""
        found = {k: v for k, v in super().environment().items() if k != "PYTHONDONTWRITEBYTECODE"}
        path = f"{found['PYTHONPATH']}{os.pathsep}{ROOT}"
        return found | {"PYTHONPATH": path, "XENPLUG_TRACE": str(self.folder / "trace")}


@dataclass
class BenchHost:
    """A host with its guests; domids count from 5."""

    toolstack: BenchToolstack
    testbed: Testbed
    player: Player
    guests: Mapping[str, int]

    def agent(self, policy: str, traced: bool = False) -> Agent:
        """An agent with this policy, not yet started."""
        agent = Agent(self.toolstack, self.testbed, policy)
        agent.traced = traced
        return agent

    def ports(self, guest: str) -> dict[int, str]:
        """Occupied guest ports, each with its device."""
        store, home = self.toolstack.store, f"/local/domain/0/backend/qusb/{self.guests[guest]}/0/port"
        found = {int(port): store.read(f"{home}/{port}") for port in store.ls(home)}
        return {port: busid for port, busid in found.items() if busid}


@contextmanager
def bench_host(guests: Sequence[str] = ("kiosk",), manners: Manners | None = None) -> Iterator[BenchHost]:
    """The bench with these guests up, each with a controller of 31 ports."""
    # In memory, as sysfs is, and as /run: the ledger is written and synced before each act.
    os.environ["TMPDIR"] = MEMORY
    with tempfile.TemporaryDirectory(prefix="xpb-", dir=MEMORY) as folder:
        testbed = Testbed()
        testbed.add_host_controller(HostController(buses={1: Bus(127), 2: Bus(127)}))
        with BenchToolstack(Path(folder), testbed.root / "sys") as toolstack:
            player = Player(toolstack, testbed, manners)
            player.start()
            domids = {name: 5 + number for number, name in enumerate(guests)}
            for name, domid in domids.items():
                player.boot(domid, name, "pv", controllers=[QUSB])
                until(connected(toolstack, domid))
            yield BenchHost(toolstack, testbed, player, domids)
            player.stop()
        testbed.close()


def connected(toolstack: BenchToolstack, domid: int) -> Callable[[], bool]:
    """Whether the guest's driver has connected."""
    return lambda: toolstack.store.read(f"/local/domain/{domid}/device/vusb/0/state") == "4"


def now() -> float:
    """CLOCK_MONOTONIC seconds, as the bench's xl notes them."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def status(pid: int, name: str) -> int:
    """A number of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def cpu(pid: int) -> float:
    """Milliseconds of user and system time of a process so far; the kernel counts in steps of 10."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")
