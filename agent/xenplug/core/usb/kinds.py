"""The kinds of a device (`kind` in a policy), derived from class triples, well-known chips and udev's properties.

Only facts that do not change while a device is plugged in are used. A kind derived from a driver or an input node would
change when the device is attached to a guest, and the rule that attached it would no longer match. Class codes:
usb.org's defined class codes; vendor triples: Linux's xpad, rndis_host, ftdi_sio, cp210x, ch341, pl2303.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xenplug.core.model import Interface, Tag

VENDOR = 0xFF

KIND_BY_CLASS: Mapping[int, str] = {
    0x01: "audio",
    0x07: "printer",
    0x08: "storage",
    0x09: "hub",
    0x0B: "smartcard",
    0x0E: "video",
    0x10: "video",
}
KIND_BY_SUBCLASS: Mapping[tuple[int, int], str] = {
    (0x02, 0x02): "serial",  # CDC ACM
    (0x02, 0x06): "net",  # CDC ECM
    (0x02, 0x0C): "net",  # CDC EEM
    (0x02, 0x0D): "net",  # CDC NCM
    (0x02, 0x0E): "net",  # CDC MBIM
}
KIND_BY_TRIPLE: Mapping[Interface, str] = {
    Interface(0x03, 0x01, 0x01): "keyboard",
    Interface(0x03, 0x01, 0x02): "mouse",
    Interface(0x02, 0x02, 0xFF): "net",  # RNDIS, its oldest form
    Interface(0xE0, 0x01, 0x03): "net",  # RNDIS
    Interface(0xEF, 0x04, 0x01): "net",  # RNDIS of tethering phones
    Interface(0xE0, 0x01, 0x01): "bluetooth",
    Interface(0x06, 0x01, 0x01): "phone",  # PTP
    Interface(VENDOR, 0x42, 0x01): "phone",  # Android debug bridge
    Interface(VENDOR, 0x5D, 0x01): "gamepad",  # Xbox 360 controller
    Interface(VENDOR, 0x5D, 0x81): "gamepad",  # Xbox 360 wireless receiver
    Interface(VENDOR, 0x47, 0xD0): "gamepad",  # Xbox One controller
}
SERIAL_CHIPS: Mapping[str, frozenset[str] | None] = {
    "0403": None,  # FTDI
    "1a86": None,  # CH340, CH341, CH910x
    "10c4": frozenset({"ea60", "ea61", "ea63", "ea70", "ea71", "ea7a", "ea7b"}),  # CP210x
    "067b": frozenset({"2303", "2304", "23a3", "23b3", "23c3", "23d3", "23e3", "23f3"}),  # PL2303
}
"""Serial chips with a vendor class: products by vendor; None means all products."""

HID_GAMEPADS: Mapping[str, frozenset[str] | None] = {
    "2dc8": None,  # 8BitDo
    "0f0d": None,  # Hori
    "044f": None,  # Thrustmaster
    "054c": frozenset({"0268", "05c4", "09cc", "0ba0", "0ce6", "0df2"}),  # DualShock 3 and 4, DualSense
    "057e": frozenset({"2006", "2007", "2009", "200e", "2017", "2019", "0337"}),  # Nintendo
    "28de": frozenset({"1102", "1142", "1205"}),  # Valve
    "18d1": frozenset({"9400"}),  # Stadia
    "046d": frozenset({"c215", "c216", "c218", "c219", "c24f", "c260", "c262", "c266", "c294", "c298", "c299", "c29b"}),
}
"""Plain HID game controllers, which have the class triple of other HID devices: products by vendor."""

KIND_BY_PROPERTY: Mapping[str, str] = {
    "ID_INPUT_JOYSTICK": "gamepad",
    "ID_MTP_DEVICE": "phone",
    "ID_GPHOTO2": "phone",
    "ID_SMARTCARD_READER": "smartcard",
    "ID_SECURITY_TOKEN": "smartcard",
}
"""Properties of the USB device itself in udev's database."""


def kinds(tag: Tag, triples: Iterable[Interface], properties: Mapping[str, str]) -> frozenset[str]:
    """All kinds of the device; `triples` are those of its interfaces and its device descriptor."""
    triples = set(triples)
    found = {kind for triple in triples if (kind := of_triple(triple))}
    found |= {kind for name, kind in KIND_BY_PROPERTY.items() if properties.get(name) == "1"}
    classes = {triple.class_ for triple in triples}
    if VENDOR in classes and _listed(SERIAL_CHIPS, tag):
        found.add("serial")
    if 0x03 in classes and _listed(HID_GAMEPADS, tag):
        found.add("gamepad")
    return frozenset(found)


def of_triple(triple: Interface) -> str | None:
    """The kind of this class triple; None for most vendor classes and for HID without boot protocol."""
    by_subclass = KIND_BY_SUBCLASS.get((triple.class_, triple.subclass))
    return KIND_BY_TRIPLE.get(triple) or by_subclass or KIND_BY_CLASS.get(triple.class_)


def _listed(table: Mapping[str, frozenset[str] | None], tag: Tag) -> bool:
    vendor, _, product = tag.partition(":")
    products = table.get(vendor, frozenset())
    return products is None or product in products
