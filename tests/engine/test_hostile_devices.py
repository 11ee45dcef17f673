"""Under `default: block` dom0's drivers get only devices that the policy admits, whatever a device claims to be.

A hypothesis state machine plugs lying devices into a simulated host: hubs that are also something else, keyboards in
blocked sockets, devices with another device's tag, devices that no guest can use. The test computes independently which
devices may be admitted, as a person would read the policy. HYPOTHESIS_PROFILE=long searches long.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tests.machine import Machine, test_case
from tests.simulated_agent import KIOSK, WIN, SimulatedAgent

from xenplug.adapters.varlink import Refused
from xenplug.scenario.format import device

POLICY = """version: 1
default: block
auto_protect: [storage, network, keyboard]
protect: [{device: "046d:c31c"}, {port: 1-5}]
rules:
  - {match: {port: 1-1}, action: block}
  - {match: {port: 1-4, interfaces: ["03:*:*"]}, action: host}
  - {match: {kind: storage}, action: block}
  - {match: {kind: keyboard}, attach: [kiosk, win], idle: block}
  - {match: {kind: [audio, mouse]}, attach: kiosk, idle: block, ambiguous: refuse}
  - {match: {device: "0483:5740"}, attach: kiosk, idle: block, follow: 10s}
"""
KEYS, HID, DISK, HUB, SOUND, OTHER = "03:01:01", "03:00:00", "08:06:50", "09:00:00", "01:02:00", "ff:00:00"
MINE = "046d:c31c"
TAGS = (MINE, "0483:5740", "1111:0001", "1111:0002")
ports = st.sampled_from(["1-1", "1-2", "1-3", "1-4", "1-5", "2-4"])
guests = st.sampled_from(["kiosk", "win"])


class Liars(Machine):
    """A closed host, and devices that should stay blocked."""

    def make_host(self) -> SimulatedAgent:
        self.given: set[tuple[str, int]] = set()
        return SimulatedAgent(POLICY, KIOSK, WIN)

    def watch(self) -> None:
        super().watch()
        for here in self.simulated.world.kernel.devices().values():
            if self.simulated.world.holders(here):
                self.given.add(here.key)  # its device model returns it to dom0's drivers by itself
            bound = [driver for driver in here.drivers if driver not in (None, "usbfs")]
            spec = self.plugged.get(here.port)
            if bound and spec and here.key not in self.given and not admitted(here.port, spec):
                self.wrong.append(f"dom0 has {bound} on {here.port}: {spec}")
            if here.partly_hub and self.simulated.world.holders(here):
                self.wrong.append(f"a guest has {here.port} alone: {spec}")

    @rule(
        port=ports,
        tag=st.sampled_from(TAGS),
        interfaces=st.lists(st.sampled_from([KEYS, HID, DISK, HUB, SOUND, OTHER]), min_size=1, max_size=3, unique=True),
        class_=st.sampled_from(["00:00:00", "09:00:00", "08:06:50"]),
        used=st.booleans(),
    )
    def plug(self, port: str, tag: str, interfaces: list[str], class_: str, used: bool) -> None:
        if port in self.plugged:
            return
        spec: dict[str, Any] = {"device": tag, "interfaces": interfaces, "class": class_}
        spec |= {"isochronous": "yes" if SOUND in interfaces else "no"}
        spec |= {"speed": "super" if port.startswith("2") else "full"}
        spec |= {"in_use": "keyboard"} if used and KEYS in interfaces else {}
        self.plugged[port] = spec
        self.now(lambda: self.simulated.world.kernel.plug(device({"port": port, **spec})))

    @rule(name=guests, how=st.sampled_from(["stop", "reboot", "destroy", "start", "pause", "unpause"]))
    def guest(self, name: str, how: str) -> None:
        found = self.simulated.world.guests.named(name)
        if (found.domid is None) is (how == "start") and not found.ending:
            self.now(getattr(self.simulated.world.guests, how), name)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.5, 4.0, 12.0, 130.0]))
    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep, seconds)

    @precondition(lambda self: self.plugged)
    @rule(data=st.data(), guest=guests, verb=st.sampled_from(["attach", "detach", "release", "pause", "resume"]))
    def order(self, data: st.DataObject, guest: str, verb: str) -> None:
        port = data.draw(st.sampled_from(sorted(self.plugged)))
        try:
            self.do(self.ask, verb, port, *([guest] if verb == "attach" else []))
        except Refused as refused:
            assert refused.parameters["cause"]

    @rule(command=st.sampled_from(["usbdev-attach", "usbctrl-attach"]), how=st.sampled_from(["refused", "silent"]))
    def fail(self, command: str, how: str) -> None:
        self.simulated.world.commands.failures.plan(command, 1, how)

    def judge(self) -> None:
        """Admitted devices are in dom0; a pause ends."""
        for port in {"1-5"} & set(self.plugged):
            assert self.simulated.device_json(port)["authorized"], self.simulated.device_json(port)


def admitted(port: str, spec: dict[str, Any]) -> bool:
    """Whether the policy admits it to dom0."""
    says, class_ = {*spec["interfaces"]}, spec["class"]
    if port == "1-5" or (says == {HUB} and class_.startswith("09")):
        return True
    if port == "1-4" and says <= {KEYS, HID}:
        return True
    disk = DISK in says or class_ == DISK
    return spec["device"] == MINE and (not disk or says == {DISK})


TestLiars = test_case(Liars)
