"""Descriptors of malicious devices: our parsing of sysfs' file, compared with the kernel's parsing of the answers."""

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
    """Two sets of descriptors: these bytes as a device's answers, and a malicious device generated from them."""
    hold_to_the_kernel(of_bytes(data))
    hold_to_the_kernel(lying(random.Random(data)).answers())


def hold_to_the_kernel(answers: Answers) -> bool:
    """Raises AssertionError if `whole` is set but an interface is unknown; True if the kernel accepts the device."""
    seen = enumerated(answers)
    if seen is None:
        return False
    found = parse(seen.file)
    known = frozenset(found.interfaces)
    if len(seen.file) < 18 + 65535:
        assert known >= seen.interfaces, f"unknown: {sorted(map(str, seen.interfaces - known))}"
    if found.whole:
        assert not seen.cut, "whole, although the kernel dropped a part"
        assert known == seen.interfaces, f"{sorted(map(str, known ^ seen.interfaces))}"
        assert answers.device[0] == 18
        sent = (second for _, second in answers.configurations[: answers.device[17]])
        visible = {triple for each in sent for triple in _leniently(each[: int.from_bytes(each[2:4], "little")])}
        assert known == visible, f"a guest sees {sorted(map(str, visible - known))}"
    return True


def _leniently(sent: bytes) -> Iterable[Interface]:
    """The interfaces that another system might find in the device's data, if it ignores all counts and total lengths.

    A device that later reports more interfaces cannot be detected; but the kernel does not know those interfaces, so
    they cannot be selected.
    """
    at = 0
    while at + 1 < len(sent) and sent[at] > 1:
        if sent[at + 1] == 4 and at + 8 <= len(sent):
            yield Interface(*sent[at + 5 : at + 8])
        at += sent[at]
