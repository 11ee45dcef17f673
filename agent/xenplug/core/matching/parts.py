"""Splits a device into parts: the device as it would be with the interfaces of only one class.

A rule that matches only some of the parts is about an additional function of the device, for example a disk in a
keyboard. The matcher uses this for devices that `protect` identifies only by their own claims.
"""

from __future__ import annotations

from dataclasses import replace

from xenplug.core.model import Device, Interface
from xenplug.core.usb.kinds import kinds

DATA = 0x0A
"""The data interface of a communication function, which is not a function itself (USB CDC 1.2, 3.4)."""
COMMUNICATION = (0x02, 0xE0, 0xEF)
"""Classes of the control interface that it belongs to: CDC, and RNDIS in its newer forms."""
NO_CLASS = Interface(0, 0, 0)
MOST_PARTS = 16
"""No real device has so many classes; all further classes form one more part."""


def parts(device: Device) -> tuple[Device, ...]:
    """One device for each class of interfaces, with the kinds of these. Kinds that come only from udev's properties
    of the whole device are kept in each part.
    """
    from_udev = device.kinds - kinds(device.tag, (*device.interfaces, device.device_class), {})
    return tuple(_part(device, group, from_udev) for group in _groups(device))


def _groups(device: Device) -> list[tuple[Interface, ...]]:
    classes = list(dict.fromkeys(interface.class_ for interface in device.interfaces))
    control = next((c for c in COMMUNICATION if c in classes), DATA)
    places = {c: min(n, MOST_PARTS) for n, c in enumerate(classes)}
    places[DATA] = places.get(control, 0)
    numbers = dict.fromkeys(places[c] for c in classes)
    return [tuple(i for i in device.interfaces if places[i.class_] == number) for number in numbers]


def _part(device: Device, interfaces: tuple[Interface, ...], from_udev: frozenset[str]) -> Device:
    own = device.device_class
    # 00 and ef:02 (interface associations) mean that each interface has its own class.
    general = own.class_ == 0 or (own.class_, own.subclass) == (0xEF, 0x02)
    class_ = own if general or any(i.class_ == own.class_ for i in interfaces) else NO_CLASS
    found = kinds(device.tag, (*interfaces, class_), {})
    return replace(device, interfaces=interfaces, device_class=class_, kinds=found | from_udev)
