"""Many devices at once: a storm of 127, 64 devices to 4 guests against the ideal, a pull during those attaches.

`--runs N` plays so many runs of 64 devices with the real xl and xenstored as it is, and counts lost and doubled ones.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from itertools import pairwise

from bench.usbspec import UsbDevice
from bench.wait import until
from benchmarks.attach import pull
from benchmarks.bench_host import Agent, BenchHost, Figures, bench_host, cpu, now
from benchmarks.phases import moments

GUESTS = ("alpha", "beta", "gamma", "delta")
SLOW = 0.3
"""Seconds that xl is made to take longer."""
DEVICES = 64
STORM = 127
BATCH = 20
"""Runs on one host: creating a host takes longer than a run."""
runs = 3
"""How many runs count lost and doubled devices; set by --runs."""


def tag(number: int) -> str:
    """A device's tag."""
    return f"1234:{number:04x}"


def place(number: int) -> str:
    """A device's port: a bus has addresses for 126 of them."""
    return f"{1 + number // 100}-{number}"


def policy(devices: int, guests: tuple[str, ...] = GUESTS) -> str:
    """A rule for each device; the guests take turns."""
    lines = (
        f'  - {{match: {{device: "{tag(n)}"}}, attach: {guests[n % len(guests)]}}}\n' for n in range(1, devices + 1)
    )
    return f"version: 1\nrules:\n{''.join(lines)}"


def measure() -> Figures:
    """Title and figures."""
    yield from _storm()
    yield from _slow()
    yield from _runs()


def plug(host: BenchHost, devices: int, quiet: bool = False) -> None:
    """Plug them all."""
    for number in range(1, devices + 1):
        host.testbed.plug(place(number), UsbDevice(tag(number), product=f"Device {number}"), quiet=quiet)


def attached(host: BenchHost) -> Counter[str]:
    """How many guest ports each device occupies."""
    return Counter(busid for guest in host.guests for busid in host.ports(guest).values())


def settled(host: BenchHost, count: int, seconds: float = 300.0) -> float:
    """Wait until so many devices are attached; when that was."""
    end = now() + seconds
    while len(attached(host)) < count:
        assert now() < end, f"{len(attached(host))} of {count} devices are attached"
        time.sleep(0.05)  # each check takes xenstored's time
    return now()


def _storm() -> Figures:
    """As many as a bus can hold, at once; the guests' ports hold 124 of them."""
    with bench_host(GUESTS) as host:
        agent = host.agent(policy(STORM))
        agent.start()
        before, begun = cpu(agent.pid), now()
        plug(host, STORM)
        plugged = now()
        done = settled(host, 31 * len(GUESTS))
        yield f"storm of {STORM} devices: plugging them, by the bench itself, s", [plugged - begun]
        yield f"storm of {STORM} devices: first uevent to the last of 124 on its port, s", [done - begun]
        yield f"storm of {STORM} devices: the agent's CPU time for each, ms", [(cpu(agent.pid) - before) / STORM]
        calls = host.toolstack.calls("usbdev-attach")
        ends = [later.time - earlier.time for earlier, later in pairwise(calls)]
        yield f"storm of {STORM} devices: start of one xl to start of the next, ms", [end * 1e3 for end in ends]
        agent.end()


def _slow() -> Figures:
    """64 devices wait for 4 guests when the agent starts; xl is slow. In between, a pull."""
    with bench_host(GUESTS) as host:
        plug(host, DEVICES, quiet=True)
        agent = host.agent(policy(DEVICES))
        for word in ("usbdev-attach", "usbdev-detach"):
            host.toolstack.misbehave(word, f"delay {SLOW}")
        begun = now()
        agent.start()
        # A guest's calls come one after the other, four guests go at the same time.
        yield f"{DEVICES} devices to 4 guests, xl {SLOW * 1e3:.0f} ms slower: ideal, s", [_ideal(host)]
        taken = settled(host, DEVICES) - begun
        first = host.toolstack.calls("usbdev-attach")[0].time - begun
        yield "  from start of the agent to all attached, s", [taken]
        yield "  of that before the first xl, s", [first]
        agent.end()
    yield from _pull_meanwhile()


