"""A raw device becomes a Device; a missing or malformed value is absent."""

from dataclasses import astuple, replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplug.core.model import Bdf, BusId, Device, Interface, Speed, Tag, Use
from xenplug.core.usb.descriptors import Identity, encode
from xenplug.core.usb.device import MOST_TRIPLES, UNREAD_INTERFACE, RawDevice, RawInterface, describe

PCI = "/devices/pci0000:00/0000:00:14.0"
MOUSE_IF = Interface(3, 1, 2)
MOUSE = RawDevice(
    devpath=f"{PCI}/usb1/1-4/1-4.2",
    attrs={
        "busnum": b"1\n",
        "devnum": b"6\n",
        "idVendor": b"046D\n",
        "idProduct": b"c016\n",
        "bcdDevice": b"0340\n",
        "bDeviceClass": b"00\n",
        "bDeviceSubClass": b"00\n",
        "bDeviceProtocol": b"00\n",
        "speed": b"1.5\n",
        "authorized": b"1\n",
        "removable": b"removable\n",
        "manufacturer": b"Logitech\n",
        "product": b"Optical\x1b[31m Mouse\n",
        "descriptors": encode(Identity(0x046D, 0xC016, 0x0340), [MOUSE_IF]),
        "bConfigurationValue": b"1\n",
        "bNumInterfaces": b" 1\n",
    },
    interfaces={"1-4.2:1.0": RawInterface("usbhid", MOUSE_IF)},
)


def with_attrs(raw: RawDevice = MOUSE, **changes: bytes | None) -> RawDevice:
    attrs = {**raw.attrs, **{name: value for name, value in changes.items() if value is not None}}
    return replace(raw, attrs={name: text for name, text in attrs.items() if changes.get(name, b"") is not None})


def described(raw: RawDevice) -> Device:
    device = describe(raw)
    assert device is not None
    return device


def test_a_mouse() -> None:
    assert describe(MOUSE) == Device(
        port=BusId("1-4.2"),
        bus=1,
        number=6,
        tag=Tag("046d:c016"),
        path="pci-0000:00:14.0-usb-0:4.2",
        plain_path="pci-0000:00:14.0-usb-0:4.2",
        controller=Bdf("0000:00:14.0"),
        interfaces=(MOUSE_IF,),
        fingerprint="sha256:" + sha256(MOUSE.attrs["descriptors"]).hexdigest(),
        kinds=frozenset({"mouse"}),
        speed=Speed.LOW,
        manufacturer="Logitech",
        product="Optical Mouse",
        revision="3.40",
        removable="removable",
        drivers=("usbhid",),
    )


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(replace(MOUSE, devpath=f"{PCI}/usb1"), id="root hub"),
        pytest.param(replace(MOUSE, devpath=f"{PCI}/usb1/1-4/1-4:1.0"), id="interface"),
        pytest.param(replace(MOUSE, devpath="/devices/pci0000:00/1-4"), id="no bus"),
        pytest.param(with_attrs(busnum=None), id="no bus number"),
        pytest.param(with_attrs(devnum=b"x"), id="device number no number"),
        pytest.param(with_attrs(devnum=b"0"), id="device number 0"),
        pytest.param(with_attrs(devnum=b"128"), id="device number too big"),
        pytest.param(with_attrs(idVendor=None, descriptors=None), id="no vendor anywhere"),
    ],
)
def test_not_a_device(raw: RawDevice) -> None:
    assert describe(raw) is None


