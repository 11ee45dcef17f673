"""Converts the data of sysfs and udev about a device (RawDevice) to the Device that all other modules use.

adapters/sysfs, adapters/recording and the simulator make RawDevices. `describe` is the only code that interprets them,
so recorded and simulated devices are handled exactly like real ones. Total: a missing or malformed value is absent,
never an error. Attributes: Documentation/ABI/{stable,testing}/sysfs-bus-usb of the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType

from xenplug.core.model import BusId, Device, Interface, Speed, Tag, Use
from xenplug.core.usb import place
from xenplug.core.usb.configurations import DEVICE_SIZE, MAX_DESCRIPTORS_BYTES
from xenplug.core.usb.descriptors import Descriptors, parse
from xenplug.core.usb.hubs import is_hub, says_hub
from xenplug.core.usb.kinds import kinds, of_triple
from xenplug.core.usb.place import PORT
from xenplug.core.usb.sanitize import sanitize

MOST_TRIPLES = 256
"""Different interface triples kept per device; of the others, one for each further class and kind is kept. Real devices
have less than 32. Every rule on interfaces tests all of them, so their number is limited."""
UNREAD_INTERFACE = Interface(0, 0, 0)
"""Represents interfaces that could not be read: no class, so no list of harmless classes matches the device."""
_HEX4 = re.compile(rb"[0-9a-fA-F]{4}\Z")
_HEX2 = re.compile(rb"[0-9a-fA-F]{2}\Z")
_NUMBER = re.compile(rb"[0-9]{1,5}\Z")
_SPEEDS: Mapping[bytes, Speed] = {
    b"1.5": Speed.LOW,
    b"12": Speed.FULL,
    b"480": Speed.HIGH,
    b"5000": Speed.SUPER,
    b"10000": Speed.SUPER_PLUS,
    b"20000": Speed.SUPER_PLUS,
}


DATABASE_NAMES = ("ID_VENDOR_FROM_DATABASE", "ID_MODEL_FROM_DATABASE")
"""udev's properties from its hardware database."""


@dataclass(frozen=True, slots=True)
class RawInterface:
    """An interface directory: the driver bound to it, and its class triple in the kernel."""

    driver: str | None = None
    triple: Interface | None = None
    authorized: bool = True


@dataclass(frozen=True, slots=True)
class RawDevice:
    """The data of a USB device in sysfs. Only `devpath` and a few attributes are required."""

    devpath: str
    """Without the mount point: "/devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4.2"."""
    attrs: Mapping[str, bytes]
    """Contents of the directory's files."""
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """udev's properties of the device itself."""
    interfaces: Mapping[str, RawInterface] = field(default_factory=lambda: MappingProxyType({}))
    """The interfaces of the active configuration by directory name ("1-4.2:1.0"), in order."""
    peer: str | None = None
    """Device path of the USB 2 port that shares the socket with this device's root port, if the kernel knows it."""
    parents: tuple[place.Parent, ...] = ()
    """The devices above the root hub, nearest first; empty: derived from `devpath`."""
    in_use: frozenset[Use] = frozenset()


def describe(raw: RawDevice) -> Device | None:
    """The Device; None for a root hub, or if port, bus address or tag is unknown."""
    parts = place.split(raw.devpath)
    port = raw.devpath.rpartition("/")[2]
    found = parse(raw.attrs.get("descriptors", b""))
    bus, number, tag = _number(raw, "busnum"), _number(raw, "devnum"), _tag(raw, found)
    if not (parts and PORT.match(port) and bus and number and number <= 127 and tag):
        return None
    parents = raw.parents or place.guess_parents(parts[0])
    speed = _SPEEDS.get(_text(raw, "speed"))
    plain = place.plain_path(port, parents)
    triples, class_ = _bounded(_triples(raw, found)), _device_class(raw, found)
    classes = (class_, found.device_class)
    # Without descriptors the other configurations are unknown, so it may be more than a hub.
    hub = found.whole and is_hub(classes, triples)
    return Device(
        port=BusId(port),
        bus=bus,
        number=number,
        tag=tag,
        path=_path(speed, plain, place.peer_path(port, raw.peer, parents, parts[0])),
        plain_path=plain,
        controller=place.controller(parents),
        device_class=class_,
        interfaces=triples,
        kinds=kinds(tag, (*triples, *classes), raw.properties),
        speed=speed,
        serial=sanitize(raw.attrs.get("serial")),
        manufacturer=sanitize(raw.attrs.get("manufacturer")),
        product=sanitize(raw.attrs.get("product")),
        revision=_revision(raw, found),
        names=tuple(filter(None, (sanitize(raw.properties.get(name)) for name in DATABASE_NAMES))),
        removable=_removable(raw),
        isochronous=found.isochronous,
        hub=hub,
        partly_hub=not hub and says_hub(classes, triples),
        authorized=_text(raw, "authorized") != b"0",
        configured=_configured(raw),
        drivers=tuple(interface.driver for interface in raw.interfaces.values()),
        fingerprint=_fingerprint(raw.attrs.get("descriptors", b"")),
        shut=bool(raw.interfaces) and not any(interface.authorized for interface in raw.interfaces.values()),
        in_use=raw.in_use,
    )


