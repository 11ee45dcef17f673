"""Reads hosts from umockdev recordings (`.umockdev`), so that `--host FILE` needs neither udev nor the device.

The format is umockdev-record's (docs of umockdev, src/umockdev-record.vala): blocks that start with `P: DEVPATH`, then
N: node, S: symlink, E: udev property, A: text attribute with C escapes, H: attribute in hex, L: link. RecordedBus is a
UsbBus of the recorded devices, on which nothing happens.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from xenplug.adapters.files import Unfit, read_bounded
from xenplug.core.model import Bdf, BusId, Device, Interface, PciController
from xenplug.core.protocols import Guard, UsbEvent
from xenplug.core.usb import place
from xenplug.core.usb.device import RawDevice, RawInterface, describe
from xenplug.core.usb.place import PORT

MAX_RECORDING_BYTES = 16 << 20
"""Bytes; `umockdev-record --all` of a large machine is about 2 MB."""
_LINE = re.compile(r"([A-Z]): (.*)\Z", re.DOTALL)
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_LETTERS = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
_IGNORED = "NSIVQDWTUGMR"
"""Nodes and symlinks, and the lines that newer `udevadm info` adds: not needed here."""


@dataclass(slots=True)
class Block:
    """One recorded device of any subsystem."""

    path: str
    properties: dict[str, str] = field(default_factory=dict)
    attrs: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> list[RawDevice]:
    """The recorded USB devices. OSError if it cannot be read; ValueError with FILE:LINE, fact and remedy."""
    return recorded_devices(_load(path))


def controllers(path: Path) -> tuple[PciController, ...]:
    """The PCI host controllers of the recorded buses, with the driver each had."""
    return recorded_controllers(_load(path))


def _load(path: Path) -> dict[str, Block]:
    try:
        raw = read_bounded(path, MAX_RECORDING_BYTES + 1)
    except Unfit as error:
        raise ValueError(str(error)) from None
    if len(raw) > MAX_RECORDING_BYTES:
        raise ValueError(f"{path}: larger than {MAX_RECORDING_BYTES >> 20} MiB; record only the devices wanted")
    return parse(raw.decode("utf-8", "surrogateescape"), str(path))


def parse(text: str, name: str) -> dict[str, Block]:
    """Blocks by device path; ValueError as `read`."""
    blocks: dict[str, Block] = {}
    block: Block | None = None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line or line.startswith("#"):
            block = block if line else None
            continue
        try:
            block = _line(block, line)
        except ValueError as problem:
            raise ValueError(f"{name}:{number}: {problem}") from None
        blocks[block.path] = block
    if not blocks:
        raise ValueError(f"{name}:1: contains no device; write one with `umockdev-record /dev/bus/usb/BBB/DDD > FILE`")
    return blocks


def _line(block: Block | None, line: str) -> Block:
    found = _LINE.match(line)
    if not found:
        raise ValueError("not a line of a umockdev recording; record again with umockdev-record, or delete the line")
    letter, value = found[1], found[2]
    if letter == "P":
        return Block(_place(value))
    if block is None:
        raise ValueError(f"{letter}: before any P:; each device starts with a line `P: /devices/…`")
    if letter in "EAHL":
        _fill(block, letter, value)
    elif letter not in _IGNORED:
        raise ValueError(f"{letter}: is unknown; lines start with P, N, S, E, A, H or L")
    return block


def _place(path: str) -> str:
    if not path.startswith("/devices/"):
        raise ValueError(f"{path[:80]!r} is not a device path; these start with /devices/")
    return path


def _fill(block: Block, letter: str, value: str) -> None:
    name, equals, content = value.partition("=")
    if not (equals and name):
        raise ValueError(f"{letter}: without NAME=VALUE; write it like `{letter}: name=value`")
    if letter == "E":
        block.properties[name] = content
    elif letter == "L":
        block.links[name] = content
    else:
        block.attrs[name] = _hex(content) if letter == "H" else _unescape(content)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError("H: the value is not hexadecimal; write an even number of hex digits") from None


def _unescape(text: str) -> bytes:
    return _ESCAPE.sub(_unescaped, text.encode("utf-8", "surrogateescape"))


def _unescaped(found: re.Match[bytes]) -> bytes:
    code = found[1]
    return bytes([int(code, 8) & 0xFF]) if code[0] in b"01234567" else _LETTERS.get(code, code)


def recorded_devices(blocks: Mapping[str, Block]) -> list[RawDevice]:
    """The USB devices among the blocks of `parse`, root hubs left out."""
    devices = [block for block in blocks.values() if PORT.match(posixpath.basename(block.path))]
    return [_device(block, blocks) for block in devices if "idVendor" in block.attrs or "descriptors" in block.attrs]


def _device(block: Block, blocks: Mapping[str, Block]) -> RawDevice:
    return RawDevice(
        devpath=block.path,
        attrs=block.attrs,
        properties=block.properties,
        interfaces=_interfaces(block, blocks),
        peer=_peer(block, blocks),
        parents=_parents(block.path, blocks),
    )


def _interfaces(block: Block, blocks: Mapping[str, Block]) -> Mapping[str, RawInterface]:
    port = posixpath.basename(block.path)
    start = f"{block.path}/{port}:"
    found = {posixpath.basename(path): each for path, each in blocks.items() if path.startswith(start)}
    own = {name: each for name, each in found.items() if name.startswith(port + ":") and name.count(":") == 1}
    return {name: _interface(each) for name, each in sorted(own.items())} or dict(_unrecorded(block, port))


def _unrecorded(block: Block, port: str) -> Iterator[tuple[str, RawInterface]]:
    """umockdev-record of one device omits its interfaces: then they come from its configuration, without drivers."""
    value, count = (block.attrs.get(name, b"").strip() for name in ("bConfigurationValue", "bNumInterfaces"))
    if value.isdigit() and count.isdigit():
        yield from ((f"{port}:{int(value)}.{number}", RawInterface()) for number in range(min(int(count), 32)))


def _interface(block: Block) -> RawInterface:
    names = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
    parts = [block.attrs.get(name, b"").strip() for name in names]
    try:
        triple = Interface(*(int(part, 16) & 0xFF for part in parts))
    except ValueError:
        triple = None
    return RawInterface(_driver(block), triple, block.attrs.get("authorized", b"1").strip() != b"0")


def _driver(block: Block) -> str | None:
    link = posixpath.basename(block.links.get("driver", ""))
    return link or block.properties.get("DRIVER") or None


def _peer(block: Block, blocks: Mapping[str, Block]) -> str | None:
    parts = place.split(block.path)
    if parts is None:
        return None
    number = parts[2].partition("/")[0].partition("-")[2]
    hub = f"{parts[0]}/{parts[1]}"
    at = f"{hub}/{parts[1].removeprefix('usb')}-0:1.0/{parts[1]}-port{number}"
    recorded = blocks.get(at)
    target = recorded.links.get("peer") if recorded else None
    return posixpath.normpath(posixpath.join(at, target)) if target else None


def _parents(path: str, blocks: Mapping[str, Block]) -> tuple[place.Parent, ...]:
    """Recorded ancestors of the bus; () if none was recorded; then core/usb/place uses the path."""
    parts = place.split(path)
    at = parts[0] if parts else ""
    found: list[place.Parent] = []
    while at.count("/") > 1:
        recorded = blocks.get(at)
        if recorded and recorded.properties.get("SUBSYSTEM"):
            found.append((posixpath.basename(at), recorded.properties["SUBSYSTEM"]))
        at = posixpath.dirname(at)
    return tuple(found)


def recorded_controllers(blocks: Mapping[str, Block]) -> tuple[PciController, ...]:
    """The PCI host controllers of the blocks of `parse`, each with its driver if that was recorded."""
    found: dict[Bdf, str | None] = {}
    for path in blocks:
        parts = place.split(path)
        bdf = place.controller(_parents(path, blocks) or place.guess_parents(parts[0])) if parts else None
        if bdf and parts:
            recorded = blocks.get(parts[0])
            found[bdf] = _driver(recorded) if recorded else None
    return tuple(PciController(bdf, found[bdf]) for bdf in sorted(found))


class RecordedBus:
    """UsbBus (core/protocols) of a recording: nothing ever happens on it, and every write is refused."""

    def __init__(self, path: Path) -> None:
        """OSError and ValueError as `read`."""
        blocks = _load(path)
        found = (describe(raw) for raw in recorded_devices(blocks))
        self._devices = MappingProxyType({device.port: device for device in found if device})
        self._controllers = recorded_controllers(blocks)

    async def start(self, fired: Callable[[UsbEvent], None]) -> None:
        """Does nothing: there will be no events."""

    async def stop(self) -> None:
        """Does nothing."""

    def devices(self) -> Mapping[BusId, Device]:
        """The recorded devices."""
        return self._devices

    def controllers(self) -> tuple[PciController, ...]:
        """The host controllers of the recorded devices."""
        return self._controllers

    def usbback(self) -> bool:
        """False: a recording does not show drivers without devices."""
        return False

    async def rescan(self) -> None:
        """Does nothing: a recording does not change."""

    def stuck(self, port: BusId) -> bool:
        """Never."""
        return False

    async def authorize(self, device: Device, allowed: bool) -> bool:
        """Always refused."""
        return False

    async def rebind(self, bdf: Bdf, driver: str) -> None:
        """Does nothing."""

    async def interfaces(self, device: Device, allowed: bool) -> bool:
        """Always refused."""
        return False

    def guard(self, guard: Guard) -> None:
        """Does nothing: no device will be plugged in."""

    async def probe(self, device: Device) -> None:
        """Does nothing."""