@pytest.mark.parametrize(
    ("raw", "name", "expected"),
    [
        pytest.param(with_attrs(idVendor=None), "tag", "046d:c016", id="tag from descriptors"),
        pytest.param(with_attrs(bcdDevice=b"zz"), "revision", "3.40", id="revision from descriptors"),
        pytest.param(with_attrs(bcdDevice=None, descriptors=None), "revision", None, id="no revision"),
        pytest.param(
            with_attrs(descriptors=None), "interfaces", (MOUSE_IF, UNREAD_INTERFACE), id="only the kernel's interfaces"
        ),
        pytest.param(
            replace(with_attrs(descriptors=None), interfaces={}), "interfaces", (UNREAD_INTERFACE,), id="none seen"
        ),
        pytest.param(with_attrs(bDeviceClass=None), "device_class", Interface(0, 0, 0), id="class from descriptors"),
        pytest.param(with_attrs(removable=b"maybe"), "removable", "unknown", id="odd removable"),
        pytest.param(with_attrs(speed=b"unknown"), "speed", None, id="no speed"),
        pytest.param(with_attrs(speed=b"unknown"), "path", None, id="no speed: either side of the socket"),
        pytest.param(with_attrs(serial=b"A\x00\xff"), "serial", "A\ufffd", id="dirty serial"),
        pytest.param(
            replace(MOUSE, properties={"ID_MODEL_FROM_DATABASE": "a\x1b[31mb\u202e\n"}),
            "names",
            ("ab",),
            id="udev's words, in a recording of somebody's",
        ),
        pytest.param(with_attrs(authorized=b"0\n"), "authorized", False, id="unauthorised"),
        pytest.param(with_attrs(authorized=None), "authorized", True, id="authorised is the default"),
        pytest.param(replace(MOUSE, in_use=frozenset({Use.STORAGE})), "in_use", frozenset({Use.STORAGE}), id="in use"),
    ],
)
def test_field(raw: RawDevice, name: str, expected: object) -> None:
    assert getattr(described(raw), name) == expected


@pytest.mark.parametrize(
    ("text", "speed"),
    [("1.5", "low"), ("12", "full"), ("480", "high"), ("5000", "super"), ("10000", "super+"), ("20000", "super+")],
)
def test_speed(text: str, speed: str) -> None:
    assert described(with_attrs(speed=text.encode() + b"\n")).speed == speed


@pytest.mark.parametrize(
    ("peer", "path"),
    [
        pytest.param(f"{PCI}/usb1/1-0:1.0/usb1-port5", "pci-0000:00:14.0-usb-0:5.3", id="peer"),
        pytest.param(None, None, id="no peer"),
    ],
)
def test_a_superspeed_device_has_the_path_of_its_usb2_side(peer: str | None, path: str | None) -> None:
    device = described(replace(with_attrs(speed=b"5000\n"), devpath=f"{PCI}/usb2/2-1/2-1.3", peer=peer))
    assert (device.path, device.plain_path) == (path, "pci-0000:00:14.0-usb-0:1.3")


def test_known_parents_override_the_path() -> None:
    device = described(replace(MOUSE, parents=(("odd.0", "platform"), ("0000:00:14.0", "pci"))))
    assert device.plain_path == "pci-0000:00:14.0-platform-odd.0-usb-0:4.2"


@pytest.mark.parametrize(
    ("value", "count", "interfaces", "expected"),
    [
        pytest.param(b"1\n", b" 1\n", 1, True, id="complete"),
        pytest.param(b"\n", b"\n", 0, False, id="no configuration set (unauthorised)"),
        pytest.param(None, None, 0, False, id="nothing known"),
        pytest.param(b"1\n", b" 2\n", 1, False, id="an interface is still missing"),
        pytest.param(b"1\n", b"\n", 1, True, id="no number"),
        pytest.param(b"1\n", None, 0, False, id="no number, no interfaces"),
        pytest.param(b"1\n", b" 0\n", 0, True, id="no interfaces at all"),
    ],
)
def test_configured(value: bytes | None, count: bytes | None, interfaces: int, expected: bool) -> None:
    there = {f"1-4.2:1.{number}": RawInterface() for number in range(interfaces)}
    raw = replace(with_attrs(bConfigurationValue=value, bNumInterfaces=count), interfaces=there)
    assert described(raw).configured is expected