def _ideal(host: BenchHost) -> float:
    """One plain call, measured alone, and the delay, for each device of one guest."""
    begun = now()
    host.toolstack.xl("usb-list", GUESTS[0])
    return (now() - begun + SLOW) * DEVICES / len(GUESTS)


def _pull_meanwhile() -> Figures:
    """Pulls while 64 attaches are under way, and every xl of the first guest hangs."""
    with bench_host(GUESTS) as host:
        agent = host.agent(policy(STORM), traced=True)
        agent.start()
        plug(host, 8)
        settled(host, 8)
        standing = [(busid, guest, port) for guest in GUESTS for port, busid in host.ports(guest).items()]
        host.toolstack.misbehave("usbdev-attach", "hang", times=1)
        host.toolstack.misbehave("usbdev-attach", f"delay {SLOW}")
        for number in range(9, DEVICES + 9):
            host.testbed.plug(f"1-{number}", UsbDevice(tag(number)))
        took = [pull(host, busid, guest, port) for busid, guest, port in standing]
        yield "remove uevent to port cleared, 64 attaches under way, one xl hangs, ms", took
        time.sleep(0.2)  # the plan may have been faster than the kernel's event, which still comes
        turns = [when for when, what in moments(agent) if what == "removed"]
        sent = [host.testbed.uevents.sent["remove", busid] for busid, *_ in standing]
        waits = [(turn - when) * 1e3 for when, turn in zip(sent, turns, strict=True)]
        yield "  of that until the agent's loop had its turn, ms", waits
        agent.end(signal.SIGKILL)  # a stop in order waits for the xl that hangs


def _runs() -> Figures:
    """Lost, doubled and left-over devices over many runs, some of them on one host and with one agent each time."""
    took: list[float] = []
    wrong: Counter[str] = Counter()
    while len(took) < runs:
        with bench_host(GUESTS) as host:
            agent = host.agent(policy(DEVICES))
            agent.start()
            for _ in range(min(BATCH, runs - len(took))):
                took.append(_run(host, agent, wrong))
            agent.end()
        # So that a run of hours can be interrupted and still prints results.
        print(f"{len(took)} runs: {dict(wrong) or 'nothing wrong'}", file=sys.stderr, flush=True)
    yield f"{runs} runs of {DEVICES} devices to 4 guests: to all attached, s", took
    for what in ("lost", "doubled", "left on a port when pulled"):
        yield f"{runs} runs of {DEVICES} devices to 4 guests: devices {what}, in all", [float(wrong[what])]


def _run(host: BenchHost, agent: Agent, wrong: Counter[str]) -> float:
    """Plug and unplug all devices; return the seconds until all were attached. Failures are counted."""
    begun = now()
    plug(host, DEVICES)
    took = settled(host, DEVICES) - begun
    time.sleep(0.3)
    found = attached(host)
    wrong["lost"] += DEVICES - len(found)
    wrong["doubled"] += sum(count - 1 for count in found.values())
    _wrong_guest(host, agent)
    for number in range(1, DEVICES + 1):
        host.testbed.unplug(place(number))
    end = now() + 10.0
    while attached(host) and now() < end:
        time.sleep(0.05)
    wrong["left on a port when pulled"] += len(attached(host))
    until(lambda: not agent.status()["devices"], 30.0, "the agent knows that all are gone")
    wrong += Counter()  # without what is zero
    return took


def _wrong_guest(host: BenchHost, agent: Agent) -> None:
    for device in agent.status()["devices"]:
        number = int(device["device"].partition(":")[2], 16)
        assert device["guest"] == GUESTS[number % len(GUESTS)], f"{device['port']} is with {device['guest']}"
