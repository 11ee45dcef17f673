"""The simulated host that follows a real bus: what comes and goes there reaches the agent, and nothing is written."""

from __future__ import annotations

import asyncio
from types import MappingProxyType

import pytest
from tests.live_agent import DESK

from xenplug.adapters.ledger import NoLedger
from xenplug.adapters.recording import RecordedBus
from xenplug.core.policy.load import load
from xenplug.core.protocols import UsbEvent
from xenplug.core.settings import Settings
from xenplug.scenario.simulated_host import SimulatedHost, guests_of, read_guests
from xenplug.service.bootstrap import Records, assemble
from xenplug.service.history import History
from xenplug.service.policy_store import PolicyStore
from xenplug.simulator.loop import LoopClock, run

MICE = "version: 1\nrules: [{name: mice, match: {kind: mouse}, attach: kiosk}]\n"
UNTOUCHED = "the real bus was written to"


class LaptopBus(RecordedBus):
    """A recording on which devices come and go, and to which nothing may be written."""

    async def start(self, fired):
        self._fired = fired

    def pull(self, port):
        self._devices = MappingProxyType({p: d for p, d in self._devices.items() if p != port})
        self._fired(UsbEvent("remove", port))

    def plug(self, device):
        self._devices = MappingProxyType({**self._devices, device.port: device})
        self._fired(UsbEvent("add", device.port))

    async def authorize(self, device, allowed):
        raise AssertionError(UNTOUCHED)

    def usbback(self):
        return False

    async def probe(self, device):
        raise AssertionError(UNTOUCHED)


class Laptop:
    """An agent on simulated guests and its own bus."""

    def __init__(self, policy, guests=None):
        self.text = policy
        self.bus = LaptopBus(DESK)
        host = SimulatedHost(self.bus, guests)
        clock = LoopClock()
        policies = PolicyStore(lambda: host.start_named_guests(load({"p.yaml": self.text.encode()})), clock.wall)
        self.agent = assemble(
            host.backends(clock), Records(NoLedger(), history := History(clock), history), policies, Settings()
        )

    async def __aenter__(self):
        await self.agent.reconciler.start()
        self._task = asyncio.create_task(self.agent.reconciler.run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.agent.reconciler.cancel_all()

    async def until(self, port, *wanted):
        for _ in range(200):
            found = [(d["state"], d["guest"]) for d in self.agent.service.devices() if d["port"] == port]
            if found == list(wanted):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(found)


def test_it_follows_the_bus():
    async def story():
        async with Laptop(MICE) as laptop:
            await laptop.until("1-1", ("attached", "kiosk"))
            await laptop.until("1-6", ("host", None))
            mouse = laptop.bus.devices()["1-1"]
            laptop.bus.pull("1-1")
            await laptop.until("1-1")
            laptop.bus.plug(mouse)
            await laptop.until("1-1", ("attached", "kiosk"))
            assert set(laptop.bus.devices()["1-1"].drivers) == {"usbhid"}  # the real one is as it was

    run(story())


def test_blocking_is_simulated_too():
    async def story():
        blocked = "version: 1\nrules: [{name: none, match: {kind: storage}, action: block}]\n"
        async with Laptop(blocked) as laptop:
            await laptop.until("1-5", ("blocked", None))

    run(story())


def test_a_reloaded_policy_brings_its_guests():
    async def story():
        async with Laptop("version: 1\nrules: [{match: {kindd: x}}]\n") as laptop:
            await laptop.agent.reconciler.next_round_after_now()
            assert laptop.agent.service.status()["guests"] == []
            laptop.text = MICE
            await laptop.agent.service.reload()
            await laptop.until("1-1", ("attached", "kiosk"))
            laptop.text = MICE.replace("kiosk", "desk")
            await laptop.agent.service.reload()
            await laptop.until("1-1", ("attached", "desk"))
            assert {g["name"]: g["state"] for g in laptop.agent.service.status()["guests"]} == {
                "desk": "running", "kiosk": "running",
            }  # fmt: skip

    run(story())


def test_guests_of_a_policy():
    text = """\
version: 1
guests:
  a: {controller: {type: devicemodel, version: 3, ports: 15}}
  b: {controller: {type: qusb, version: 2, ports: 8}}
rules: [{match: {kind: mouse}, attach: [b, c]}]
"""
    policy = load({"p.yaml": text.encode()}).policy
    assert [(g.name, str(g.type), len(g.controllers)) for g in guests_of(policy)] == [
        ("a", "hvm", 0), ("b", "pv", 1), ("c", "pv", 1),
    ]  # fmt: skip


def test_guests_of_a_file():
    async def story():
        async with Laptop(MICE, read_guests(b"kiosk: {type: pv, state: stopped}\nother: {type: hvm}\n", "g")) as laptop:
            await laptop.until("1-1", ("pending", None))
            states = {g["name"]: g["state"] for g in laptop.agent.service.status()["guests"]}
            assert states == {"kiosk": "stopped", "other": "running"}

    run(story())


@pytest.mark.parametrize(("text", "said"), [
    ("a: {}\n", ":1:4: a.type: is missing"),
    ("a: {type: pv, boots_in: soon}\n", ":1:25: a.boots_in: 'soon' is not a duration"),
    ("a: {type: pv, colour: red}\nb: 7\n", ":1:15: a.colour: unknown key"),
    ("[", ":2:1: YAML cannot read this"),
])  # fmt: skip
def test_a_bad_file_of_guests(text, said):
    with pytest.raises(ValueError) as wrong:
        read_guests(text.encode(), "/x/g")
    assert str(wrong.value).startswith(f"/x/g{said}")
