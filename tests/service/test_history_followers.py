"""The memory of the history is bounded, whatever clients follow it and whatever devices come and go."""

from __future__ import annotations

import asyncio

from tests.simulated_agent import KIOSK, MICE, SimulatedAgent, in_virtual_time

from xenplug.core.reporting.changes import Change
from xenplug.service.history import MAX_REMEMBERED_PORTS, MAX_UNREAD_EVENTS, History
from xenplug.simulator.world import World


class Told(Change):
    """A change of which only the words matter."""

    def __init__(self, port: str, line: str) -> None:
        object.__setattr__(self, "_view", {"port": port, "address": port, "state": "host", "line": line})

    def view(self) -> dict[str, object]:
        return dict(self._view)  # type: ignore[attr-defined]


@in_virtual_time
async def test_a_follower_that_does_not_read_is_disconnected():
    history = History(World().clock)
    with history.listen() as slow, history.listen() as quick:
        for number in range(MAX_UNREAD_EVENTS + 10):
            history.record(Told("1-1", str(number)))
            event = await quick.get()
            assert event and event["line"] == str(number)
        assert slow.qsize() == MAX_UNREAD_EVENTS
        events = [slow.get_nowait() for _ in range(MAX_UNREAD_EVENTS)]
        assert events[-1] is None
        await asyncio.sleep(0)
        assert slow.empty()


@in_virtual_time
async def test_ports_that_come_and_go_are_forgotten():
    history = History(World().clock)
    for number in range(2 * MAX_REMEMBERED_PORTS):
        history.record(Told(f"1-{number}", "here"))
    history.record(Told(f"1-{2 * MAX_REMEMBERED_PORTS - 1}", "here"))
    assert len(list(history.read(f"1-{2 * MAX_REMEMBERED_PORTS - 1}"))) == 1, "an unchanged state is written once"
    history.record(Told("1-0", "here"))
    assert len(list(history.read("1-0"))) == 1, "the first entry is gone, the port forgotten: written again"


@in_virtual_time
async def test_a_status_is_computed_once_for_all_clients():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    simulated.plug("1-1")
    await simulated.wait_until(lambda: simulated.state_of("1-1")[0] == "attached")
    service = simulated.agent.service
    first = service.status()
    assert service.status() is first
    await service.prefer("kiosk")
    assert service.status()["preferred"] == "kiosk"
    simulated.pull("1-1")
    await simulated.wait_until(lambda: not service.devices())
    await simulated.kill()


@in_virtual_time
async def test_nothing_is_kept_of_devices_that_are_gone():
    simulated = await SimulatedAgent(MICE, KIOSK).start()
    for port in ("1-1", "1-2", "1-3"):
        simulated.plug(port)
    await simulated.wait_until(lambda: len(simulated.agent.service.devices()) == 3)
    for port in ("1-1", "1-2", "1-3"):
        simulated.pull(port)
    await simulated.wait_until(lambda: not simulated.agent.service.devices())
    assert simulated.agent.reconciler.kept_decisions == 0
    await simulated.kill()
