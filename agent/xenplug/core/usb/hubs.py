"""Which device is a hub, and which hub a device hangs on, by its port path: what `below` in a policy goes by.

The bus reports each device for itself; the reconciler links those of one look here, before they are decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from xenplug.core.model import BusId, Device, Interface

HUB = 0x09
"""The class code of hubs (usb.org, defined class codes)."""


def is_hub(classes: Iterable[Interface], interfaces: Sequence[Interface]) -> bool:
    """Whether this describes a hub and nothing else: every device class and interface says so, one interface at least.

    `classes`: what is known of the device class; `interfaces`: of ALL configurations and alternate settings. A hub is
    left to dom0 whatever the policy says, and dom0's drivers open all its interfaces: one that is no hub's must not
    come in that way.
    """
    return bool(interfaces) and all(triple.class_ == HUB for triple in (*classes, *interfaces))


def says_hub(classes: Iterable[Interface], interfaces: Iterable[Interface]) -> bool:
    """Whether the device class or any interface says hub."""
    return any(triple.class_ == HUB for triple in (*classes, *interfaces))


def above(device: Device, devices: Mapping[BusId, Device]) -> Device | None:
    """The nearest hub above the device, with its own above it; None below a root hub, or where it is not seen."""
    port = device.port.rpartition(".")[0]
    while port:
        hub = devices.get(BusId(port))
        if hub:
            return linked(hub, devices)
        port = port.rpartition(".")[0]
    return None


def linked(device: Device, devices: Mapping[BusId, Device]) -> Device:
    """The device, knowing its hubs."""
    parent = above(device, devices)
    return replace(device, parent=parent) if parent else device


def linked_all(devices: Mapping[BusId, Device]) -> dict[BusId, Device]:
    """All devices of one look, each knowing its hubs."""
    return {port: linked(device, devices) for port, device in devices.items()}


def removable(device: Device) -> str:
    """Whether its socket is fixed, removable or unknown, as far as that can be believed.

    Of a root port the firmware says so. Of its own ports a hub does, where the firmware is silent (hub.c:
    set_usb_port_removable): that counts only if nobody can have put another hub there, for it is fixed itself.
    """
    believed = device.parent is None or removable(device.parent) == "fixed"
    return device.removable if device.removable != "fixed" or believed else "unknown"
