"""A first policy for the devices that are plugged in, and a scenario that tests it: the files of `xenplug init`.

Rules match by `path`, the socket, which does not change at a replug or a boot. A device whose socket is unknown is
matched by its tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xenplug.core.model import Device
from xenplug.core.policy.write import flow, rule, scalar

Assignments = Sequence[tuple[Device, str]]
"""Devices, each with the guest that it is assigned to."""

TEMPLATE_HEAD = """\
# Written by `xenplug init` for the devices that were plugged in. The first rule that matches a device decides.
# To check this file, run `xenplug check FILE`. The language is described in xenplug-policy(5).
version: 1

# Devices that dom0 itself uses (mounted disks, the interface with the default route) always stay with dom0.
"""
HUB_COMMENT = "05e3:0608"
TEMPLATE_TAIL = """
# A device that no rule matches stays with the host. Write `block` to keep such devices from the host too.
default: host
"""


def called(device: Device) -> str:
    """A readable name of the device, with its tag."""
    name = device.product or (device.names[-1] if device.names else "") or "/".join(sorted(device.kinds)) or "device"
    return f"{name} ({device.tag})"


def match(device: Device) -> dict[str, str]:
    """The match that finds the device again."""
    return {"path": device.path} if device.path else {"device": str(device.tag)}


def policy_text(assigned: Assignments, kept: Iterable[Device]) -> str:
    """The text of the policy: devices `assigned` to guests, and devices `kept` in dom0."""
    protect = [device for device in kept if "keyboard" in device.kinds]
    rest = [device for device in kept if device not in protect]
    text = TEMPLATE_HEAD
    if protect:
        entries = "".join(f"  # {_comment(device)}\n  - {flow(match(device))}\n" for device in protect)
        text += f"\n# These never leave dom0: without a keyboard you cannot type there.\nprotect:\n{entries}"
    text += "\nrules:\n" if assigned else "\nrules: []\n"
    text += "".join(rule(_rule(device, guest), _comment(device)) for device, guest in assigned)
    if rest:
        text += "\n  # Plugged in, but left with the host. To attach one, remove the # and name a guest:\n"
        text += "".join(
            f"  # - {{match: {flow(match(device))}, attach: GUEST}}   # {_comment(device)}\n" for device in rest
        )
    return text + TEMPLATE_TAIL


def _rule(device: Device, guest: str) -> dict[str, object]:
    return {"name": f"{called(device)} in {device.port}", "match": match(device), "attach": guest}


def _comment(device: Device) -> str:
    return f"{called(device)}, in {device.port}"


def scenario_text(assigned: Assignments, policy: str) -> str:
    """A scenario: each device is plugged in and attached. `policy`: its path from the scenario's folder."""
    buses: dict[str, int] = {}
    events: list[str] = []
    for number, (device, guest) in enumerate(assigned, 1):
        port, hubs = _port(device, buses, number)
        events += [
            f"  - plug: {flow({'port': hub, 'device': HUB_COMMENT, 'kind': 'hub'})}"
            for hub in hubs
            if _new(hub, events)
        ]
        events.append(f"  - plug: {flow(_plugged(device, port))}")
        events.append(f"  - expect: {flow({'port': port, 'state': 'attached', 'guest': guest, 'within': '30s'})}")
    guests = {guest: {"type": "hvm"} for _, guest in assigned}
    controllers = [
        flow({"bdf": bdf, "buses": {str(bus): {"ports": 31, "speed": "high"}}}) for bdf, bus in buses.items()
    ]
    host = "host:\n  controllers:\n" + "".join(f"    - {line}\n" for line in controllers) if controllers else ""
    return (
        f"version: 1\nname: devices of `xenplug init` reach their guests\npolicy: {scalar(policy)}\n{host}"
        + f"guests: {flow(guests)}\ntimeline:\n"
        + "\n".join(events)
        + "\n"
    )


def _new(hub: str, events: Iterable[str]) -> bool:
    return not any(f"plug: {{port: {hub}," in event for event in events)


def _port(device: Device, buses: dict[str, int], number: int) -> tuple[str, list[str]]:
    """The port of the device's socket on the simulated host, and the hubs above it."""
    bus = buses.setdefault(str(device.controller or "0000:00:14.0"), len(buses) + 1)
    place = device.path.rpartition(":")[2] if device.path else f"{31 - number % 31}"
    parts = place.split(".")
    return f"{bus}-{place}", [f"{bus}-{'.'.join(parts[:n])}" for n in range(1, len(parts))]


def _plugged(device: Device, port: str) -> Mapping[str, Any]:
    speed = str(device.speed) if device.speed and not device.speed.startswith("super") else "high"
    spec: dict[str, Any] = {"port": port, "device": device.tag, "speed": speed}
    return spec | ({"interfaces": [str(i) for i in device.interfaces]} if device.interfaces else {})
