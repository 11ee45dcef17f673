"""A device taken apart: as it would be with its interfaces of one class alone.

A rule that fits only some of the parts is about what the device is besides, a disk in a keyboard say. The matcher asks
here for devices that `protect` knows by their own words only.
"""

from __future__ import annotations

from dataclasses import replace

from xenplug.core.model import Device, Interface
from xenplug.core.usb.kinds import kinds

DATA = 0x0A
"""The data interface of a communication function: nothing by itself (USB CDC 1.2, 3.4)."""
COMMUNICATION = (0x02, 0xE0, 0xEF)
"""Classes of the control interface it belongs to: CDC, and RNDIS in its newer forms."""
NO_CLASS = Interface(0, 0, 0)
MOST_PARTS = 16
"""No real device has so many classes; what a device claims beyond counts as one part more."""


def parts(device: Device) -> tuple[Device, ...]:
    """One device for each class of interfaces, with the kinds that these make. `kind`s that udev alone tells of the
    whole device are kept in each.
    """
    told = device.kinds - kinds(device.tag, (*device.interfaces, device.device_class), {})
    return tuple(_part(device, group, told) for group in _groups(device))


def _groups(device: Device) -> list[tuple[Interface, ...]]:
    classes = list(dict.fromkeys(interface.class_ for interface in device.interfaces))
    control = next((c for c in COMMUNICATION if c in classes), DATA)
    places = {c: min(n, MOST_PARTS) for n, c in enumerate(classes)}
    places[DATA] = places.get(control, 0)
    numbers = dict.fromkeys(places[c] for c in classes)
    return [tuple(i for i in device.interfaces if places[i.class_] == number) for number in numbers]


def _part(device: Device, interfaces: tuple[Interface, ...], told: frozenset[str]) -> Device:
    own = device.device_class
    # 00 and ef:02 (interface associations) say that each interface speaks for itself.
    general = own.class_ == 0 or (own.class_, own.subclass) == (0xEF, 0x02)
    class_ = own if general or any(i.class_ == own.class_ for i in interfaces) else NO_CLASS
    found = kinds(device.tag, (*interfaces, class_), {})
    return replace(device, interfaces=interfaces, device_class=class_, kinds=found | told)
