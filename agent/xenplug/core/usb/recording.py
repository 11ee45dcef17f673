"""The devices of a host as a umockdev recording, for `xenplug record`. adapters/recording reads them back.

The format is umockdev-record's: `P:` begins a device, `E:` is a property, `A:` an attribute as text, `H:` one in hex,
`L:` a link. Interfaces, the ports' `peer` and the devices above the root hub are recorded too, as far as xenplug uses
them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import replace

from xenplug.core.model import PciController
from xenplug.core.printable import printable
from xenplug.core.usb import place
from xenplug.core.usb.device import RawDevice, RawInterface

IDENTIFYING = ("serial", "ID_SERIAL", "ID_SERIAL_SHORT")
"""Attributes and properties that identify a single device, and thus its owner."""


def render(devices: Iterable[RawDevice], controllers: Iterable[PciController]) -> str:
    """The text of the recording."""
    drivers = {str(controller.bdf): controller.driver for controller in controllers}
    blocks: dict[str, list[str]] = {}
    for device in devices:
        for path, lines in _blocks(device, drivers):
            blocks.setdefault(path, lines)
    return "".join(f"P: {path}\n" + "".join(f"{line}\n" for line in lines) + "\n" for path, lines in blocks.items())


def without_serials(device: RawDevice) -> RawDevice:
    """The device without the data that distinguishes it from others with its tag."""
    attrs = {name: value for name, value in device.attrs.items() if name not in IDENTIFYING}
    properties = {name: value for name, value in device.properties.items() if name not in IDENTIFYING}
    return replace(device, attrs=attrs, properties=properties)


def _blocks(device: RawDevice, drivers: dict[str, str | None]) -> Iterator[tuple[str, list[str]]]:
    parts = place.split(device.devpath)
    if parts:
        yield from _above(parts[0], device.parents, drivers)
        if device.peer:
            hub, number = f"{parts[0]}/{parts[1]}", parts[2].partition("/")[0].partition("-")[2]
            at = f"{hub}/{parts[1].removeprefix('usb')}-0:1.0/{parts[1]}-port{number}"
            yield at, [f"L: peer={posixpath.relpath(device.peer, at)}"]
    properties = {"SUBSYSTEM": "usb", "DEVTYPE": "usb_device"} | dict(device.properties)
    lines = [f"E: {name}={_line(value)}" for name, value in sorted(properties.items())]
    lines += [_attribute(name, value) for name, value in sorted(device.attrs.items())]
    yield device.devpath, lines
    for name, interface in device.interfaces.items():
        yield f"{device.devpath}/{name}", list(_interface(interface))


def _above(
    host: str, parents: Iterable[place.Parent], drivers: dict[str, str | None]
) -> Iterator[tuple[str, list[str]]]:
    """The devices above the root hub; `parents` names those that have a subsystem."""
    known = dict(parents)
    while host.count("/") > 1:
        name = posixpath.basename(host)
        subsystem = known.get(name)
        if subsystem:
            driver = drivers.get(name)
            yield (
                host,
                [f"E: SUBSYSTEM={subsystem}", *([f"E: DRIVER={driver}", f"L: driver={driver}"] if driver else [])],
            )
        host = posixpath.dirname(host)


def _interface(interface: RawInterface) -> Iterator[str]:
    yield "E: DEVTYPE=usb_interface"
    yield "E: SUBSYSTEM=usb"
    if interface.triple:
        names = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
        for name, part in zip(names, str(interface.triple).split(":"), strict=True):
            yield f"A: {name}={part}\\n"
    if interface.driver:
        yield f"L: driver=../../bus/usb/drivers/{_line(interface.driver)}"


def _attribute(name: str, value: bytes) -> str:
    plain = value.isascii() and value.replace(b"\n", b"").decode("ascii").isprintable()
    if not plain or name == "descriptors":
        return f"H: {name}={value.hex().upper()}"
    return f"A: {name}=" + value.decode("ascii").replace("\\", "\\\\").replace("\n", "\\n")


def _line(value: str) -> str:
    return printable(value)
