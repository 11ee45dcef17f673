"""A model of how Linux reads a device's descriptors: from the device's answers to sysfs' file and the interfaces.

Written from drivers/usb/core/config.c (usb_get_configuration and below), message.c (usb_get_descriptor) and sysfs.c
(descriptors_read) of Linux 6.1, independent of xenplug's own reading, which is compared with it. Quirks of single
devices are omitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xenplug.core.model import Interface

FILE = 18 + 65535
"""The size of the attribute `descriptors`: kernfs returns no more."""


@dataclass(frozen=True)
class Answers:
    """A device's answers: its device descriptor, and for each configuration the first 9 bytes (read for the
    length) and then, in a second answer, all of it. The two answers may differ."""

    device: bytes
    configurations: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Seen:
    """The kernel's result."""

    file: bytes
    settings: tuple[tuple[int, int, int, Interface], ...]
    """Each interface setting that can be selected: configuration, interface number, alternate setting, class triple."""
    cut: bool
    """Bytes or descriptors that the device sent or announced were left out, skipped or corrected."""

    @property
    def interfaces(self) -> frozenset[Interface]:
        """The different class triples."""
        return frozenset(triple for *_, triple in self.settings)


def enumerated(answers: Answers) -> Seen | None:
    """The kernel's result; None if the kernel rejects the device."""
    device, wanted = bytearray(answers.device), answers.device[17:18]
    if len(device) != 18 or device[1] != 1 or wanted == b"\0":
        return None
    device[17] = min(device[17], 8)
    if len(answers.configurations) < device[17]:
        return None
    file, settings, cut = bytes(device), [], device[17] != wanted[0]
    for number, (first, second) in enumerate(answers.configurations[: device[17]]):
        read = _configuration(first, second)
        if read is None:
            return None
        kept, found, left_out = read
        file += kept
        cut |= left_out
        settings += [(number, *place, triple) for place, triple in found.items()]
    return Seen(file[:FILE], tuple(settings), cut or len(file) > FILE)


Found = dict[tuple[int, int], Interface]


def _configuration(first: bytes, second: bytes) -> tuple[bytes, Found, bool] | None:
    first = first[:9]
    if len(first) < 4 or first[1] != 2:
        return None
    asked = max(int.from_bytes(first[2:4], "little"), 9)
    sent = second[:asked]
    if len(sent) < 2 or sent[1] != 2 or not 9 <= sent[0] <= len(sent):
        return None
    spans = _spans(sent, sent[0])
    end = spans[-1][1] if spans else sent[0]
    numbers = _numbers(sent, spans)
    found, skipped = _found(sent, spans, numbers)
    announced = int.from_bytes(sent[2:4], "little")
    return sent[:end], found, skipped or len(numbers) != sent[4] or end != announced or sent[0] != 9


def _spans(sent: bytes, at: int) -> list[tuple[int, int]]:
    """The start and end of each descriptor, up to the first with an impossible length."""
    spans: list[tuple[int, int]] = []
    while at + 2 <= len(sent) and 2 <= sent[at] <= len(sent) - at:
        spans.append((at, at + sent[at]))
        at += sent[at]
    return spans


def _numbers(sent: bytes, spans: list[tuple[int, int]]) -> dict[int, int]:
    """The interface numbers that the kernel accepts, 32 at most, and the number of settings of each."""
    room: dict[int, int] = {}
    for begin, end in spans:
        if sent[begin + 1] == 4 and end - begin >= 9:
            number = sent[begin + 2]
            if number in room or len(room) < 32:
                room[number] = min(room.get(number, 0) + 1, 128)
    return room


def _found(sent: bytes, spans: list[tuple[int, int]], room: dict[int, int]) -> tuple[Found, bool]:
    """The settings that are kept, and whether anything was skipped or differs from the announced number."""
    found: Found = {}
    skipped, endpoints, expected = False, 0, 0
    for begin, end in spans:
        kind, length = sent[begin + 1], end - begin
        if kind == 4:
            skipped |= endpoints != expected
            endpoints, expected = 0, sent[begin + 4] if length >= 9 else 0
            place = (sent[begin + 2], sent[begin + 3]) if length >= 9 else None
            if place and place[0] in room and place not in found and _count(found, place[0]) < room[place[0]]:
                found[place] = Interface(*sent[begin + 5 : begin + 8])
            else:
                skipped = True
            skipped |= length != 9 or expected > 30
        elif kind == 5:
            endpoints += 1
            skipped |= length < 7 or not found
        skipped |= kind in (1, 2)
    return found, skipped or endpoints != expected


def _count(found: Found, number: int) -> int:
    return sum(1 for place in found if place[0] == number)
