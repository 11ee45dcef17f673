"""The bench as a floor for scenarios: real libudev, xl and xenstored; guests are played (player.py), in real seconds.

Ports, addresses and guests are those of the scenario, so nothing has to be translated.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import floor_scenarios

from xenplug.core.documents.document import Node
from xenplug.core.model import ControllerType, Device, Speed
from xenplug.scenario.expect import Observation
from xenplug.scenario.format import YES, GuestSpec, Scenario, controller_spec, family, moved
from xenplug.scenario.runner import Unplayable
from xenplug.scenario.simulated_floor import guest_config
from xenplug.simulator.drivers import dom0_drivers
from xenplug.simulator.sockets import HostController as SimController
from xenplug.simulator.times import SimulatedTimes

from .agent import AgentProcess
from .player import Player
from .toolstack import BenchToolstack
from .usb import Testbed
from .usbspec import BULK, ISOCHRONOUS, Bus, Endpoint, HostController, UsbDevice, UsbInterface
from .xswire import Xenstore

TIMES = SimulatedTimes()
SETTLE = 0.15
"""Seconds from the end of a verb to the first check: until then the agent may not have received its event."""
MODES = {"refused": "refuse the guest has left the building", "hang": "hang", "killed": "kill"}


class BenchFloor:
    """One scenario on the bench."""

    def __init__(self, scratch: Path, scenario: Scenario) -> None:
        self._scratch, self._scenario = scratch, scenario
        self._testbed: Testbed | None = None
        self._domids: dict[str, int] = {}
        self._last_domid = 0
        self._plugged: dict[str, Device] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._began = self._acted = time.monotonic()

    # ---- opening and closing

    async def open(self) -> None:
        self._survey()
        self._testbed = Testbed()
        for controller in self._scenario.controllers:
            self._testbed.add_host_controller(_controller(controller))
        self._toolstack = BenchToolstack(self._scratch, self._testbed.root / "sys")
        self._toolstack.start()
        self._player = Player(self._toolstack, self._testbed)
        self._player.start()
        self._store = Xenstore(self._toolstack.socket)
        for device in self._scenario.devices:
            self._plug(device)
        for name, spec in self._scenario.guests.items():
            if spec.running:
                self._boot(name)
                self._driver(name, self._domids[name])
        self._agent = AgentProcess(self._toolstack, self._testbed, self._policy(self._scenario.policy))
        await asyncio.to_thread(self._agent.start)
        self._past = floor_scenarios.Past(self._agent.client)
        if floor_scenarios.mentions(self._scenario, "never"):
            self._past.start()
        self._began = time.monotonic()

    def _survey(self) -> None:
        """Everything the scenario asks for, before anything is done. Raises Unplayable."""
        for event in floor_scenarios.events(self._scenario):
            if event.verb in ("lose", "suspend"):
                raise Unplayable(f"{event.verb}: the bench's udev and xenstored lose nothing at will")
            if event.verb == "fail" and event.value["how"] not in MODES:
                raise Unplayable(f"fail {event.value['how']}: only xl is made to fail here, not the device model")
        for device in floor_scenarios.devices(self._scenario):
            if device.in_use:
                raise Unplayable(f"device {device.tag}: nothing of dom0 can use a device of the testbed")
            if not device.configured:
                raise Unplayable(f"device {device.tag}: no udev rule of dom0 acts on a device of the testbed")
        for controller in self._scenario.controllers:
            if controller.bdf is None:
                raise Unplayable("a host controller without a PCI address")

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._testbed is None:
            return
        self._past.over = True
        self._agent.end()
        self._store.close()
        self._player.stop()
        self._toolstack.stop()
        self._testbed.close()

    def _policy(self, value: str | Node) -> str:
        return json.dumps(floor_scenarios.policy(self._scenario, value), indent=1)

    # ---- observing

    def now(self) -> float:
        """Real seconds since the scenario began."""
        return time.monotonic() - self._began

    async def observe(self) -> Observation:
        await asyncio.sleep(max(0.0, self._acted + SETTLE - time.monotonic()))
        status = await asyncio.to_thread(self._agent.status)
        log = tuple(self._agent.log.read_text().splitlines())
        calls = Counter(call.argv[0] for call in self._toolstack.calls())
        return Observation(status, self._stale_ports(), calls, log, tuple(self._past.seen))

    def _stale_ports(self) -> int:
        values = [self._store.read(f"{port}") for port in self._ports()]
        return sum(bool(value) and value not in self._plugged for value in values)

    def _ports(self) -> list[str]:
        """The path of the live value of each guest port (xen-facts 2.3)."""
        controllers = []
        for domid in list(self._domids.values()):
            home = f"/libxl/{domid}/device/vusb"
            for number in self._store.ls(home):
                emulated = self._store.read(f"{home}/{number}/type") == ControllerType.DEVICEMODEL
                controllers.append(f"{home}/{number}" if emulated else f"/local/domain/0/backend/qusb/{domid}/{number}")
        return [f"{base}/port/{port}" for base in controllers for port in self._store.ls(f"{base}/port")]

    # ---- guests

    def _spec(self, name: str) -> GuestSpec:
        return self._scenario.guests[name]

    def _boot(self, name: str) -> int:
        """Create the domain as in its config; its own system is not up yet. A new domid at every start."""
        spec = self._spec(name)
        self._last_domid += 1
        domid = self._domids[name] = self._last_domid
        config = guest_config(name, spec)
        specs = map(controller_spec, spec.controllers)
        words = [(f"type={c.type}", f"version={c.version}", f"ports={c.ports}") for c in specs]
        model = config.has_device_model
        self._player.boot(domid, name, spec.type.value, frontend=False, device_model=model, controllers=words)
        return domid

    def _driver(self, name: str, domid: int) -> None:
        """The guest's system is up: its PVUSB driver connects, if it has one."""
        if guest_config(name, self._spec(name)).has_frontend and self._domids.get(name) == domid:
            self._player.set_frontend(domid, True)

    async def _create(self, name: str) -> None:
        await asyncio.sleep(TIMES.create)
        domid = await asyncio.to_thread(self._boot, name)
        await asyncio.sleep(max(0.0, guest_config(name, self._spec(name)).boots_in - TIMES.create))
        self._driver(name, domid)

    async def _end(self, name: str, again: bool) -> None:
        self._toolstack.set_flags(self._running(name), "s")
        if not again and self._spec(name).kept:
            return
        await asyncio.sleep(TIMES.shutdown)
        self._player.destroy(self._domids.pop(name))
        if again:
            await asyncio.sleep(TIMES.reboot_sleep)
            await self._create(name)

    def _running(self, name: str) -> int:
        if name not in self._domids:
            raise Unplayable(f"guest {name}: not running")
        return self._domids[name]

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)

    # ---- devices

    def _plug(self, device: Device) -> None:
        assert self._testbed
        self._testbed.plug(device.port, _usb_device(device))
        self._plugged[device.port] = device

    # ---- acting

    async def act(self, verb: str, value: Any) -> None:
        await getattr(self, f"_do_{verb}")(value)
        self._acted = time.monotonic()

    async def _do_plug(self, value: Mapping[str, Any]) -> None:
        for device in family(value):
            self._plug(device)

    async def _do_unplug(self, port: str) -> None:
        assert self._testbed
        self._testbed.unplug(port)
        self._plugged = {p: d for p, d in self._plugged.items() if p != port and not p.startswith(f"{port}.")}

    async def _do_reenumerate(self, value: Mapping[str, str]) -> None:
        assert self._testbed
        device = moved(self._plugged[value["port"]], value.get("device"))
        self._testbed.reenumerate(device.port, _usb_device(device))
        self._plugged[device.port] = device

    async def _do_start(self, name: str) -> None:
        self._begin(self._create(name))

    async def _do_stop(self, name: str) -> None:
        self._begin(self._end(name, again=False))

    async def _do_reboot(self, name: str) -> None:
        self._begin(self._end(name, again=True))

    async def _do_destroy(self, name: str) -> None:
        self._player.destroy(self._running(name))
        del self._domids[name]

    async def _do_pause(self, name: str) -> None:
        self._player.set_paused(self._running(name), True)

    async def _do_unpause(self, name: str) -> None:
        self._player.set_paused(self._running(name), False)

    async def _do_frontend(self, value: Mapping[str, str]) -> None:
        self._player.set_frontend(self._running(value["guest"]), value["connected"] in YES)

    async def _do_device_model(self, value: Mapping[str, str]) -> None:
        act = self._player.revive_device_model if value["alive"] in YES else self._player.kill_device_model
        await asyncio.to_thread(act, self._running(value["guest"]))

    async def _do_crash(self, _: str) -> None:
        """kill -9; the service manager starts it again."""
        await asyncio.to_thread(self._again, signal.SIGKILL)

    async def _do_restart(self, _: str) -> None:
        await asyncio.to_thread(self._again, signal.SIGTERM)

    def _again(self, how: signal.Signals) -> None:
        self._agent.end(how)
        self._agent.start()

    async def _do_fail(self, value: Mapping[str, str]) -> None:
        self._toolstack.misbehave(value["command"], MODES[value["how"]], int(value.get("times", "1")))

    async def _do_reload(self, value: str | Node) -> None:
        self._agent.policy.write_text(self._policy(value))
        await self.command(["reload"])

    async def _do_xl(self, words: list[str]) -> None:
        await asyncio.to_thread(self._toolstack.xl, *words)

    async def command(self, words: list[str]) -> tuple[int, str]:
        done = await asyncio.to_thread(self._run, words)
        self._acted = time.monotonic()
        return done.returncode, (done.stdout + done.stderr).strip()

    def _run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._agent.argv(*words), env=self._agent.environment(), capture_output=True, text=True, timeout=60
        )


