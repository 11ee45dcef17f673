"""The lab as a floor for scenarios: a real Xen host, real guests, the agent run by its systemd unit in dom0.

labkit's sockets, guests and scenario_devices translate ports, guests and devices into the lab's. The status comes from
the agent's own socket, forwarded by ssh: what `xenplug status --json` prints, without starting Python for each check.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any

from labkit import Lab, control, wait_until
from labkit.guests import ScenarioGuests
from labkit.guests import playable as guest_playable
from labkit.scenario_devices import ScenarioDevices, alike, emulated, socket
from labkit.scenario_devices import playable as device_playable
from labkit.sockets import Sockets
from tests import floor_scenarios

from xenplug.adapters.client import Client
from xenplug.core.documents.document import Node, parse
from xenplug.core.matching.match import Matcher
from xenplug.core.model import BusId, Device, GuestType
from xenplug.core.policy.load import load_node
from xenplug.scenario.format import Scenario, TimelineEvent, default_controllers, family
from xenplug.scenario.runner import Unplayable

STRETCH = 6.0
"""Real seconds for one of `within`: an xl call, a plug, a boot take several times as long under emulation. Waits of the
scenario itself are not stretched: the agent's own times (120 s without a frontend) are real ones."""
SETTLE = 1.0
"""Seconds from the end of a verb to the first check: until then the agent may not have received its event."""
LOOK_EVERY = 0.5
ELSEWHERE = {
    "together": "the lab does one thing after the other",
    "fail": "the real xl cannot be made to fail",
    "lose": "the real udev and xenstored lose nothing at will",
    "suspend": "dom0 cannot be suspended under emulation",
}
POLICIES, STATE = "/etc/xenplug/policies.d", "/run/xenplug /var/lib/xenplug"
FRESH_HOST = f"""
systemctl stop xenplug
rm -rf {STATE} {POLICIES}/*
for file in /sys/bus/usb/devices/usb*/{{authorized,interface_authorized}}_default; do echo 1 > $file; done
"""
"""An agent that stops under `default: block` leaves the root hubs closed; no later one without its state opens them."""
TREES = "xenstore-ls -f /libxl 2>/dev/null; xenstore-ls -f /local/domain/0/backend 2>/dev/null; ls /sys/bus/usb/devices"
PORT_VALUE = re.compile(r'^/local/domain/0/backend/(?:qusb|vusb)/\d+/\d+/port/\d+ = "(.+)"$', re.MULTILINE)
OWN_VALUE = re.compile(r'^(/libxl/\d+/device/vusb/\d+)/port/\d+ = "(.+)"$', re.MULTILINE)
BUSID = re.compile(r"\d+-[\d.]+\Z")


class LabSight:
    """An Observation that reads from dom0 only what is compared: a walk through xenstore keeps dom0 busy for a
    second.
    """

    calls = None

    def __init__(self, floor: LabFloor, status: Mapping[str, Any]) -> None:
        self.status, self._floor = status, floor

    @property
    def stale_ports(self) -> int:
        return self._floor.stale_ports()

    @property
    def log(self) -> tuple[str, ...]:
        return self._floor.log()

    @property
    def past(self) -> tuple[Mapping[str, Any], ...]:
        return self._floor.past()


