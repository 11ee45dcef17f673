"""Finds out what dom0 itself uses a USB device for: a mounted stick, swap, part of a volume, the network connection.

Read again at every call, because no event reports that a stick is mounted. The cost is negligible for a device whose
drivers create neither disks nor network interfaces. core/planning/protection decides whether a keyboard is the last.

Sources: proc(5) mountinfo, swaps, net/route, net/ipv6_route; the kernel's ABI for sysfs `holders`, `lower_*` of network
interfaces, `loop/backing_file`, /sys/fs/btrfs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xenplug.adapters import kernel_files
from xenplug.adapters.console_keyboard import console_needs_usb
from xenplug.core.model import Use

HARMLESS = frozenset({None, "usbfs", "usbhid", "hub", "usbback", "snd-usb-audio", "uvcvideo", "btusb"})
"""Drivers that never create a disk or a network interface."""
_DEEPEST = 12
_MOST = 4 << 20


@dataclass(frozen=True, slots=True)
class KernelNodes:
    """What dom0's drivers created for a device: the folders of block devices, including partitions, and the names of
    network interfaces.
    """

    disks: tuple[Path, ...] = ()
    nets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Needs:
    """What dom0 uses now, on any device."""

    numbers: frozenset[str] = frozenset()
    """major:minor of block devices that are mounted, or used as swap or as a guest's disk."""
    names: frozenset[str] = frozenset()
    """Kernel names of block devices that are mounted or used as swap."""
    nets: frozenset[str] = frozenset()
    """Network interfaces with a default route, and those that carry them: ports of a bridge, of a bond, of Open
    vSwitch, the interface under a VLAN.
    """
    pools: frozenset[str] = frozenset()
    """Imported ZFS pools."""


class InUse:
    """`of(folder)` returns the uses of one device. Tests pass another `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._sys, self._proc = root / "sys", root / "proc"
        self._run, self._dev = root / "run/udev", root / "dev"

    def of(self, folder: str, needs: Callable[[], Needs] | None = None) -> frozenset[Use]:
        """Uses of the device at this sysfs folder. `needs` is called only for a device with disks or network
        interfaces; for several devices at once, pass a function that caches.
        """
        found = kernel_nodes(folder)
        if not (found.disks or found.nets):
            return frozenset()
        wanted = (needs or self.needs)()
        uses = set()
        if any(self._holds(disk, wanted) for disk in found.disks):
            uses.add(Use.STORAGE)
        if wanted.nets.intersection(found.nets):
            uses.add(Use.NETWORK)
        return frozenset(uses)

    def keyboard(self) -> bool:
        """Whether dom0 has a console that only USB keyboards serve."""
        return console_needs_usb(self._sys)

    def needs(self) -> Needs:
        """Read the tables of mounts, swap and routes."""
        mounts = [fields for text in self._mountinfos() for fields in _mounts(text)]
        sources = {source for _, source in mounts} | set(_first_words(kernel_files.read_text(self._proc / "swaps")))
        sources |= set(self._loops()) | set(self._device_models())
        routes = default_routes(
            kernel_files.read_text(self._proc / "net/route"), kernel_files.read_text(self._proc / "net/ipv6_route")
        )
        return Needs(
            numbers=frozenset(number for number, _ in mounts) | frozenset(self._guest_disks()),
            names=frozenset(self._name(source) for source in sources if source.startswith("/dev/")),
            nets=self._carriers(routes),
            pools=frozenset(kernel_files.names(self._proc / "spl/kstat/zfs")),
        )

    def _holds(self, disk: Path, needs: Needs) -> bool:
        number = kernel_files.read_text(disk / "dev").strip()
        return (
            number in needs.numbers
            or disk.name in needs.names
            or bool(kernel_files.names(disk / "holders"))  # dm, md, LVM, bcache
            or any(_exists(path) for path in _each(self._sys / "fs/btrfs", "", f"devices/{disk.name}"))
            or (bool(needs.pools) and self._zfs_pool(number) in needs.pools)
        )

    def _zfs_pool(self, number: str) -> str | None:
        lines = kernel_files.read_text(self._run / "data" / f"b{number}").splitlines()
        properties = dict(line[2:].partition("=")[::2] for line in lines if line.startswith("E:"))
        return properties.get("ID_FS_LABEL") if properties.get("ID_FS_TYPE") == "zfs_member" else None

    def _mountinfos(self) -> Iterator[str]:
        """The mounts of the agent's namespace and, once each, of the others; namespaces that may not be read are
        skipped.
        """
        seen = {None, kernel_files.link(f"{self._proc}/self/ns/mnt")}
        yield kernel_files.read_text(self._proc / "self/mountinfo")
        for name in kernel_files.names(self._proc):
            if name.isdigit() and (space := kernel_files.link(f"{self._proc}/{name}/ns/mnt")) not in seen:
                seen.add(space)
                yield kernel_files.read_text(self._proc / name / "mountinfo")

    def _guest_disks(self) -> Iterator[str]:
        """Block devices that blkback serves to guests: physical_device, "8:10" in hex."""
        for path in _each(self._sys / "bus/xen-backend/devices", "vbd-", "physical_device"):
            major, _, minor = kernel_files.read_text(path).strip().partition(":")
            try:
                yield f"{int(major, 16)}:{int(minor, 16)}"
            except ValueError:
                continue

    def _loops(self) -> Iterator[str]:
        """The block devices below loop devices: a whole stick shows no holder for them."""
        for path in _each(self._sys / "block", "loop", "loop/backing_file"):
            yield kernel_files.read_text(path).strip()

    def _device_models(self) -> Iterator[str]:
        """Block devices that a guest's device model holds open (a qdisk, the disk of an HVM guest)."""
        for process in filter(str.isdigit, kernel_files.names(self._proc)):
            if "qemu" in kernel_files.read_text(self._proc / process / "comm"):
                opened = f"{self._proc}/{process}/fd"
                yield from filter(
                    None, (kernel_files.link(f"{opened}/{number}") for number in kernel_files.names(opened))
                )

    def _carriers(self, routed: Iterator[str]) -> frozenset[str]:
        """An OVS port does not show which of the bridge's interfaces it serves, so each one counts if the interface of
        a route has no lower interface.
        """
        folder = self._sys / "class/net"
        ports = _each(folder, "", "upper_ovs-system")
        found: set[str] = set()
        todo = list(routed)
        while todo:
            name = todo.pop()
            if name in found:
                continue
            found.add(name)
            below = [
                entry.removeprefix("lower_")
                for entry in kernel_files.names(folder / name)
                if entry.startswith("lower_")
            ]
            hardware = _exists(folder / name / "device")
            todo += below if below or hardware else [p.parent.name for p in ports if _exists(p)]
        return frozenset(found)

    def _name(self, source: str) -> str:
        """The kernel name (sda1) of /dev/disk/by-uuid/… and /dev/sda1. A user who may mount in a private namespace
        chooses the source: one that leads out of /dev, perhaps to a file system that hangs, is not followed.
        """
        if ".." in source.split("/") or "\0" in source:
            return ""
        path = self._dev / source.removeprefix("/dev/")
        return os.path.basename(os.path.realpath(path))  # noqa: PTH119 - a hostile name must not raise


