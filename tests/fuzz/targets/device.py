"""The data of a device in sysfs and udev: descriptors, attributes and properties."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tests.recordings import MOUSE

from xenplug.adapters import recording
from xenplug.adapters.sysfs import triple_of, uevent_pairs
from xenplug.adapters.udev import device_number
from xenplug.core.reporting import explain, views
from xenplug.core.usb.device import RawDevice, describe

HOST = "/devices/pci0000:00/0000:00:14.0/usb1/1-4"
TOKENS = [b"\x09\x04", b"\x09\x02", b"\x12\x01", b"\x00", b"\xff", b"INTERFACE=", b"3/1/2", b"\x1b]0;", b"\xe2\x80\xae"]
BASE = {"busnum": b"1\n", "devnum": b"6\n", "speed": b"12\n", "bConfigurationValue": b"1\n", "bNumInterfaces": b" 1\n"}


def seeds() -> Iterable[bytes]:
    """Descriptors of real devices, and uevents."""
    for file in sorted(MOUSE.parent.glob("*.umockdev")):
        for raw in recording.read(file):
            yield raw.attrs.get("descriptors", b"")
            yield b"".join(raw.attrs.get(name, b"") for name in ("manufacturer", "product", "serial"))
    yield b"DEVTYPE=usb_interface\nINTERFACE=3/1/2\nDRIVER=usbhid\nID_MTP_DEVICE=1\nID_MODEL_FROM_DATABASE=Mouse\n"


def read(data: bytes) -> None:
    """A device with this text in every field; the result must be a Device with sanitized texts."""
    properties = uevent_pairs(data.splitlines())
    triple_of(properties)
    device_number(properties.get("DEVNUM"), properties.get("DEVNAME"))
    whole = RawDevice(HOST, BASE | {"descriptors": data}, properties)
    odd = RawDevice(HOST, dict.fromkeys((*BASE, "idVendor", "bDeviceClass", "authorized", "removable"), data))
    strings = dict.fromkeys(("manufacturer", "product", "serial"), data)
    for raw in (whole, odd, replace(whole, attrs=BASE | {"idVendor": b"046d", "idProduct": b"c016"} | strings)):
        device = describe(raw)
        if device is None:
            continue
        assert 0 < device.number < 128
        for text in (device.manufacturer, device.product, device.serial, explain.device_name(device), *device.names):
            assert text is None or (text.isprintable() and "\x1b" not in text), text
        views.device_facts(device)
