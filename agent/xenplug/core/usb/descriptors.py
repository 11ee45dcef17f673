"""USB descriptors: parses the bytes of sysfs' `descriptors` file, and encodes them for simulated devices.

The file contains the device descriptor and every configuration as the device sent them. It exists before a device is
authorised, so policies also apply to unauthorised devices. Formats: USB 2.0, 9.6.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from xenplug.core.model import Interface
from xenplug.core.usb.configurations import (
    CONFIGURATION,
    DEVICE,
    DEVICE_SIZE,
    ENDPOINT,
    INTERFACE,
    MAX_DESCRIPTORS_BYTES,
    as_announced,
    split,
)

CLASS_BY_INTERFACE = Interface(0, 0, 0)
"""The device class that means: see the interfaces."""
_ISOCHRONOUS = 1
_DEVICE = struct.Struct("<BBHBBBBHHHBBBB")
_CONFIGURATION = struct.Struct("<BBHBBBBB")
_INTERFACE = struct.Struct("<BBBBBBBBB")
_ENDPOINT = struct.Struct("<BBBBHB")


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The parsed descriptors. A field whose bytes are missing keeps its default."""

    device_class: Interface = CLASS_BY_INTERFACE
    vendor: int | None = None
    product: int | None = None
    revision: int | None = None
    """bcdDevice, 0x0340 is 3.40."""
    interfaces: tuple[Interface, ...] = ()
    """The different triples of ALL configurations and alternate settings, in order of appearance. A guest can select
    any of them, so a disk that is hidden in a second configuration or setting must not pass as a keyboard. There can be
    thousands: MOST limits the bytes."""
    isochronous: bool = False
    """An endpoint, in any configuration and setting, is isochronous."""
    whole: bool = False
    """All counts and lengths are correct (core/usb/configurations). False: they are truncated or malformed, and there
    may be interfaces that are not listed here."""


def parse(raw: bytes) -> Descriptors:
    """Parse `raw`; never raises. Parsing ends at the first descriptor with an invalid length.

    The device descriptor is the first 18 bytes, even if its length byte differs: the kernel reads it the same way. If
    the length byte differs, the interfaces of both interpretations are listed.
    """
    raw = raw[:MAX_DESCRIPTORS_BYTES]
    descriptors = list(split(raw, DEVICE_SIZE))
    whole = as_announced(raw, descriptors)
    if raw[:1] != bytes((DEVICE_SIZE,)):
        descriptors.extend(split(raw, 0))
    # Deduplicate by the bytes, because there can be thousands of interfaces.
    triples = dict.fromkeys(part[5:8] for part in descriptors if part[1] == INTERFACE and len(part) >= 8)
    isochronous = any(part[3] & 3 == _ISOCHRONOUS for part in descriptors if part[1] == ENDPOINT and len(part) >= 4)
    interfaces = tuple(Interface(*triple) for triple in triples)
    if len(raw) < DEVICE_SIZE or raw[1] != DEVICE:
        return Descriptors(interfaces=interfaces, isochronous=isochronous)
    _, _, _, class_, subclass, protocol, _, vendor, product, revision, *_ = _DEVICE.unpack(raw[:DEVICE_SIZE])
    triple = Interface(class_, subclass, protocol)
    return Descriptors(triple, vendor, product, revision, interfaces, isochronous, whole)


@dataclass(frozen=True, slots=True)
class Identity:
    """The numbers of a device descriptor, for `encode`."""

    vendor: int
    product: int
    revision: int = 0x0100
    usb: int = 0x0200
    """bcdUSB."""


def encode(
    identity: Identity,
    interfaces: Sequence[Interface],
    device_class: Interface = CLASS_BY_INTERFACE,
    isochronous: bool = False,
) -> bytes:
    """The descriptors of a device with one configuration and one endpoint per interface, in the format of sysfs.

    The endpoints are isochronous with `isochronous`, else interrupt endpoints. Raises ValueError for more than 32
    interfaces, the kernel's limit.
    """
    if len(interfaces) > 32:
        raise ValueError("more than 32 interfaces; the kernel supports at most 32")
    body = b"".join(_interface(number, triple, isochronous) for number, triple in enumerate(interfaces))
    total = _CONFIGURATION.size + len(body)
    configuration = _CONFIGURATION.pack(_CONFIGURATION.size, CONFIGURATION, total, len(interfaces), 1, 0, 0x80, 50)
    class_ = (device_class.class_, device_class.subclass, device_class.protocol)
    numbers = (identity.vendor, identity.product, identity.revision)
    return _DEVICE.pack(_DEVICE.size, DEVICE, identity.usb, *class_, 64, *numbers, 1, 2, 3, 1) + configuration + body


def _interface(number: int, triple: Interface, isochronous: bool) -> bytes:
    head = _INTERFACE.pack(_INTERFACE.size, INTERFACE, number, 0, 1, triple.class_, triple.subclass, triple.protocol, 0)
    kind = _ISOCHRONOUS if isochronous else 3
    return head + _ENDPOINT.pack(_ENDPOINT.size, ENDPOINT, 0x80 | (number % 15 + 1), kind, 8, 10)
