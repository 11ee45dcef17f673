"""The JSON of the commands and the control socket. Keys may be added, never changed.

docs/reference/control-interface.md describes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from xenplug.core.ledger.pci import driven_by_dom0, holder
from xenplug.core.model import Bdf, BusId, Device, Guest, PciController, Snapshot, natural
from xenplug.core.planning.steps import Verdict
from xenplug.core.policy.digest import PolicyIdentity
from xenplug.core.reporting import explain


@dataclass(frozen=True, slots=True)
class Timing:
    """What a view adds to a verdict: when the state began and when the next try is, in seconds since the epoch."""

    since: float | None = None
    next_try: float | None = None


def moment(wall: float | None) -> str | None:
    """A time (seconds since the epoch) as RFC 3339 in UTC."""
    return None if wall is None else datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")


def device_facts(device: Device) -> dict[str, Any]:
    """What the host knows of a device."""
    return {
        "port": device.port,
        "address": device.address,
        "path": device.path,
        "device": device.tag,
        "serial": device.serial,
        "manufacturer": device.manufacturer,
        "product": device.product,
        "names": list(device.names),
        "speed": device.speed and str(device.speed),
        "class": str(device.device_class),
        "interfaces": [str(i) for i in device.interfaces],
        "kinds": sorted(device.kinds),
        "controller": device.controller,
        "drivers": list(device.drivers),
        "removable": device.removable,
        "revision": device.revision,
        "descriptors": device.fingerprint,
        "authorized": device.authorized,
        "in_use": sorted(device.in_use),
    }


_RUNNING_KEYS = ("state", "cause", "reason", "by_hand", "guest", "guest_controller", "guest_port", "used")
UNKNOWN_TO_US = dict.fromkeys((*_RUNNING_KEYS, "since", "attempts", "next_try"))
"""The keys that only a running agent knows."""


def device_view(verdict: Verdict, timings: Timing = Timing()) -> dict[str, Any]:
    """A device with its state."""
    rule = None if verdict.by_hand else verdict.decision.rule
    return device_facts(verdict.device) | {
        "state": str(verdict.state),
        "cause": str(verdict.cause),
        "reason": explain.reason(verdict),
        "guest": verdict.guest,
        "wanted": list(verdict.wanted),
        "guest_controller": verdict.guest_port.controller if verdict.guest_port else None,
        "guest_port": verdict.guest_port.port if verdict.guest_port else None,
        "used": verdict.used,
        "via": verdict.via if verdict.wanted else None,
        "rule": rule.name if rule else None,
        "rule_ref": str(rule.where) if rule else None,
        "by_hand": verdict.by_hand,
        "since": moment(timings.since),
        "attempts": verdict.attempts,
        "next_try": moment(timings.next_try),
    }


def guest_view(guest: Guest) -> dict[str, Any]:
    """A guest with its controllers and ports."""
    return {
        "name": guest.name,
        "domid": guest.domid,
        "type": str(guest.type),
        "state": str(guest.state),
        "controllers": [
            {
                "id": c.id,
                "type": str(c.type),
                "version": c.version,
                "connected": c.connected,
                "ports": {str(port): busid for port, busid in sorted(c.ports.items())},
            }
            for c in guest.controllers
        ],
        "pci": list(guest.pci),
    }


def absent_guest_view(name: str) -> dict[str, Any]:
    """A guest that the policy names but that does not run."""
    return {"name": name, "domid": None, "type": None, "state": "stopped", "controllers": [], "pci": []}


@dataclass(frozen=True, slots=True)
class PolicyView:
    """Whether a policy is in force, since when, the problems of the last reading, and which policy is in force."""

    loaded: bool
    since: float | None = None
    problems: tuple[Mapping[str, Any], ...] = ()
    identity: PolicyIdentity = field(default_factory=PolicyIdentity)


@dataclass(frozen=True, slots=True)
class StatusInput:
    """The input of `status`."""

    version: str
    policy: PolicyView
    snapshot: Snapshot
    verdicts: Iterable[Verdict]
    named: Iterable[str] = ()
    """Guests the policy names."""
    timings: Mapping[BusId, Timing] = field(default_factory=lambda: MappingProxyType({}))
    """By port."""
    passed: Mapping[Bdf, float] = field(default_factory=lambda: MappingProxyType({}))
    """Host controllers that the agent passed through, and since when (seconds since the epoch)."""
    preferred: str | None = None
    paused: Iterable[str] = ()


def controller_view(controller: PciController, snapshot: Snapshot, passed: Mapping[Bdf, float]) -> dict[str, Any]:
    """A host controller, the guest that has it, and what shares its slot or bridge (see PciController)."""
    has = holder(snapshot, controller.bdf)
    return {
        "bdf": controller.bdf,
        "driver": controller.driver,
        "guest": has and has.name,
        "since": moment(passed.get(controller.bdf)),
        "foreign": not driven_by_dom0(controller) and controller.bdf not in passed,
        "slot": [function.bdf for function in controller.slot],
        "bridge": [function.bdf for function in controller.bridge],
        "resettable": controller.resettable,
    }


def status_view(inputs: StatusInput) -> dict[str, Any]:
    """The JSON of `status --json`."""
    guests = inputs.snapshot.guests
    absent = sorted(set(inputs.named) - set(guests))
    return {
        "version": inputs.version,
        "policy": {
            "loaded": inputs.policy.loaded,
            "since": moment(inputs.policy.since),
            "digest": inputs.policy.identity.digest,
            "label": inputs.policy.identity.label,
            "problems": [dict(p) for p in inputs.policy.problems],
        },
        "preferred": inputs.preferred,
        "paused": list(inputs.paused),
        "devices": [device_view(v, inputs.timings.get(v.device.port, Timing())) for v in inputs.verdicts],
        "guests": [guest_view(guests[name]) for name in sorted(guests)] + [absent_guest_view(name) for name in absent],
        "controllers": [controller_view(c, inputs.snapshot, inputs.passed) for c in inputs.snapshot.controllers],
    }


def select(devices: Mapping[BusId, Device], text: str) -> Device | str:
    """The one device that DEVICE names (a port, an address, a path, or a tag); otherwise the error as text."""
    if text in devices:
        return devices[BusId(text)]
    found = [d for d in devices.values() if text in (d.address, d.path, d.plain_path) or text.lower() == d.tag]
    if len(found) == 1:
        return found[0]
    if not found:
        return f"no device {text!r} is plugged in; `xenplug devices` lists ports, addresses and tags"
    ports = ", ".join(sorted((d.port for d in found), key=natural))
    return f"{text!r} fits {len(found)} devices ({ports}); name one by its port"
