"""Where a device is plugged in: its place in the form of udev's ID_PATH, which does not depend on bus numbers.

Follows systemd's path_id builtin (src/udev/udev-builtin-path_id.c): from the device upwards, each parent of a known
subsystem adds its name in front, and consecutive parents of one subsystem count once, with the name of the lowest.
Unlike ID_PATH, `path` uses the USB 2 side of a socket for SuperSpeed devices too, so one socket has one name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from xenplug.core.model import Bdf

Parent = tuple[str, str | None]
"""Name and subsystem of a device above the root hub."""

PORT = re.compile(r"[1-9][0-9]{0,3}-[1-9][0-9]{0,2}(?:\.[1-9][0-9]{0,2}){0,6}\Z")
"""A device's port path as the kernel writes it: bus, root port, and the ports of the hubs between (1-4.2)."""
BDF = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
_SPLIT = re.compile(r"(?P<host>/devices/.*?)/(?P<hub>usb[0-9]+)(?:/(?P<rest>.*))?\Z", re.DOTALL)
_PEER = re.compile(r"usb[0-9]+-port([0-9]+)\Z")
_NAMED = frozenset({"pci", "platform", "acpi", "xen"})


def split(devpath: str) -> tuple[str, str, str] | None:
    """The host controller's device path, the root hub's name and the rest; None if it is not a USB device's path."""
    found = _SPLIT.match(devpath)
    return (found["host"], found["hub"], found["rest"] or "") if found else None


def guess_parents(host: str) -> tuple[Parent, ...]:
    """Parents of a bus, nearest first, guessed from the host controller's device path alone."""
    names = host.split("/")[2:]
    below = [name for name in names if name != "platform"]
    return tuple((name, _guess(name, names[0])) for name in reversed(below))


def _guess(name: str, top: str) -> str | None:
    if BDF.match(name):
        return "pci"
    if name.startswith(("pci", "virtio")) or top == "virtual":
        return None
    if name.startswith("vusb-"):
        return "xen"
    return "acpi" if top.startswith("LNXSYSTM") else "platform"


def prefix(parents: Iterable[Parent]) -> str | None:
    """The part of ID_PATH before `-usb-0:…`; None if no parent has a subsystem that is part of an ID_PATH."""
    runs = [(subsystem, next(run)[0]) for subsystem, run in groupby(parents, key=lambda parent: parent[1])]
    return "-".join(f"{subsystem}-{name}" for subsystem, name in reversed(runs) if subsystem in _NAMED) or None


def controller(parents: Sequence[Parent]) -> Bdf | None:
    """The PCI device that drives the bus: the lowest above the root hub."""
    return next((Bdf(name) for name, subsystem in parents if subsystem == "pci" and BDF.match(name)), None)


def plain_path(port: str, parents: Iterable[Parent]) -> str | None:
    """ID_PATH as udev writes it."""
    start = prefix(parents)
    return f"{start}-usb-0:{port.partition('-')[2]}" if start else None


def peer_path(port: str, peer: str | None, parents: Sequence[Parent], host: str) -> str | None:
    """The place of a SuperSpeed device on the USB 2 side of its socket.

    `peer` is the device path of the USB 2 port that shares the socket with the root port (sysfs: usbN-portM/peer).
    Ports of hubs below have the same numbers on both sides (USB 3.2, 10.3.1.1). None without a valid peer.
    """
    parts = split(peer) if peer else None
    number = _PEER.match(parts[2].rpartition("/")[2]) if parts else None
    if not (parts and number):
        return None
    start = prefix(parents if parts[0] == host else guess_parents(parts[0]))
    _, dot, below = port.partition("-")[2].partition(".")
    return f"{start}-usb-0:{number[1]}{dot}{below}" if start else None
