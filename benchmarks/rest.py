"""Start to READY, memory, wake-ups and CPU at rest, with 100 devices; and commands, from start to result, with ten."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from bench.usbspec import UsbDevice
from benchmarks.bench_host import Agent, BenchHost, Figures, bench_host, cpu, now, status
from benchmarks.decide import policy

SECONDS = 20.0
"""For which wake-ups at rest are counted."""
TIMES = 7


def measure() -> Figures:
    """Title and figures."""
    with bench_host() as host:
        agent = host.agent(policy(100))
        _plug(host, range(1, 11))
        agent.start()
        yield from _commands(agent)
        agent.end()
        _plug(host, range(11, 101))
        yield from _starts(agent)
        time.sleep(3)
        yield "resident memory, 100 devices, MB", [status(agent.pid, "VmRSS") / 1024]
        before, used = switches(agent.pid), cpu(agent.pid)
        time.sleep(SECONDS)
        yield "wake-ups per minute at rest, between two rescans", [(switches(agent.pid) - before) * 60 / SECONDS]
        yield "CPU at rest, ms per minute", [(cpu(agent.pid) - used) * 60 / SECONDS]
        agent.end()


def _plug(host: BenchHost, numbers: range) -> None:
    for number in numbers:
        host.testbed.plug(f"1-{number}", UsbDevice(f"1234:{number:04x}", product=f"Device {number}"), quiet=True)


def _starts(agent: Agent) -> Figures:
    wall, used = [], []
    for _ in range(TIMES):
        if wall:
            agent.end()
        agent.log.write_text("")
        begun = now()
        agent.launch()
        while "is ready" not in agent.log.read_text():
            time.sleep(0.002)
        wall.append((now() - begun) * 1e3)
        used.append(cpu(agent.pid))
    yield "process start to READY, 100 devices, ms", wall
    yield "process start to READY, CPU, ms", used


def _commands(agent: Agent) -> Figures:
    """Each as a person calls it; CPU is the least of the runs, for the machine may be busy."""
    policy_words = ("--policy", str(agent.policy))
    commands = {
        "status": ["status", "--socket", str(agent.socket)],
        "status --json": ["status", "--json", "--socket", str(agent.socket)],
        "explain, by the agent": ["explain", "1-1", "--socket", str(agent.socket)],
        "explain --policy, without agent": ["explain", "1-1", *policy_words],
        "check, 100 rules": ["check", *policy_words],
    }
    lines = {name: [sys.executable, "-m", "xenplug", *words] for name, words in commands.items()}
    for name, line in {"floor: python that does nothing": [sys.executable, "-c", "pass"], **lines}.items():
        wall, used = zip(*(_run(agent, line) for _ in range(TIMES)), strict=True)
        yield f"{name}, ms", list(wall)
        yield f"{name}, CPU, ms", list(used)


def _run(agent: Agent, line: list[str]) -> tuple[float, float]:
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), now()
    done = subprocess.run(line, env=agent.environment(), capture_output=True, check=False, text=True)
    took, after = now() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 1) and done.stderr == "", (line, done)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took * 1e3, used * 1e3


def switches(pid: int) -> int:
    """Voluntary context switches of all threads: each is one time the process had gone to sleep and woke up."""
    return sum(status(int(task.name), "voluntary_ctxt_switches") for task in Path(f"/proc/{pid}/task").iterdir())