def _controller(controller: SimController) -> HostController:
    buses = {number: Bus(bus.ports, bus.speed.value) for number, bus in controller.buses.items()}
    peers = {str(fast): str(slow) for fast, slow in controller.peers.items()}
    return HostController(str(controller.bdf), controller.driver or "xhci_hcd", buses, peers)


def _usb_device(device: Device) -> UsbDevice:
    """The scenario's device as the testbed describes one: each interface with one endpoint."""
    fast = device.speed in (Speed.SUPER, Speed.SUPER_PLUS)
    interfaces = tuple(
        UsbInterface((i.class_, i.subclass, i.protocol), driver, (_endpoint(0x81 + number, device.isochronous),))
        for number, (i, driver) in enumerate(zip(device.interfaces, dom0_drivers(device), strict=True))
    )
    class_ = device.device_class
    return UsbDevice(
        device.tag,
        interfaces,
        speed=(device.speed or Speed.HIGH).value,
        device_class=(class_.class_, class_.subclass, class_.protocol),
        usb=0x0300 if fast else 0x0200,
        revision=int((device.revision or "1.00").replace(".", ""), 16),
        manufacturer=device.manufacturer,
        product=device.product,
        serial=device.serial,
        removable=device.removable,
        maxchild=8 if device.hub else 0,
    )


def _endpoint(address: int, isochronous: bool) -> Endpoint:
    return Endpoint(address, ISOCHRONOUS, 64, 1, b"\0\0") if isochronous else Endpoint(address, BULK, 64)
