"""Event to xl and pull to cleared port, by number of rules: the agent on real libudev, the real xl and xenstored.

"Event to xl" is from sending the uevent that completes a device to the first instruction of the xl process.
"""

from __future__ import annotations

import time

from bench.catalogue import MOUSE
from bench.wait import until
from benchmarks.bench_host import Agent, BenchHost, Figures, bench_host, now
from benchmarks.decide import policy

ROUNDS = 12


def measure() -> Figures:
    """Title and figures of each measurement."""
    for rules in (1, 100, 10_000):
        with bench_host() as host:
            agent = host.agent(policy(rules))
            agent.start()
            attach, clear = zip(*(_round(host, agent) for _ in range(ROUNDS)), strict=True)
            agent.end()
        yield f"uevent to xl started, {rules} rules, ms", list(attach)
        yield f"remove uevent to port cleared in xenstore, {rules} rules, ms", list(clear)


def _round(host: BenchHost, agent: Agent) -> tuple[float, float]:
    """One plug and pull; milliseconds to xl, and to the cleared port."""
    before = len(host.toolstack.calls("usbdev-attach"))
    host.testbed.plug("1-4", MOUSE, quiet=True)
    sent = now()
    host.testbed.tree.announce("bind", "1-4")
    until(lambda: len(host.toolstack.calls("usbdev-attach")) > before)
    called = host.toolstack.calls("usbdev-attach")[-1].time
    agent.wait_for("1-4", state="attached")
    cleared = pull(host, "1-4", "kiosk", 1)
    agent.wait_for("1-4", state="absent")
    time.sleep(2.2)  # sooner, a replug counts as a re-enumeration and settles first
    return (called - sent) * 1e3, cleared


def pull(host: BenchHost, device: str, guest: str, port: int) -> float:
    """Pull a device; milliseconds from the kernel's uevent until a reader of xenstore sees its port empty."""
    store, path = host.toolstack.store, f"/local/domain/0/backend/qusb/{host.guests[guest]}/0/port/{port}"
    host.testbed.unplug(device)
    while store.read(path):
        time.sleep(0.0002)
    return (now() - host.testbed.uevents.sent["remove", device]) * 1e3
