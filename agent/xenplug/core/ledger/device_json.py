"""A device's facts as JSON and back: for the ledger, which keeps those of devices that left with their controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from xenplug.core.model import Bdf, BusId, Device, Interface, Speed, Tag, Use
from xenplug.core.usb.hubs import is_hub, says_hub


def device_to_json(device: Device) -> dict[str, Any]:
    """Every field, in the types of JSON."""
    found = {item.name: getattr(device, item.name) for item in fields(Device)}
    return found | {
        "device_class": str(device.device_class),
        "interfaces": [str(interface) for interface in device.interfaces],
        "kinds": sorted(device.kinds),
        "in_use": sorted(device.in_use),
        "names": list(device.names),
        "drivers": list(device.drivers),
        "parent": device.parent and device_to_json(device.parent),
    }


def device_from_json(record: Mapping[str, Any]) -> Device:
    """The device that `device_to_json` wrote. Raises KeyError, TypeError or ValueError if it is not that."""
    record = record if "partly_hub" in record else _hub_judged(record)
    known = {item.name: record[item.name] for item in fields(Device)}
    return Device(
        **known
        | {
            "port": BusId(str(record["port"])),
            "bus": int(record["bus"]),
            "number": int(record["number"]),
            "tag": Tag(str(record["tag"])),
            "controller": record["controller"] and Bdf(str(record["controller"])),
            "device_class": _triple(record["device_class"]),
            "interfaces": tuple(map(_triple, record["interfaces"])),
            "kinds": frozenset(map(str, record["kinds"])),
            "speed": record["speed"] and Speed(record["speed"]),
            "names": tuple(map(str, record["names"])),
            "drivers": tuple(record["drivers"]),
            "in_use": frozenset(map(Use, record["in_use"])),
            "parent": record["parent"] and device_from_json(record["parent"]),
        }
    )


def _hub_judged(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record of before `partly_hub`, when one interface of class hub made a hub."""
    classes, interfaces = [_triple(record["device_class"])], [*map(_triple, record["interfaces"])]
    hub = bool(record["hub"]) and is_hub(classes, interfaces)
    return {**record, "hub": hub, "partly_hub": not hub and (bool(record["hub"]) or says_hub(classes, interfaces))}


def _triple(text: str) -> Interface:
    return Interface(*(int(part, 16) for part in text.split(":")))
