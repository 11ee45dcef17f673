"""Which device is a hub, and which hub a device is plugged into, by its port path: the data for `below` in a policy.

The bus reports each device separately; the reconciler links the devices of one round here, before deciding on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from xenplug.core.model import BusId, Device, Interface

HUB_CLASS_CODE = 0x09
"""The class code of hubs (usb.org, defined class codes)."""


def is_hub(classes: Iterable[Interface], interfaces: Sequence[Interface]) -> bool:
    """Whether this is a hub and nothing else: it has interfaces, and all of them and the device class are a hub's.

    `classes`: the known values of the device class; `interfaces`: those of ALL configurations and alternate settings.
    A hub always stays with dom0, whatever the policy says, and dom0's drivers bind to all its interfaces. An interface
    with another function must not get into dom0 this way.
    """
    return bool(interfaces) and all(triple.class_ == HUB_CLASS_CODE for triple in (*classes, *interfaces))


def says_hub(classes: Iterable[Interface], interfaces: Iterable[Interface]) -> bool:
    """Whether the device class or any interface is a hub's."""
    return any(triple.class_ == HUB_CLASS_CODE for triple in (*classes, *interfaces))


def above(device: Device, devices: Mapping[BusId, Device]) -> Device | None:
    """The nearest hub above the device, linked to its own hub; None below a root hub, or if the hub is not known."""
    port = device.port.rpartition(".")[0]
    while port:
        hub = devices.get(BusId(port))
        if hub:
            return linked(hub, devices)
        port = port.rpartition(".")[0]
    return None


def linked(device: Device, devices: Mapping[BusId, Device]) -> Device:
    """The device, linked to its hubs."""
    parent = above(device, devices)
    return replace(device, parent=parent) if parent else device


def linked_all(devices: Mapping[BusId, Device]) -> dict[BusId, Device]:
    """All devices of one round, each linked to its hubs."""
    return {port: linked(device, devices) for port, device in devices.items()}


def removable(device: Device) -> str:
    """Whether the device's socket is fixed, removable or unknown, as far as the source is trustworthy.

    For a root port, the firmware reports it. For the ports of a hub, the hub reports it if the firmware does not
    (hub.c: set_usb_port_removable). The hub's report counts only if the hub is fixed itself, so it cannot have been
    replaced.
    """
    believed = device.parent is None or removable(device.parent) == "fixed"
    return device.removable if device.removable != "fixed" or believed else "unknown"
