"""Kinds from class triples, known chips and udev's properties."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplug.core.model import Interface, Tag
from xenplug.core.policy.patterns import KINDS
from xenplug.core.usb.kinds import kinds, of_triple


def triples(text: str) -> list[Interface]:
    return [Interface(*(int(part, 16) for part in triple.split(":"))) for triple in text.split()]


@pytest.mark.parametrize(
    ("tag", "interfaces", "expected"),
    [
        pytest.param("046d:c31c", "03:01:01 03:00:00", "keyboard", id="keyboard"),
        pytest.param("046d:c52b", "03:01:01 03:01:02 03:00:00", "keyboard mouse", id="receiver"),
        pytest.param("0781:5567", "08:06:50", "storage", id="stick"),
        pytest.param("152d:0578", "08:06:62", "storage", id="UAS disk"),
        pytest.param("03f0:1234", "07:01:02", "printer", id="printer"),
        pytest.param("0951:16a4", "01:01:00 01:02:00 03:00:00", "audio", id="headset"),
        pytest.param("046d:082d", "0e:01:00 0e:02:00 01:01:00", "video audio", id="webcam"),
        pytest.param("1050:0407", "03:01:01 0b:00:00 03:00:00", "keyboard smartcard", id="token"),
        pytest.param(
            "0bda:8153", "ff:ff:00 02:06:00 0a:00:00", "net", id="Ethernet, class in its second configuration"
        ),
        pytest.param("1199:9071", "02:0e:00", "net", id="MBIM modem"),
        pytest.param("18d1:4ee3", "e0:01:03 0a:00:00", "net", id="tethering"),
        pytest.param("8087:0a2b", "e0:01:01", "bluetooth", id="Bluetooth"),
        pytest.param("2341:0043", "02:02:01 0a:00:00", "serial", id="CDC ACM"),
        pytest.param("045e:0001", "02:02:ff 0a:00:00", "net", id="old RNDIS is no serial adapter"),
        pytest.param("0403:6001", "ff:ff:ff", "serial", id="FTDI"),
        pytest.param("10c4:ea60", "ff:00:00", "serial", id="CP210x"),
        pytest.param("1a86:7523", "ff:01:02", "serial", id="CH340"),
        pytest.param("067b:2303", "ff:00:00", "serial", id="PL2303"),
        pytest.param("10c4:8a2a", "ff:00:00", "", id="the same vendor's other chips"),
        pytest.param("0403:6001", "03:00:00", "", id="FTDI's tag without a vendor class"),
        pytest.param("05ac:12a8", "06:01:01 ff:fe:02", "phone", id="phone"),
        pytest.param("18d1:4ee7", "ff:42:01", "phone", id="Android debug bridge"),
        pytest.param("045e:028e", "ff:5d:01 ff:5d:03", "gamepad", id="Xbox 360"),
        pytest.param("045e:02ea", "ff:47:d0", "gamepad", id="Xbox One"),
        pytest.param("054c:09cc", "01:01:00 03:00:00", "audio gamepad", id="DualShock 4"),
        pytest.param("054c:0abc", "03:00:00", "", id="other Sony device"),
        pytest.param("0409:55aa", "09:00:00", "hub", id="hub"),
        pytest.param("1234:5678", "ff:ff:ff dc:01:01", "", id="unknown"),
    ],
)
def test_kinds(tag: str, interfaces: str, expected: str) -> None:
    assert kinds(Tag(tag), triples(interfaces), {}) == frozenset(expected.split())


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ID_INPUT_JOYSTICK", "gamepad"), ("ID_MTP_DEVICE", "phone"), ("ID_SMARTCARD_READER", "smartcard")],
)
def test_properties(name: str, kind: str) -> None:
    assert kinds(Tag("1234:5678"), [], {name: "1"}) == {kind}
    assert kinds(Tag("1234:5678"), [], {name: "0"}) == frozenset()


@settings(deadline=None)
@given(st.builds(Interface, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)))
def test_kinds_are_those_of_the_policy(triple: Interface) -> None:
    assert of_triple(triple) in {None, *KINDS}