def test_unreadable_descriptors_are_an_interface_without_class() -> None:
    raw = with_attrs(descriptors=MOUSE.attrs["descriptors"] + b"\x00\x00")
    assert described(raw).interfaces == (MOUSE_IF, Interface(0, 0, 0))


def test_interfaces_of_the_kernel_are_added_to_broken_descriptors() -> None:
    storage = RawInterface("usb-storage", Interface(8, 6, 0x50))
    raw = replace(MOUSE, interfaces={**MOUSE.interfaces, "1-4.2:1.1": storage})
    assert described(raw).interfaces == (MOUSE_IF, Interface(8, 6, 0x50))
    assert described(raw).drivers == ("usbhid", "usb-storage")


HUB_IF, DISK_IF = Interface(9, 0, 0), Interface(8, 6, 0x50)
HUB_CLASS = Interface(9, 0, 1)


def hub(interfaces: list[Interface], class_: Interface = HUB_CLASS, **changes: bytes | None) -> RawDevice:
    """A device with these descriptors, before its interfaces exist."""
    attrs = {"bDeviceClass": b"%02x" % class_.class_, "descriptors": encode(Identity(5, 6), interfaces, class_)}
    return replace(with_attrs(**{**attrs, **changes}), interfaces={})


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(hub([HUB_IF]), id="one interface"),
        pytest.param(hub([HUB_IF, Interface(9, 0, 1), Interface(9, 0, 2)]), id="several of them"),
        pytest.param(replace(hub([HUB_IF]), interfaces={"1-4.2:1.0": RawInterface("hub", HUB_IF)}), id="set up"),
        pytest.param(hub([HUB_IF], bDeviceClass=None), id="class from descriptors"),
    ],
)
def test_a_hub_has_no_other_function(raw: RawDevice) -> None:
    device = described(raw)
    assert (device.hub, device.partly_hub, "hub" in device.kinds) == (True, False, True)


SETTING = bytes((9, 4, 0, 1, 0, 8, 6, 0x50, 0))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(hub([Interface(3, 1, 1), DISK_IF, HUB_IF], Interface(0, 0, 0)), id="S1: keyboard, disk and hub"),
        pytest.param(hub([DISK_IF, HUB_IF]), id="an additional disk, class hub"),
        pytest.param(hub([DISK_IF]), id="class hub, no interface of one"),
        pytest.param(hub([HUB_IF], Interface(0, 0, 0)), id="class left to the interfaces"),
        pytest.param(hub([HUB_IF], Interface(0xEF, 2, 1)), id="another class"),
        pytest.param(hub([]), id="no interface at all"),
        pytest.param(hub([HUB_IF], bDeviceClass=b"00\n"), id="attribute and descriptor differ"),
        pytest.param(hub([HUB_IF], Interface(0, 0, 0), bDeviceClass=b"09\n"), id="and the other way"),
        pytest.param(hub([HUB_IF], descriptors=None), id="no descriptors"),
        pytest.param(hub([HUB_IF], descriptors=b""), id="empty descriptors"),
        pytest.param(hub([HUB_IF], descriptors=encode(Identity(5, 6), [HUB_IF], HUB_CLASS)[:-1]), id="cut short"),
        pytest.param(
            hub([HUB_IF], descriptors=encode(Identity(5, 6), [HUB_IF], HUB_CLASS) + SETTING), id="another setting"
        ),
        pytest.param(
            replace(hub([HUB_IF]), interfaces={"1-4.2:1.0": RawInterface(None, DISK_IF)}), id="the kernel has a disk"
        ),
        pytest.param(with_attrs(bDeviceClass=b"09\n"), id="a mouse, class hub by its attribute"),
        pytest.param(
            replace(MOUSE, interfaces={"1-4.2:1.0": RawInterface("hub", HUB_IF)}), id="only the kernel says hub"
        ),
    ],
)
def test_a_hub_with_other_functions_is_partly_hub(raw: RawDevice) -> None:
    device = described(raw)
    assert (device.hub, device.partly_hub, "hub" in device.kinds) == (False, True, True)


