"""A pulled device's guest port is emptied once, although both the kernel's event and the next plan require it."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulated_agent import BOTH, WIN, SimulatedAgent, in_virtual_time, settle

from xenplug.core.guests import port_path
from xenplug.core.ledger.records import Entry, Leftover
from xenplug.core.ledger.troubles import Backoff
from xenplug.core.model import BusId, ControllerType
from xenplug.core.planning.steps import ClearPort
from xenplug.core.protocols import UsbEvent
from xenplug.engine.context import LedgerWriter
from xenplug.engine.executor import Executor


async def attached_stick(simulated: SimulatedAgent) -> Entry:
    """Attach a stick to win; its entry in the ledger."""
    await simulated.start()
    simulated.plug("1-1", "0781:0001", kind="storage", speed="high")
    await settle(simulated)
    (entry,) = simulated.agent.reconciler.ledger.entries.values()
    return entry


@pytest.mark.parametrize("round_trip", [0.0, 0.05])
@in_virtual_time
async def test_qemus_object_is_deleted_once(round_trip):
    """Seen in the lab, where xenstore is slow: device_del was sent twice for every unplug."""
    simulated = SimulatedAgent(BOTH, WIN)
    entry = await attached_stick(simulated)
    replace = simulated.world.store.replace
    simulated.world.store.replace_at_once = lambda *_: False

    async def slow(path: str, old: str, new: str) -> bool:
        await asyncio.sleep(round_trip)
        return await replace(path, old, new)

    simulated.world.store.replace = slow
    simulated.pull("1-1")
    await settle(simulated)
    sent = [call.argv[-1] for call in simulated.xl_calls("qemu-monitor-command")]
    assert sent == [f"device_del xenusb-{entry.bus}-{entry.number}"]
    assert simulated.agent.reconciler.ledger.entries == {}
    await simulated.kill()


@in_virtual_time
async def test_the_port_is_empty_before_any_other_task_runs():
    """Every iteration of a busy loop takes milliseconds, and after half a second the guest loses other devices."""
    simulated = SimulatedAgent(BOTH, WIN)
    entry = await attached_stick(simulated)
    (guest_port,) = simulated.agent.reconciler.ledger.entries
    path = port_path(ControllerType.DEVICEMODEL, guest_port)
    assert simulated.world.tree.read(path) == "1-1"
    simulated.agent.reconciler.usb_changed(UsbEvent("remove", BusId("1-1"), entry.number))
    assert simulated.world.tree.read(path) == ""
    assert simulated.agent.reconciler.ledger.leftovers == {Leftover(guest_port.domid, entry.bus, entry.number)}
    await simulated.kill()


@pytest.mark.parametrize("event", [True, False], ids=["event and plan", "the plan alone"])
@in_virtual_time
async def test_an_xenstore_that_cannot_replace_at_once(event):
    simulated = SimulatedAgent(BOTH, WIN)
    entry = await attached_stick(simulated)
    (guest_port,) = simulated.agent.reconciler.ledger.entries
    simulated.world.store.replace_at_once = lambda *_: False
    simulated.pull("1-1")
    if event:
        simulated.agent.reconciler.usb_changed(UsbEvent("remove", BusId("1-1"), entry.number))
    await settle(simulated)
    assert simulated.world.tree.read(port_path(ControllerType.DEVICEMODEL, guest_port)) == ""
    assert simulated.agent.reconciler.ledger.entries == {}
    await simulated.kill()


@in_virtual_time
async def test_a_late_clearing_does_not_forget_the_next_device():
    simulated = SimulatedAgent(BOTH, WIN)
    old = await attached_stick(simulated)
    (guest_port,) = simulated.agent.reconciler.ledger.entries
    simulated.pull("1-1")
    simulated.plug("1-1", "0781:0001", kind="storage", speed="high")
    await settle(simulated)
    (now,) = simulated.agent.reconciler.ledger.entries.values()
    assert now.number != old.number
    late = ClearPort("win", guest_port, ControllerType.DEVICEMODEL, old.busid, old.bus, old.number)
    context, ledger = simulated.agent.reconciler.context, simulated.agent.reconciler.ledger
    writer = LedgerWriter(simulated.ledger_store, ledger)
    await Executor(context, writer, lambda _device: None, Backoff()).clear(late)
    assert writer.ledger.entries == {guest_port: now}
    assert simulated.world.tree.read(port_path(ControllerType.DEVICEMODEL, guest_port)) == "1-1"
    await simulated.kill()
