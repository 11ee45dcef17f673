"""Which processes of dom0 hold a node of a USB device open: the device itself (libusb), or what dom0's drivers made of
it, such as a serial port, a disk or an input device. For the doctor and `explain`.

Only links and small files of /proc and sysfs are read; nothing is opened that could hang. A process chooses its name,
and in a mount namespace of its own also what a link shows, so names are made printable and everything is bounded.

Sources: proc(5) fd, comm, cgroup; the kernel's `uevent` files, whose DEVNAME is the node's path below /dev; systemd's
and OpenRC's names of control groups (systemd.special(7); OpenRC sh/rc-cgroup.sh).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from xenplug.adapters import kernel_files
from xenplug.adapters.domains import MOST_OPEN
from xenplug.core.doctor.facts import Holder, Manager
from xenplug.core.model import BusId, Device
from xenplug.core.printable import printable

MOST_LINKS = 1 << 20
"""Maximum number of open files that are looked at, of all processes together: a second or two."""
MOST_FOLDERS = 4096
"""Maximum number of sysfs folders that are searched for the nodes of one device."""
MOST_TEXT = 80
"""Characters of a name that are shown."""
_NAME = re.compile(r"[A-Za-z0-9:_.@\\-]{1,200}", re.A)
"""What systemd accepts as a unit's name (systemd.unit(5)), and OpenRC as a service's."""
GUEST_MODEL = "-xen-domid"
"""An argument of every device model that libxl starts (libxl_dm.c): it serves a guest."""


@dataclass(frozen=True, slots=True)
class Held:
    """What was found."""

    holders: tuple[Holder, ...] = ()
    complete: bool = True
    """False: there were too many open files, and some were not looked at."""


class Holders:
    """`of(devices)` returns who holds them. Tests pass other folders."""

    def __init__(
        self, sys: Path = Path("/sys"), proc: Path = Path("/proc"), dev: str = "/dev", most: int = MOST_LINKS
    ) -> None:
        self._devices, self._proc, self._dev, self._most = sys / "bus/usb/devices", proc, dev, most

    def of(self, devices: Iterable[Device], models: Iterable[int] = ()) -> Held:
        """The processes that hold nodes of these devices, without the guests' device models and this process."""
        nodes = {node: device.port for device in devices for node in self._nodes(device)}
        others = {os.getpid(), *models}
        found: list[Holder] = []
        left = self._most
        for pid in sorted(int(name) for name in kernel_files.names(self._proc) if name.isdecimal()):
            if pid in others or not nodes:
                continue
            opened = kernel_files.links(self._proc / str(pid) / "fd", min(MOST_OPEN, left))
            left -= len(opened)
            if held := _by_device(nodes, opened):
                found += self._holders(pid, held)
            if left <= 0:
                return Held(tuple(found), complete=False)
        return Held(tuple(found))

    def _holders(self, pid: int, held: Mapping[BusId, list[str]]) -> Iterator[Holder]:
        words = kernel_files.read_text(self._proc / str(pid) / "cmdline").split("\0")
        if GUEST_MODEL in words:
            return
        command = _shown(kernel_files.read_text(self._proc / str(pid) / "comm").strip()) or "?"
        service, manager = service_of(kernel_files.read_text(self._proc / str(pid) / "cgroup"))
        for port, nodes in held.items():
            yield Holder(port, tuple(nodes), pid, command, service, manager)

    def _nodes(self, device: Device) -> Iterator[str]:
        """The paths of the device's own node and of the nodes below its interfaces, not of devices behind a hub."""
        yield f"{self._dev}/bus/usb/{device.bus:03}/{device.number:03}"
        folder = self._devices / device.port
        own = [name for name in kernel_files.names(folder) if name.startswith(f"{device.port}:")]
        for path in islice(_below([f"{folder}/{name}" for name in own]), MOST_FOLDERS):
            for line in kernel_files.read_text(f"{path}/uevent").splitlines():
                if line.startswith("DEVNAME=") and ".." not in line:
                    yield f"{self._dev}/{line.removeprefix('DEVNAME=')}"


def service_of(cgroup: str) -> tuple[str | None, Manager]:
    """The service a process belongs to, by its control groups: systemd's unit, or OpenRC's service."""
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # A user may create groups with any name below their own, and the name ends up in a command of the remedy.
        names = [name for name in path.split("/") if _NAME.fullmatch(name)]
        if names and (controllers == "name=openrc" or (number == "0" and names[0].startswith("openrc."))):
            return names[0].removeprefix("openrc."), Manager.OPENRC
        units = [name for name in names if name.endswith((".service", ".scope"))]
        if units and (controllers == "name=systemd" or number == "0"):
            of_user = units[0].startswith(("user@", "session-"))
            return units[-1], Manager.USER if of_user else Manager.SYSTEMD
    return None, Manager.NONE


def _by_device(nodes: Mapping[str, BusId], opened: Iterable[str]) -> dict[BusId, list[str]]:
    held: dict[BusId, list[str]] = {}
    for node in sorted(nodes.keys() & set(opened)):
        held.setdefault(nodes[node], []).append(node)
    return held


def _below(folders: list[str]) -> Iterator[str]:
    """These folders and all below them; symlinks are not followed, which lead out of the device."""
    while folders:
        folder = folders.pop()
        yield folder
        try:
            with os.scandir(folder) as entries:
                folders += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue


def _shown(text: str) -> str:
    return printable(text)[:MOST_TEXT]
