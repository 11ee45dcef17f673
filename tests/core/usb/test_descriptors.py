"""Descriptors are parsed up to the first invalid one, and the output of `encode` parses to the same values."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplug.core.model import Interface
from xenplug.core.usb.descriptors import Descriptors, Identity, encode, parse

KEYBOARD = Interface(3, 1, 1)
STORAGE = Interface(8, 6, 0x50)
AUDIO = Interface(1, 2, 0)
MOUSE = encode(Identity(0x046D, 0xC016, 0x0340), [Interface(3, 1, 2)])
TRIPLES = st.builds(Interface, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))


def interface(number: int, alternate: int, triple: Interface) -> bytes:
    return bytes([9, 4, number, alternate, 0, triple.class_, triple.subclass, triple.protocol, 0])


def configuration(value: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([9, 2]) + (9 + len(body)).to_bytes(2, "little") + bytes([1, value, 0, 0x80, 50]) + body


def test_a_mouse() -> None:
    assert parse(MOUSE) == Descriptors(
        Interface(0, 0, 0), 0x046D, 0xC016, 0x0340, (Interface(3, 1, 2),), isochronous=False, whole=True
    )


def test_every_configuration_and_alternate_setting_counts() -> None:
    head = MOUSE[:18]
    raw = (
        head
        + configuration(1, interface(0, 0, KEYBOARD), interface(0, 1, AUDIO))
        + configuration(2, interface(0, 0, STORAGE))
    )
    assert parse(raw).interfaces == (KEYBOARD, AUDIO, STORAGE)


def test_equal_triples_appear_once() -> None:
    assert parse(encode(Identity(1, 2), [KEYBOARD, STORAGE, KEYBOARD])).interfaces == (KEYBOARD, STORAGE)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [(0x00, False), (0x01, True), (0x05, True), (0x0D, True), (0x02, False), (0x03, False)],
    ids=["control", "isochronous", "asynchronous", "synchronous", "bulk", "interrupt"],
)
def test_isochronous(attributes: int, expected: bool) -> None:
    endpoint = bytes([7, 5, 0x81, attributes, 8, 0, 1])
    assert parse(MOUSE[:18] + configuration(1, interface(0, 0, AUDIO), endpoint)).isochronous is expected


@pytest.mark.parametrize(
    ("raw", "interfaces"),
    [
        pytest.param(b"", (), id="nothing"),
        pytest.param(MOUSE[:10], (), id="half a device descriptor"),
        pytest.param(MOUSE[:-1], (Interface(3, 1, 2),), id="endpoint cut short"),
        pytest.param(MOUSE[:18] + b"\x00" * 20, (), id="length 0 would loop for ever"),
        pytest.param(MOUSE + b"\x01", (Interface(3, 1, 2),), id="a stray byte"),
        pytest.param(MOUSE + b"\xff\x04rest", (Interface(3, 1, 2),), id="length beyond the end"),
        pytest.param(MOUSE[18:], (Interface(3, 1, 2),), id="no device descriptor"),
    ],
)
def test_invalid_bytes_are_not_whole(raw: bytes, interfaces: tuple[Interface, ...]) -> None:
    found = parse(raw)
    assert found.interfaces == interfaces
    assert not found.whole


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes(raw: bytes) -> None:
    parse(raw)


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_mutated_bytes(noise: bytes, at: int) -> None:
    parse(MOUSE[:at] + noise + MOUSE[at:])


@settings(deadline=None)
@given(st.lists(TRIPLES, max_size=32), TRIPLES, st.booleans(), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_encode_reads_back(
    triples: list[Interface], class_: Interface, isochronous: bool, vendor: int, product: int
) -> None:
    found = parse(encode(Identity(vendor, product), triples, class_, isochronous))
    assert found == Descriptors(
        class_, vendor, product, 0x0100, tuple(dict.fromkeys(triples)), isochronous and bool(triples), whole=True
    )


def test_more_interfaces_than_the_kernel_supports() -> None:
    with pytest.raises(ValueError, match="32"):
        encode(Identity(1, 2), [KEYBOARD] * 33)