def _fingerprint(descriptors: bytes) -> str | None:
    """The hash of device descriptor and all configurations: it does not change while the device is plugged in.

    None if the kernel may have truncated them: two devices could differ in the rest.
    """
    sound = DEVICE_SIZE <= len(descriptors) < MAX_DESCRIPTORS_BYTES
    return f"sha256:{sha256(descriptors).hexdigest()}" if sound else None


def _text(raw: RawDevice, name: str) -> bytes:
    return raw.attrs.get(name, b"").strip()


def _number(raw: RawDevice, name: str) -> int | None:
    text = _text(raw, name)
    return int(text) if _NUMBER.match(text) else None


def _hex(raw: RawDevice, name: str, descriptor: int | None) -> str | None:
    """Four hex digits from the attribute, else from the descriptor's field."""
    text = _text(raw, name)
    if _HEX4.match(text):
        return text.decode().lower()
    return None if descriptor is None else f"{descriptor:04x}"


def _revision(raw: RawDevice, found: Descriptors) -> str | None:
    """bcdDevice as lsusb writes it, "1.10"."""
    text = _hex(raw, "bcdDevice", found.revision)
    return f"{int(text[:2], 16):x}.{text[2:]}" if text else None


def _tag(raw: RawDevice, found: Descriptors) -> Tag | None:
    vendor = _hex(raw, "idVendor", found.vendor)
    product = _hex(raw, "idProduct", found.product)
    return Tag(f"{vendor}:{product}") if vendor and product else None


def _path(speed: Speed | None, plain: str | None, peer: str | None) -> str | None:
    """A device of unknown speed has no path: it might be on either side, and two sockets share the text."""
    if speed in (Speed.SUPER, Speed.SUPER_PLUS):
        return peer
    return plain if speed else None


def _triples(raw: RawDevice, found: Descriptors) -> tuple[Interface, ...]:
    """The descriptors' triples, those the kernel has that broken descriptors hid from us, and UNREAD for the rest.

    Without descriptors the kernel's own are those of one configuration and setting, so there may be others too.
    """
    seen = [interface.triple for interface in raw.interfaces.values() if interface.triple]
    return tuple(dict.fromkeys((*found.interfaces, *seen, *([] if found.whole else [UNREAD_INTERFACE]))))


def _bounded(triples: tuple[Interface, ...]) -> tuple[Interface, ...]:
    """At most about MOST_TRIPLES of the triples, and UNREAD for the rest; no class and no kind is lost."""
    kept, rest = triples[:MOST_TRIPLES], triples[MOST_TRIPLES:]
    if not rest:
        return triples
    by_class = {triple.class_: triple for triple in reversed(rest)}
    by_kind = {kind: triple for triple in reversed(rest) if (kind := of_triple(triple))}
    return tuple(dict.fromkeys((*kept, *by_class.values(), *by_kind.values(), UNREAD_INTERFACE)))


def _device_class(raw: RawDevice, found: Descriptors) -> Interface:
    parts = [_text(raw, name) for name in ("bDeviceClass", "bDeviceSubClass", "bDeviceProtocol")]
    if all(_HEX2.match(part) for part in parts):
        return Interface(*(int(part, 16) for part in parts))
    return found.device_class


def _removable(raw: RawDevice) -> str:
    text = _text(raw, "removable")
    return text.decode() if text in (b"fixed", b"removable") else "unknown"


def _configured(raw: RawDevice) -> bool:
    """A configuration is set and all its interfaces exist; before that the device would be judged by a part of it."""
    if not _text(raw, "bConfigurationValue"):
        return False
    expected = _number(raw, "bNumInterfaces")
    return len(raw.interfaces) >= (1 if expected is None else expected)
