"""A pulled device's guest port is emptied once, though the kernel's own event and the next plan both lead there."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulated_agent import BOTH, WIN, Rig, settled, told

from xenplug.core.ledger.ledger import Entry, Leftover
from xenplug.core.protocols import UsbEvent
from xenplug.core.guests import port_path
from xenplug.core.model import BusId, ControllerType
from xenplug.core.planning.steps import ClearPort


async def given(rig: Rig) -> Entry:
    """A stick that is at win; its entry in the ledger."""
    await rig.start()
    rig.plug("1-1", "0781:0001", kind="storage", speed="high")
    await settled(rig)
    (entry,) = rig.agent.reconciler.ledger.entries.values()
    return entry


@pytest.mark.parametrize("round_trip", [0.0, 0.05])
@told
async def test_qemus_object_is_deleted_once(round_trip):
    """Seen in the lab, where xenstore takes its time: device_del was sent twice for every pull."""
    rig = Rig(BOTH, WIN)
    entry = await given(rig)
    replace = rig.world.store.replace
    rig.world.store.replace_at_once = lambda *_: False

    async def slow(path: str, old: str, new: str) -> bool:
        await asyncio.sleep(round_trip)
        return await replace(path, old, new)

    rig.world.store.replace = slow
    rig.pull("1-1")
    await settled(rig)
    sent = [call.argv[-1] for call in rig.calls("qemu-monitor-command")]
    assert sent == [f"device_del xenusb-{entry.bus}-{entry.number}"]
    assert rig.agent.reconciler.ledger.entries == {}
    await rig.kill()


@told
async def test_the_port_is_empty_before_anything_else_has_its_turn():
    """Every turn of a busy loop takes milliseconds, and a guest's other devices suffer from half a second on."""
    rig = Rig(BOTH, WIN)
    entry = await given(rig)
    (spot,) = rig.agent.reconciler.ledger.entries
    path = port_path(ControllerType.DEVICEMODEL, spot)
    assert rig.world.tree.read(path) == "1-1"
    rig.agent.reconciler._usb(UsbEvent("remove", BusId("1-1"), entry.number))
    assert rig.world.tree.read(path) == ""
    assert rig.agent.reconciler.ledger.leftovers == {Leftover(spot.domid, entry.bus, entry.number)}
    await rig.kill()


@pytest.mark.parametrize("event", [True, False], ids=["the kernel's word", "the plan alone"])
@told
async def test_an_xenstore_that_cannot_do_it_at_once(event):
    rig = Rig(BOTH, WIN)
    entry = await given(rig)
    (spot,) = rig.agent.reconciler.ledger.entries
    rig.world.store.replace_at_once = lambda *_: False
    rig.pull("1-1")
    if event:
        rig.agent.reconciler._usb(UsbEvent("remove", BusId("1-1"), entry.number))
    await settled(rig)
    assert rig.world.tree.read(port_path(ControllerType.DEVICEMODEL, spot)) == ""
    assert rig.agent.reconciler.ledger.entries == {}
    await rig.kill()


@told
async def test_a_late_clearing_does_not_forget_the_next_device():
    rig = Rig(BOTH, WIN)
    old = await given(rig)
    (spot,) = rig.agent.reconciler.ledger.entries
    rig.pull("1-1")
    rig.plug("1-1", "0781:0001", kind="storage", speed="high")
    await settled(rig)
    (now,) = rig.agent.reconciler.ledger.entries.values()
    assert now.number != old.number
    late = ClearPort("win", spot, ControllerType.DEVICEMODEL, old.busid, old.bus, old.number)
    await rig.agent.reconciler._acts.clear(late)
    assert rig.agent.reconciler.ledger.entries == {spot: now}
    await rig.kill()
