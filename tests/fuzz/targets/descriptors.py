"""Descriptors of lying devices: what we read of sysfs' file, held to what the kernel makes of the device's answers."""

from __future__ import annotations

import random
from collections.abc import Iterable

from tests.descriptor_sets import honest, lying, of_bytes
from tests.kernel_descriptors import Answers, enumerated
from tests.recordings import MOUSE

from xenplug.adapters import recording
from xenplug.core.model import Interface
from xenplug.core.usb.descriptors import parse

TOKENS = [b"\x09\x04", b"\x09\x02", b"\x12\x01", b"\x07\x05", b"\x09\x04\x01\x00\x00\x08\x06\x50\x00", b"\x02\x24"]


def seeds() -> Iterable[bytes]:
    """Recorded devices, and made-up ones."""
    for file in sorted(MOUSE.parent.glob("*.umockdev")):
        yield from (raw.attrs["descriptors"] for raw in recording.read(file))
    for number in range(30):
        answers = honest(random.Random(number)).answers()
        yield answers.device + b"".join(second for _, second in answers.configurations)


def read(data: bytes) -> None:
    """Two sets of descriptors: these bytes as a device's answers, and a made-up liar that follows from them."""
    hold_to_the_kernel(of_bytes(data))
    hold_to_the_kernel(lying(random.Random(data)).answers())


def hold_to_the_kernel(answers: Answers) -> bool:
    """Raises AssertionError where we say whole and do not know it all; True where the kernel makes a device of it."""
    seen = enumerated(answers)
    if seen is None:
        return False
    found = parse(seen.file)
    known = frozenset(found.interfaces)
    if len(seen.file) < 18 + 65535:
        assert known >= seen.interfaces, f"unknown: {sorted(map(str, seen.interfaces - known))}"
    if found.whole:
        assert not seen.cut, "whole, though the kernel left something out"
        assert known == seen.interfaces, f"{sorted(map(str, known ^ seen.interfaces))}"
        assert answers.device[0] == 18
        sent = (second for _, second in answers.configurations[: answers.device[17]])
        told = {triple for each in sent for triple in _leniently(each[: int.from_bytes(each[2:4], "little")])}
        assert known == told, f"a guest sees {sorted(map(str, told - known))}"
    return True


def _leniently(sent: bytes) -> Iterable[Interface]:
    """What another system might find in what the device sends, minding no count, and no length but each one's own.

    Of a device that says more the next time it is asked nothing can be known; but the kernel, which has no such
    interface, lets nobody select it.
    """
    at = 0
    while at + 1 < len(sent) and sent[at] > 1:
        if sent[at + 1] == 4 and at + 8 <= len(sent):
            yield Interface(*sent[at + 5 : at + 8])
        at += sent[at]
