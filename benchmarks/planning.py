"""One round without I/O: reading the guests, deciding, planning; and how its cost grows tenfold and hundredfold.

The size from which things grow: 1 guest, 1 device, 10 rules, an empty ledger and history.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.core.make import device

from benchmarks.bench_host import Figures, now
from benchmarks.decide import policy
from xenplug.adapters.history import HistoryFile
from xenplug.core.guests import read_guests
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.update import update
from xenplug.core.matching.match import Matcher
from xenplug.core.model import Device, Snapshot, Tag
from xenplug.core.planning.plan import make_plan
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.protection import protect_all, wanted_guests
from xenplug.core.policy.load import load
from xenplug.core.policy.rules import Policy

TIMES = 20
PORTS = 31


@dataclass(frozen=True)
class Size:
    """The size of the host."""

    devices: int = 1
    guests: int = 1
    rules: int = 10


def measure() -> Figures:
    """Title and figures."""
    yield "one look: 127 devices, 16 guests, 1,000 rules, CPU ms", look(Size(127, 16, 1000))
    for kind, sizes in {
        "devices": [Size(devices=n) for n in (1, 10, 100)],
        "guests": [Size(guests=n) for n in (1, 10, 100)],
        "rules": [Size(rules=n) for n in (10, 100, 1000)],
    }.items():
        for size in sizes:
            yield f"growth, one look, {getattr(size, kind)} {kind}, CPU ms", look(size)
    for events in (100, 1_000, 10_000):
        yield f"growth, one entry more, history of {events} events, ms", history(events)


def tree(guests: int, per_guest: list[list[Device]]) -> dict[str, str]:
    """What xenstore holds of them: each with one controller."""
    found = {}
    for domid in range(1, guests + 1):
        home, back = f"/local/domain/{domid}", f"/local/domain/0/backend/qusb/{domid}/0"
        held = {n: d.port for n, d in enumerate(per_guest[domid - 1], 1)}
        found |= {
            f"{home}/name": "kiosk" if domid == 1 else f"guest{domid}",
            f"{home}/vm": f"/vm/{domid}",
            f"{home}/image/device-model-pid": str(4000 + domid),
            f"{home}/device/vusb/0/state": "4",
            f"/libxl/{domid}/type": "pv",
            f"/libxl/{domid}/device/vusb/0/type": "qusb",
            f"{back}/state": "4",
            f"{back}/usb-ver": "2",
            f"{back}/num-ports": str(PORTS),
            **{f"{back}/port/{port}": held.get(port, "") for port in range(1, PORTS + 1)},
        }
    return found


def mice(count: int) -> list[Device]:
    """Devices that all go to kiosk, the first guest."""
    return [device(f"1-{n}", n + 1, tag=Tag("046d:c016"), serial=f"S{n}") for n in range(1, count + 1)]


def rules(count: int) -> Policy:
    """A mixed policy."""
    loaded = load({"policy.yaml": policy(count, "mixed").encode()})
    assert loaded.policy
    return loaded.policy


def look(size: Size) -> list[float]:
    """Milliseconds of CPU of whole rounds: the first devices are attached, what is left over waits for a free port."""
    here, matcher = mice(size.devices), Matcher(rules(size.rules))
    seen_tree = tree(size.guests, [here[:PORTS], *([[]] * (size.guests - 1))])
    alive = frozenset(range(1, size.guests + 1))
    ledger, took = Ledger(at=0.0), []
    for number in range(TIMES):
        begun = time.thread_time()
        guests = read_guests(seen_tree, alive, lambda _domid, _uuid: True, {})
        seen = Snapshot({d.port: d for d in here}, guests)
        ledger = update(ledger, seen, float(number), wanted_guests(matcher, ledger), 5.0)
        decisions = {port: matcher.decide(device) for port, device in seen.devices.items()}
        protected = protect_all(matcher, seen.devices, ledger)
        make_plan(PlanInput(seen, ledger, float(number), decisions, protected, matcher.policy))
        took.append((time.thread_time() - begun) * 1e3)
    return took


def history(events: int) -> list[float]:
    """Milliseconds of one more line in a file of so many."""
    with tempfile.TemporaryDirectory() as folder:
        kept = HistoryFile(Path(folder) / "history.jsonl", 16 << 20)
        line = {"at": 0.0, "port": "1-4", "device": "046d:c016", "state": "attached", "guest": "kiosk"}
        for _ in range(events):
            kept.record(line)
        took = []
        for _ in range(50):
            begun = now()
            kept.record(line)
            took.append((now() - begun) * 1e3)
    return took
