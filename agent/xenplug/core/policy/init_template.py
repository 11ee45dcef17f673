"""A first policy from what is plugged in, and the scenario that tests it: the texts that `xenplug init` writes.

Rules go by `path`, the socket, which stays over replugs and boots; a device whose socket cannot be told goes by its
tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xenplug.core.model import Device
from xenplug.core.policy.write import flow, rule, scalar

Assignments = Sequence[tuple[Device, str]]
"""Devices and the guests they go to."""

TEMPLATE_HEAD = """\
# Written by `xenplug init` from what was plugged in. The first rule that matches a device decides.
# Check it: `xenplug check FILE`; the language: xenplug-policy(5).
version: 1

# What dom0 itself uses (mounted disks, the interface with the default route) stays with it by itself.
"""
HUB_COMMENT = "05e3:0608"
TEMPLATE_TAIL = """
# What no rule matches stays with the host; `block` would keep it from the host too.
default: host
"""


def called(device: Device) -> str:
    """The device as its owner would call it."""
    name = device.product or (device.names[-1] if device.names else "") or "/".join(sorted(device.kinds)) or "device"
    return f"{name} ({device.tag})"


def match(device: Device) -> dict[str, str]:
    """What finds it again."""
    return {"path": device.path} if device.path else {"device": str(device.tag)}


def policy_text(given: Assignments, kept: Iterable[Device]) -> str:
    """The policy."""
    protect = [device for device in kept if "keyboard" in device.kinds]
    rest = [device for device in kept if device not in protect]
    text = TEMPLATE_HEAD
    if protect:
        entries = "".join(f"  # {_comment(device)}\n  - {flow(match(device))}\n" for device in protect)
        text += f"\n# Never given away: without a keyboard nobody can type in dom0.\nprotect:\n{entries}"
    text += "\nrules:\n" if given else "\nrules: []\n"
    text += "".join(rule(_rule(device, guest), _comment(device)) for device, guest in given)
    if rest:
        text += "\n  # Plugged in, and left with the host; take the # away and name a guest:\n"
        text += "".join(
            f"  # - {{match: {flow(match(device))}, attach: GUEST}}   # {_comment(device)}\n" for device in rest
        )
    return text + TEMPLATE_TAIL


def _rule(device: Device, guest: str) -> dict[str, object]:
    return {"name": f"{called(device)} in {device.port}", "match": match(device), "attach": guest}


def _comment(device: Device) -> str:
    return f"{called(device)}, in {device.port}"


def scenario_text(given: Assignments, policy: str) -> str:
    """A scenario in which each device is plugged in and arrives. `policy`: its path from the scenario's folder."""
    buses: dict[str, int] = {}
    events: list[str] = []
    for number, (device, guest) in enumerate(given, 1):
        port, hubs = _port(device, buses, number)
        events += [
            f"  - plug: {flow({'port': hub, 'device': HUB_COMMENT, 'kind': 'hub'})}"
            for hub in hubs
            if _new(hub, events)
        ]
        events.append(f"  - plug: {flow(_plugged(device, port))}")
        events.append(f"  - expect: {flow({'port': port, 'state': 'attached', 'guest': guest, 'within': '30s'})}")
    guests = {guest: {"type": "hvm"} for _, guest in given}
    controllers = [
        flow({"bdf": bdf, "buses": {str(bus): {"ports": 31, "speed": "high"}}}) for bdf, bus in buses.items()
    ]
    host = "host:\n  controllers:\n" + "".join(f"    - {line}\n" for line in controllers) if controllers else ""
    return (
        f"version: 1\nname: what `xenplug init` gave to guests arrives there\npolicy: {scalar(policy)}\n{host}"
        + f"guests: {flow(guests)}\ntimeline:\n"
        + "\n".join(events)
        + "\n"
    )


def _new(hub: str, events: Iterable[str]) -> bool:
    return not any(f"plug: {{port: {hub}," in event for event in events)


def _port(device: Device, buses: dict[str, int], number: int) -> tuple[str, list[str]]:
    """Where the simulated host has the device's socket, and the hubs on the way."""
    bus = buses.setdefault(str(device.controller or "0000:00:14.0"), len(buses) + 1)
    place = device.path.rpartition(":")[2] if device.path else f"{31 - number % 31}"
    parts = place.split(".")
    return f"{bus}-{place}", [f"{bus}-{'.'.join(parts[:n])}" for n in range(1, len(parts))]


def _plugged(device: Device, port: str) -> Mapping[str, Any]:
    speed = str(device.speed) if device.speed and not device.speed.startswith("super") else "high"
    spec: dict[str, Any] = {"port": port, "device": device.tag, "speed": speed}
    return spec | ({"interfaces": [str(i) for i in device.interfaces]} if device.interfaces else {})