class LabFloor:
    """One scenario in the lab."""

    def __init__(self, lab: Lab, guests: ScenarioGuests, scenario: Scenario) -> None:
        self._lab, self._guests, self._scenario = lab, guests, scenario
        devices = list(floor_scenarios.devices(scenario))
        self._emulated = emulated(devices)
        self._began = self._acted = self._looked = time.monotonic()
        self._sockets = Sockets(guests.buses, self._emulated)
        self._devices_in_lab = ScenarioDevices(lab, self._sockets)
        self._addresses: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._since = 0
        self._opened = False
        self._client = Client(control.LOCAL, 20)
        self._past = floor_scenarios.Past(self._client)

    # ---- opening and closing

    async def open(self) -> None:
        self._survey()
        self._opened = True
        await asyncio.to_thread(self._open)
        self._began = time.monotonic()

    def _survey(self) -> None:
        """Everything the scenario asks for, before anything is done. Raises Unplayable."""
        if self._scenario.controllers != default_controllers():
            raise Unplayable("the lab's host controllers are those it has")
        for event in self._scenario.timeline:
            if event.verb in ELSEWHERE:
                raise Unplayable(f"{event.verb}: {ELSEWHERE[event.verb]}")
            if event.verb in ("frontend", "device_model"):
                wanted = event.value.get("connected", event.value.get("alive")) in ("yes", "true")
                if wanted == (event.verb == "device_model"):
                    raise Unplayable(f"{event.verb} {event.value}: that cannot be done to a real guest")
        for name, spec in self._scenario.guests.items():
            guest_playable(name, spec)
        for device in floor_scenarios.devices(self._scenario):
            device_playable(device, self._emulated)
        self._survey_sockets()
        self._survey_stand_ins()

    def _survey_sockets(self) -> None:
        """Ports 1-N and 2-N are one socket here, which holds one device at a time."""
        taken: dict[int, str] = {}
        plugged = [TimelineEvent("plug", {"port": device.port}, 0) for device in self._scenario.devices]
        for event in [*plugged, *self._scenario.timeline]:
            if event.verb == "plug" and "." not in (port := event.value["port"]):
                if other := taken.get(socket(port)):
                    raise Unplayable(f"ports {other} and {port}: they are one socket in the lab")
                taken[socket(port)] = port
            elif event.verb == "unplug" and taken.get(socket(event.value)) == event.value:
                del taken[socket(event.value)]

    def _survey_stand_ins(self) -> None:
        reloads = [event.value for event in self._scenario.timeline if event.verb == "reload"]
        for value in [self._scenario.policy, *reloads]:
            node, _ = parse(json.dumps(floor_scenarios.policy(self._scenario, value)).encode(), "policy")
            assert node
            policy = load_node(node, "policy").policy
            for device in floor_scenarios.devices(self._scenario):
                if policy and self._stands_in(device.port) and not alike(device, Matcher(policy)):
                    raise Unplayable(f"device {device.tag}: the policy would take QEMU's for another")

    def _stands_in(self, port: str) -> bool:
        return int(port.partition("-")[2].partition(".")[0]) in self._emulated

    def _open(self) -> None:
        self._lab.must(FRESH_HOST)
        self._guests.take(self._scenario.guests)
        for device in self._scenario.devices:
            self._plug(device)
        self._put_policy(self._scenario.policy)
        started = "systemctl reset-failed xenplug 2>/dev/null; date +%s; systemctl start xenplug"
        self._since = int(self._lab.must(started, 90))
        self._client = control.forward(self._lab)
        self._past = floor_scenarios.Past(self._client)
        wait_until(self._answers, 60, "the agent's answer")
        if floor_scenarios.mentions(self._scenario, "never"):
            self._past.start()

    def _answers(self) -> bool:
        return control.answers(self._client)

    async def close(self) -> None:
        for task in self._under_way.values():
            await asyncio.gather(task, return_exceptions=True)
        if self._opened:
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        """Pulled while the agent still runs, so that it clears the ports."""
        self._devices_in_lab.clear()
        if self._answers():
            time.sleep(SETTLE)
        self._past.over = True
        self._lab.must("systemctl stop xenplug")

    # ---- observing

    def now(self) -> float:
        """The lab's seconds: each is STRETCH real ones."""
        return (time.monotonic() - self._began) / STRETCH

    async def observe(self) -> LabSight:
        soonest = max(self._acted + SETTLE, self._looked + LOOK_EVERY)
        await asyncio.sleep(max(0.0, soonest - time.monotonic()))
        self._looked = time.monotonic()
        return LabSight(self, await asyncio.to_thread(self.status))

    def status(self) -> Any:
        """The agent's status with the scenario's names."""
        return self._back(self._client.call("Status")["status"])

    def past(self) -> tuple[Any, ...]:
        """Every status so far, if any expectation asks for it."""
        return tuple(self._back(status) for status in list(self._past.seen))

    def stale_ports(self) -> int:
        """Guest ports that name a device that dom0 no longer has."""
        text = self._lab.must(TREES)
        own = [v for home, v in OWN_VALUE.findall(text) if f'{home}/type = "devicemodel"' in text]
        present = set(text.splitlines())
        return sum(value not in present for value in [*PORT_VALUE.findall(text), *own])

    def log(self) -> tuple[str, ...]:
        """What the agent logged since the scenario began."""
        command = f"journalctl -u xenplug --no-pager -o cat --since @{self._since}"
        return tuple(self._lab.must(command).splitlines())

    def _back(self, value: Any) -> Any:
        """A status with the scenario's names."""
        if isinstance(value, dict):
            found = {key: self._back(inner) for key, inner in value.items()}
            return self._device(found) if "port" in found and "device" in found else found
        if isinstance(value, list):
            return [self._back(entry) for entry in value]
        return self._sockets.back(value) if isinstance(value, str) and BUSID.match(value) else value

    def _device(self, device: dict[str, Any]) -> dict[str, Any]:
        """Its address is counted as in the simulator; a replacement for a device is shown as that device."""
        port = device["port"]
        translated = {"address": self._addresses.get(port, device["address"])}
        if self._stands_in(port) and port in self._devices_in_lab.there:
            translated["device"] = str(self._devices_in_lab.there[port].tag)
        return device | translated

    # ---- acting

    async def act(self, verb: str, value: Any) -> None:
        guest = {"start", "stop", "reboot", "destroy"}
        if verb in guest:
            await self._guest(verb, value)
        else:
            await asyncio.to_thread(getattr(self, f"_do_{verb}"), value)
        self._acted = time.monotonic()

    async def _guest(self, verb: str, name: str) -> None:
        """Continues in the background, as in the simulator; a guest's next verb waits for it."""
        await self._settled(name)
        hvm = self._scenario.guests[name].type is GuestType.HVM
        work: Mapping[str, Callable[[], None]] = {
            "start": lambda: self._guests.create(name),
            "stop": lambda: self._guests.stop(name, hvm),
            "reboot": lambda: self._guests.reboot(name, hvm),
            "destroy": lambda: self._guests.destroy(name),
        }
        self._under_way[name] = asyncio.create_task(asyncio.to_thread(work[verb]))

    async def _settled(self, name: str) -> None:
        if name in self._under_way:
            await self._under_way.pop(name)

    def _plug(self, device: Device) -> None:
        bus = device.port.partition("-")[0]
        self._numbers[bus] = self._numbers.get(bus, 1) + 1
        self._addresses[device.port] = f"{bus}.{self._numbers[bus]}"
        self._devices_in_lab.plug(device)

    def _do_plug(self, value: Mapping[str, Any]) -> None:
        for device in family(value):
            self._plug(device)

    def _do_unplug(self, port: str) -> None:
        self._devices_in_lab.unplug(port)

    def _do_reenumerate(self, value: Mapping[str, str]) -> None:
        self._devices_in_lab.become(BusId(value["port"]), value.get("device"))

    def _do_pause(self, name: str) -> None:
        self._lab.must(f"xl pause {name}")

    def _do_unpause(self, name: str) -> None:
        self._lab.must(f"xl unpause {name}")

    def _do_frontend(self, value: Mapping[str, str]) -> None:
        self._guests.load_driver(value["guest"])

    def _do_device_model(self, value: Mapping[str, str]) -> None:
        self._guests.kill_device_model(value["guest"])

    def _do_crash(self, _: str) -> None:
        """kill -9; systemd starts it again after two seconds."""
        pid = self._pid()
        self._lab.must("systemctl reset-failed xenplug; systemctl kill -s KILL xenplug")
        wait_until(lambda: self._pid() not in (pid, "0") and self._answers(), 60, "the next agent")

    def _do_restart(self, _: str) -> None:
        self._lab.must("systemctl restart xenplug", 90)
        wait_until(self._answers, 60, "the next agent")

    def _pid(self) -> str:
        return self._lab.must("systemctl show -p MainPID --value xenplug").strip()

    def _do_reload(self, value: str | Node) -> None:
        """A policy with problems stays in its file, as a person would leave it; the agent keeps the last good one."""
        self._put_policy(value)
        self._lab.dom0("xenplug reload", 60)

    def _do_xl(self, words: list[str]) -> None:
        self._lab.xl(*self._xl_words(words))

    def _xl_words(self, words: list[str]) -> list[str]:
        """hostbus= and hostaddr= name an address of the scenario's; here it is another."""
        given = dict(word.split("=", 1) for word in words if "=" in word)
        if "hostaddr" not in given:
            return words
        address = f"{given['hostbus']}.{given['hostaddr']}"
        port = next((self._sockets.port(p) for p, a in self._addresses.items() if a == address), None)
        real = next((d for d in self._lab.host_devices() if d.port == port), None)
        if real is None:
            raise Unplayable(f"xl {' '.join(words)}: nothing has the address {address}")
        translated = {"hostbus": real.bus, "hostaddr": real.address}
        return [f"{key}={translated[key]}" if (key := word.partition("=")[0]) in translated else word for word in words]

    async def command(self, words: list[str]) -> tuple[int, str]:
        mapped = [self._sockets.port(word) for word in words]
        done = await asyncio.to_thread(self._lab.dom0, "xenplug " + shlex.join(mapped), 120)
        self._acted = time.monotonic()
        return done.returncode, (done.stdout + done.stderr).strip()

    def _put_policy(self, value: str | Node) -> None:
        """JSON is YAML."""
        to_lab = {"port": self._sockets.port, "path": self._sockets.path}
        self._lab.policy(
            json.dumps(floor_scenarios.placed(floor_scenarios.policy(self._scenario, value), to_lab), indent=1),
            "floor_scenarios.yaml",
        )