def test_a_mouse_is_not_a_hub() -> None:
    device = described(MOUSE)
    assert (device.hub, device.partly_hub, "hub" in device.kinds) == (False, False, False)


NAMES = st.sampled_from([*MOUSE.attrs, "serial"])


@settings(deadline=None)
@given(
    st.dictionaries(NAMES, st.binary(max_size=80)),
    st.text(max_size=60) | st.just(MOUSE.devpath),
    st.none() | st.text(max_size=60),
    st.dictionaries(st.text(), st.text()),
)
def test_never_raises(attrs: dict[str, bytes], devpath: str, peer: str | None, properties: dict[str, str]) -> None:
    describe(RawDevice(devpath, attrs, properties, peer=peer))
    describe(RawDevice(MOUSE.devpath, {**MOUSE.attrs, **attrs}, properties, peer=peer))


def test_the_fingerprint_is_of_all_the_descriptors() -> None:
    raw_descriptors = MOUSE.attrs["descriptors"]
    assert described(MOUSE).fingerprint == "sha256:" + sha256(raw_descriptors).hexdigest()
    assert described(with_attrs(descriptors=raw_descriptors + b"\x09\x04")).fingerprint != described(MOUSE).fingerprint
    assert described(with_attrs(descriptors=b"\x12\x01")).fingerprint is None
    assert described(with_attrs(descriptors=None)).fingerprint is None


def crowded(count: int, *last: Interface, hub: bool = False) -> RawDevice:
    """A device with so many different settings of its interfaces, and some more at the end."""
    class_ = 9 if hub else 3
    triples = [*(Interface(class_, n >> 8, n & 255) for n in range(count)), *last]
    settings = [bytes((9, 4, n // 100, n % 100, 0, *astuple(triple), 0)) for n, triple in enumerate(triples)]
    body = b"".join(settings)
    numbers = (len(triples) + 99) // 100
    head = bytes((9, 2, *(9 + len(body)).to_bytes(2, "little"), numbers, 1, 0, 0x80, 50))
    device = encode(Identity(5, 6), [], HUB_CLASS if hub else Interface(0, 0, 0))[:18]
    return replace(with_attrs(descriptors=device + head + body, bDeviceClass=None), interfaces={})


def test_the_limit_of_interfaces_is_kept() -> None:
    device = described(crowded(MOST_TRIPLES))
    assert len(device.interfaces) == MOST_TRIPLES
    assert UNREAD_INTERFACE not in device.interfaces


def test_interfaces_beyond_the_limit_count_as_unread() -> None:
    device = described(crowded(MOST_TRIPLES + 1))
    assert len(device.interfaces) == MOST_TRIPLES + 2  # one of the class that is cut, and UNREAD
    assert UNREAD_INTERFACE in device.interfaces
    hub = described(crowded(MOST_TRIPLES + 1, hub=True))
    assert (hub.hub, hub.partly_hub) == (False, True)


def test_many_interfaces_hide_no_class_or_kind() -> None:
    """A rule that blocks disks or keyboards still matches one after thousands of other interfaces."""
    last = (Interface(0xFE, 1, 1), DISK_IF, Interface(0xFF, 1, 1), Interface(0xFF, 0x5D, 1), Interface(3, 1, 1))
    for count in (MOST_TRIPLES, 3000):
        device = described(crowded(count, *last))
        assert {triple.class_ for triple in device.interfaces} == {3, 0xFE, 8, 0xFF, 0}
        assert {"storage", "gamepad", "keyboard"} <= device.kinds
        assert len(device.interfaces) < 2 * MOST_TRIPLES


def test_truncated_descriptors_have_no_fingerprint() -> None:
    assert described(with_attrs(descriptors=MOUSE.attrs["descriptors"] + bytes(70_000))).fingerprint is None