def kernel_nodes(folder: str) -> KernelNodes:
    """The block devices and network interfaces below a USB device's own interfaces, not those of devices behind it."""
    disks: list[Path] = []
    nets: list[str] = []
    port = os.path.basename(folder)  # noqa: PTH119 - one name of text
    for name in kernel_files.names(folder):
        if name.startswith(port + ":"):
            link = kernel_files.link(f"{folder}/{name}/driver")
            if (link and link.rpartition("/")[2]) not in HARMLESS:
                _walk(f"{folder}/{name}", disks, nets, _DEEPEST)
    return KernelNodes(tuple(disks), tuple(nets))


def _walk(folder: str, disks: list[Path], nets: list[str], depth: int) -> None:
    for entry in _folders(folder):
        if entry.name == "block":
            disks += [part for disk in _folders(entry.path) for part in _with_partitions(disk.path)]
        elif entry.name == "net":
            nets += kernel_files.names(entry.path)
        elif depth > 1:
            _walk(entry.path, disks, nets, depth - 1)


def _with_partitions(disk: str) -> Iterator[Path]:
    yield Path(disk)
    yield from (Path(entry.path) for entry in _folders(disk) if os.path.exists(f"{entry.path}/partition"))  # noqa: PTH110


def _folders(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _mounts(text: str) -> Iterator[tuple[str, str]]:
    """Number and source of each mount: `36 35 98:0 /root /mnt rw shared:1 - ext3 /dev/sda1 rw`."""
    for line in text.splitlines():
        fields, dash, rest = line.partition(" - ")
        words, after = fields.split(" "), rest.split(" ")
        if dash and len(words) > 2 and len(after) > 1:
            yield words[2], _unescape(after[1])


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _first_words(text: str) -> Iterator[str]:
    yield from (_unescape(line.split()[0]) for line in text.splitlines() if line.strip())


def default_routes(ipv4: str, ipv6: str) -> Iterator[str]:
    """Interfaces of default routes; the unreachable ones that the kernel keeps on `lo` do not count."""
    for fields in (line.split() for line in ipv4.splitlines()):
        if len(fields) >= 8 and fields[1] == fields[7] == "00000000":
            yield fields[0]
    for fields in (line.split() for line in ipv6.splitlines()):
        if len(fields) >= 10 and fields[0].strip("0") == "" and fields[1] == "00" and fields[9] != "lo":
            yield fields[9]


def _each(folder: Path, prefix: str, below: str) -> list[Path]:
    """The path `below` of each entry that begins with `prefix`, whether it exists or not. Path.glob raises if an entry
    vanishes, or a disk fails, in the middle of it.
    """
    return [folder / name / below for name in kernel_files.names(folder) if name.startswith(prefix)]


def _exists(path: Path) -> bool:
    """Whether the path exists. Path.exists raises if it is too long or the disk fails."""
    return os.path.exists(path)  # noqa: PTH110
