"""Which hub a device hangs on, by its port path: what `below` in a policy goes by.

The bus tells each device for itself; the reconciler links those of one look here, before they are decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from xenplug.core.model import BusId, Device


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
