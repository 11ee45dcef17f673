"""Nothing in the agent grows with the number of events: what it keeps after N rounds of life is what it keeps after 2N.

Devices with new texts come and go, guests with new names and domains start and stop, orders are given and taken back,
clients connect. Counted, not timed: the entries of every collection that the agent can reach.
"""

from __future__ import annotations

import asyncio
import gc
import types
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.simulated_agent import KIOSK, SimulatedAgent, in_virtual_time

from xenplug.adapters.control import ControlServer, Limits, SocketFile
from xenplug.adapters.domains import XenDomains
from xenplug.adapters.varlink import Refused
from xenplug.core.model import GuestType
from xenplug.service import history as histories
from xenplug.simulator.domain import GuestConfig

POLICY = """version: 1
default: block
rules:
  - {match: {kind: mouse}, attach: kiosk, follow: 10s, ambiguous: refuse}
  - {match: {kind: storage}, attach: [vm, kiosk], idle: block}
"""
CYCLES = 12
"""A multiple of all periods in `life`, so that the last events of the history are of the same kinds."""
SKIPPED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.FrameType, types.CodeType)


def kept(*roots: object) -> Counter[str]:
    """How many entries the collections below these objects have, by the type of the entries."""
    seen: set[int] = set()
    todo, found = list(roots), Counter[str]()
    while todo:
        one = todo.pop()
        foreign = type(one).__module__.startswith(("xenplug.simulator", "tests", "asyncio", "_asyncio"))
        if id(one) in seen or isinstance(one, SKIPPED) or foreign:
            continue
        seen.add(id(one))
        if isinstance(one, dict | set | frozenset | list | tuple | deque):
            found.update(type(entry).__name__ for entry in one)
        todo += gc.get_referents(one)
    return found


def grown(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    return {name: count - before[name] for name, count in after.items() if count > before[name] + 2}


async def life(simulated: SimulatedAgent, cycles: Iterable[int]) -> None:
    service, world = simulated.agent.service, simulated.world
    for n in cycles:
        name = f"vm{n}"
        world.add_guest(GuestConfig(name=name, type=(GuestType.PV, GuestType.HVM)[n % 2]))
        world.guests.start(name)
        simulated.plug(f"1-{n % 3 + 1}", f"{n:04x}:0001", serial=f"SN{n}", product=f"Mouse {n}")
        simulated.plug("1-4", f"{n:04x}:0002", kind="storage", speed="high", serial=f"X{n}")
        await asyncio.sleep(20)
        for order in (service.attach("1-4", name), service.prefer(name), service.pause(name), service.pause("1-4")):
            with suppress(Refused):
                await order
        await asyncio.sleep(5)
        with suppress(Refused):
            await service.resume("all")
        with suppress(Refused):
            await service.detach("1-4")
        world.guests.destroy(name)
        if n % 4 == 0:
            world.guests.reboot("kiosk")
        simulated.pull("1-4")
        simulated.pull(f"1-{n % 3 + 1}")
        if n % 6 == 0:
            await simulated.reload(POLICY + f"# {n}\n")
        await asyncio.sleep(700)  # all that is remembered for some time is forgotten by then


@in_virtual_time
async def test_devices_guests_and_orders_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(histories, "IN_MEMORY", 20)
    simulated = SimulatedAgent(POLICY, KIOSK)
    simulated.history = histories.History(simulated.world.clock)  # type: ignore[assignment]
    await simulated.start()
    counts = []
    for part in range(3):
        await life(simulated, range(part * CYCLES, (part + 1) * CYCLES))
        gc.collect()
        counts.append(kept(simulated.agent))
    assert grown(counts[1], counts[2]) == {}
    await simulated.kill()


def test_clients_leave_nothing_behind(tmp_path: Path) -> None:
    async def status(_parameters: object) -> dict[str, object]:
        return {"status": {}}

    async def connect(server: ControlServer, count: int) -> Counter[str]:
        for n in range(count):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "c.sock")
            writer.write((b'{"method":"org.xenplug.Status"}\0', b"\xff\0", b'{"method":"a', b"")[n % 4])
            if n % 4 == 0:
                await reader.readuntil(b"\0")
            writer.close()
            if n % 10 == 0:
                (tmp_path / "c.sock").unlink()
                await server.restore()
        for _ in range(50):
            await asyncio.sleep(0.01)
        gc.collect()
        return kept(server)

    async def play() -> tuple[Counter[str], Counter[str]]:
        server = ControlServer({"Status": status}, SocketFile(tmp_path / "c.sock"), Limits(connections=8))
        await server.start()
        first = await connect(server, 60)
        second = await connect(server, 120)
        await server.stop()
        return first, second

    first, second = asyncio.run(play())
    assert grown(first, second) == {}


@pytest.mark.parametrize("count", [40])
def test_processes_that_ended_are_forgotten(tmp_path: Path, count: int) -> None:
    """Each start of a guest has a device model of its own."""

    async def play() -> list[int]:
        domains, found = XenDomains(xen_lib=tmp_path), []
        for _ in range(2):
            for _ in range(count):
                process = await asyncio.create_subprocess_exec("true")
                domains.lives(process.pid)
                await process.wait()
                await asyncio.sleep(0.01)
                domains.lives(process.pid)
            found.append(domains.remembered)
        return found

    first, second = asyncio.run(play())
    assert second <= first + 1 <= 4
