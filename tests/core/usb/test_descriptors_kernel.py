"""Our parser of descriptors compared with the kernel's: if descriptors are whole, we know every interface."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.descriptor_sets import Chance, honest, lying, of_bytes
from tests.fuzz.targets.descriptors import hold_to_the_kernel
from tests.kernel_descriptors import FILE, Answers, enumerated
from tests.recordings import MOUSE

from xenplug.adapters import recording
from xenplug.core.model import Interface
from xenplug.core.usb.descriptors import parse
from xenplug.core.usb.device import RawDevice

KEYBOARD, DISK = (3, 1, 1), (8, 6, 0x50)


def setting(number: int, alternate: int = 0, triple: tuple[int, int, int] = KEYBOARD, endpoints: int = 0) -> bytes:
    return bytes((9, 4, number, alternate, endpoints, *triple, 0))


def configuration(*parts: bytes, interfaces: int = 1, total: int | None = None) -> bytes:
    body = b"".join(parts)
    announced = 9 + len(body) if total is None else total
    return bytes((9, 2, *announced.to_bytes(2, "little"), interfaces, 1, 0, 0x80, 50)) + body


def device(*configurations: bytes, length: int = 18, kind: int = 1, count: int | None = None) -> bytes:
    announced = len(configurations) if count is None else count
    head = bytes((length, kind, 0, 2, 0, 0, 0, 64, 0x6D, 4, 0x16, 0xC0, 0x40, 3, 1, 2, 3, announced))
    return head + b"".join(configurations)


def filled(size: int) -> bytes:
    """A configuration of that many bytes."""
    rest = size - 18
    lengths = [250] * (rest // 250) + ([rest % 250] if rest % 250 else [])
    return configuration(setting(0), *(bytes((length, 0x24)) + bytes(length - 2) for length in lengths))


ENDPOINT = bytes((7, 5, 0x81, 3, 8, 0, 10))
HID = bytes((9, 0x21, 0x11, 1, 0, 1, 0x22, 0x34, 0))
ONE = configuration(setting(0))
CROWD = [setting(n, triple=KEYBOARD) for n in range(32)]
SETTINGS = [setting(0, n) for n in range(128)]

HONEST = {
    "one interface": device(ONE),
    "two configurations": device(ONE, configuration(setting(0, triple=DISK))),
    "seven configurations": device(*[ONE] * 7),
    "no interfaces": device(configuration(interfaces=0)),
    "class descriptors and endpoints": device(configuration(setting(0, endpoints=1), HID, ENDPOINT)),
    "audio endpoint": device(configuration(setting(0, endpoints=1), bytes((9, 5, 0x81, 1, 8, 0, 10, 0, 0)))),
    "companion": device(configuration(setting(0, endpoints=1), ENDPOINT, bytes((6, 0x30, 0, 0, 0, 0)))),
    "association": device(configuration(bytes((8, 11, 0, 1, 1, 1, 0, 0)), setting(0))),
    "settings apart": device(configuration(setting(0), setting(1), setting(0, 1), interfaces=2)),
    "gaps in the numbers": device(configuration(setting(0), setting(8), setting(19), interfaces=3)),
    "numbers from 1": device(configuration(setting(1))),
    "first setting is not 0": device(configuration(setting(0, 1))),
    "32 interfaces": device(configuration(*CROWD, interfaces=32)),
    "128 settings": device(configuration(*SETTINGS)),
    "all but as long as the kernel's file": device(ONE, filled(FILE - 18 - len(ONE) - 1)),
}
SWALLOWED = configuration(setting(0), setting(1, triple=DISK), interfaces=2)
DISHONEST = {
    "S2: length swallows the configuration": device(SWALLOWED, length=18 + 9 + 9 + 9),
    "length swallows the disk's configuration": device(configuration(setting(0, triple=DISK)), ONE, length=18 + 18),
    "length 0": device(ONE, length=0),
    "length 17": device(ONE, length=17),
    "length 19": device(ONE, length=19),
    "length beyond the end": device(ONE, length=255),
    "no device descriptor": device(ONE, kind=2),
    "fewer configurations than announced": device(ONE, count=2),
    "more configurations than announced": device(ONE, ONE, count=1),
    "no configuration": device(),
    "announces none": device(ONE, count=0),
    "as many as the kernel cuts to": device(*[ONE] * 8),
    "more than the kernel takes": device(*[ONE] * 9),
    "longer than announced": device(configuration(setting(0), setting(0, 1, DISK), total=18)),
    "shorter than announced": device(configuration(setting(0), total=27)),
    "total length 0": device(configuration(setting(0), total=0)),
    "fewer interfaces than announced": device(configuration(setting(0), interfaces=2)),
    "more interfaces than announced": device(configuration(setting(0), setting(1, triple=DISK))),
    "one setting twice": device(configuration(setting(0), setting(0, 0, DISK))),
    "33 interfaces": device(configuration(*CROWD, setting(32, triple=DISK), interfaces=33)),
    "33 interfaces, 32 announced": device(configuration(*CROWD, setting(32, triple=DISK), interfaces=32)),
    "129 settings": device(configuration(*SETTINGS, setting(0, 128, DISK))),
    "fewer endpoints than announced": device(configuration(setting(0, endpoints=1))),
    "more endpoints than announced": device(configuration(setting(0), ENDPOINT)),
    "31 endpoints": device(configuration(setting(0, endpoints=31), *[ENDPOINT] * 31)),
    "an endpoint before all interfaces": device(configuration(ENDPOINT, setting(0, endpoints=1), ENDPOINT)),
    "short endpoint": device(configuration(setting(0, endpoints=1), bytes((6, 5, 0x81, 3, 8, 0)))),
    "short interface": device(configuration(setting(0), bytes((8, 4, 1, 0, 0, 8, 6, 0x50)))),
    "long interface": device(configuration(bytes((11, 4, 0, 0, 0, 8, 6, 0x50, 0, 0, 0)))),
    "long configuration": device(bytes((11, 2, 20, 0, 1, 1, 0, 0x80, 50, 0, 0)) + setting(0)),
    "configuration in a configuration": device(configuration(setting(0), configuration(setting(0, 1, DISK)))),
    "device in a configuration": device(configuration(setting(0), device())),
    "something before the configuration": device(HID + ONE),
    "something after the configuration": device(ONE, HID, count=1),
    "excess byte": device(configuration(setting(0), b"\x09")),
    "length beyond the configuration": device(configuration(setting(0), b"\xff\x04\x01")),
    "as long as the kernel's file": device(ONE, filled(FILE - 18 - len(ONE))),
    "longer than the kernel's file": device(ONE, filled(FILE - 18), ONE),
}


@pytest.mark.parametrize("raw", HONEST.values(), ids=HONEST)
def test_a_correct_device_is_whole(raw: bytes) -> None:
    assert parse(raw).whole


@pytest.mark.parametrize("raw", DISHONEST.values(), ids=DISHONEST)
def test_wrong_counts_or_lengths_are_not_whole(raw: bytes) -> None:
    assert not parse(raw).whole


def test_an_interface_inside_a_wrong_length_is_listed() -> None:
    raw = DISHONEST["S2: length swallows the configuration"]
    assert set(parse(raw).interfaces) == {Interface(*KEYBOARD), Interface(*DISK)}


def test_with_a_wrong_length_both_interpretations_are_listed() -> None:
    """From byte 18 on the disk is inside a longer descriptor; from byte 20 on it is not."""
    raw = device(length=20, count=1) + bytes((11, 0x24)) + setting(0, triple=DISK) + ONE
    assert set(parse(raw).interfaces) == {Interface(*KEYBOARD), Interface(*DISK)}


def test_the_first_18_bytes_are_the_device_descriptor() -> None:
    found = parse(device(ONE, length=36))
    assert (found.vendor, found.product, found.revision) == (0x046D, 0xC016, 0x0340)


RECORDED = [raw for file in sorted(MOUSE.parent.glob("*.umockdev")) for raw in recording.read(file)]


@pytest.mark.parametrize("raw", RECORDED, ids=lambda raw: raw.devpath.rpartition("/")[2])
def test_recorded_devices_are_whole(raw: RawDevice) -> None:
    found = parse(raw.attrs["descriptors"])
    assert found.whole
    assert found.interfaces


@settings(deadline=None, max_examples=300)
@given(st.randoms(use_true_random=False))
def test_correct_devices_are_whole_with_the_kernels_interfaces(chance: Chance) -> None:
    answers = honest(chance).answers()
    seen = enumerated(answers)
    assert seen is not None
    assert not seen.cut
    found = parse(seen.file)
    assert found.whole
    assert set(found.interfaces) == seen.interfaces


@settings(deadline=None, max_examples=1500)
@given(st.randoms(use_true_random=False))
def test_wrong_descriptors_hide_no_interface(chance: Chance) -> None:
    hold_to_the_kernel(lying(chance).answers())


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=120), st.integers(0, 120))
def test_random_bytes_hide_no_interface(noise: bytes, at: int) -> None:
    raw = HONEST["two configurations"]
    hold_to_the_kernel(of_bytes(raw[:at] + noise + raw[at:]))


def test_the_generated_devices_are_varied() -> None:
    """The kernel accepts most of them; some have correct counts and lengths; more than half are truncated."""
    seen = [each for number in range(1000) if (each := enumerated(lying(random.Random(number)).answers()))]
    whole = [each for each in seen if parse(each.file).whole]
    assert len(seen) > 500
    assert len(whole) > 100
    assert sum(each.cut for each in seen) > 300


def test_the_model_drops_what_the_kernel_drops() -> None:
    """The tests above prove nothing with a model that accepts everything."""
    answers = Answers(device(count=1), [(ONE[:9], configuration(*CROWD, setting(40), interfaces=33))])
    seen = enumerated(
        replace(answers, configurations=[(answers.configurations[0][1][:9], answers.configurations[0][1])])
    )
    assert seen is not None
    assert (len(seen.settings), seen.cut) == (32, True)
    assert enumerated(answers) is not None
    assert enumerated(Answers(device(count=0), [])) is None
