"""Generated descriptors of devices: correct ones with everything that real devices have, and ones with false values.

Everything depends on one `random.Random` (hypothesis' or a seeded one), so a set can be reproduced.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.kernel_descriptors import Answers

TRIPLES = ((3, 1, 1), (3, 1, 2), (8, 6, 0x50), (9, 0, 0), (1, 1, 0), (1, 2, 0), (2, 2, 1), (0xFF, 0, 0), (0xE0, 1, 1))
HID = bytes((9, 0x21, 0x11, 1, 0, 1, 0x22, 0x34, 0))
AUDIO = bytes((9, 0x24, 1, 0, 1, 9, 0, 1, 1))
OTG = bytes((3, 9, 3))
COMPANION = bytes((6, 0x30, 0, 0, 0, 0))
ASSOCIATION = bytes((8, 11, 0, 2, 1, 1, 0, 0))
Chance = Any
"""random.Random, or hypothesis' replacement for it."""


@dataclass
class Set:
    """A device in the making; `parts` of each configuration are its descriptors, the configuration's own first."""

    device: bytearray
    parts: list[list[bytearray]]
    first: dict[int, bytes] = field(default_factory=dict)
    """By configuration: its first 9 bytes in the first answer, if they differ from those in the second."""
    sent: dict[int, int] = field(default_factory=dict)
    """By configuration: the bytes sent, if fewer than announced."""

    def answers(self) -> Answers:
        """The device's answers to the kernel."""
        found = []
        for number, parts in enumerate(self.parts):
            whole = b"".join(parts)[: self.sent.get(number)]
            found.append((self.first.get(number, whole[:9]), whole))
        return Answers(bytes(self.device), found)


def honest(chance: Chance) -> Set:
    """A device with correct descriptors."""
    configurations = [_configuration(chance, n + 1) for n in range(chance.choice((1, 1, 1, 2, 3)))]
    numbers = (0x0200, chance.choice((0, 0, 0xEF, 9)), 0, 0, 64, 0x046D, 0xC016, 0x0340, 1, 2, 3, len(configurations))
    return Set(bytearray(struct.pack("<BBHBBBBHHHBBBB", 18, 1, *numbers)), configurations)


def _configuration(chance: Chance, value: int) -> list[bytearray]:
    body: list[bytearray] = [bytearray(OTG)] if chance.random() < 0.1 else []
    number, count = 0, chance.choice((0, 1, 1, 2, 2, 3, 5))
    for _ in range(count):
        body += [bytearray(ASSOCIATION)] if chance.random() < 0.2 else []
        for setting in range(chance.choice((1, 1, 1, 2, 3))):
            body += _interface(chance, number, setting)
        number += chance.choice((1, 1, 1, 1, 3))  # modems leave gaps
    total = 9 + sum(map(len, body))
    return [bytearray(struct.pack("<BBHBBBBB", 9, 2, total, count, value, 0, 0x80, 50)), *body]


def _interface(chance: Chance, number: int, setting: int) -> list[bytearray]:
    endpoints = chance.choice((0, 1, 1, 2, 3))
    parts = [bytearray((9, 4, number, setting, endpoints, *chance.choice(TRIPLES), 0))]
    parts += [bytearray(chance.choice((HID, AUDIO))) for _ in range(chance.choice((0, 0, 1, 2)))]
    for at in range(endpoints):
        size = chance.choice((7, 7, 7, 9))
        parts.append(bytearray((size, 5, 0x81 + at, chance.choice((1, 2, 3)), 8, 0, 1, 0, 0)[:size]))
        parts += [bytearray(COMPANION)] if chance.random() < 0.1 else []
    return parts


def lying(chance: Chance) -> Set:
    """The same with one to four false values."""
    made = honest(chance)
    for _ in range(chance.choice((1, 1, 2, 4))):
        chance.choice(LIES)(chance, made)
    return made


def _one(chance: Chance, made: Set) -> tuple[int, list[bytearray]]:
    number = chance.randrange(len(made.parts))
    return number, made.parts[number]


def _device_length(chance: Chance, made: Set) -> None:
    """Fault S2: a length that covers some of the following descriptors."""
    parts = [part for group in made.parts for part in group]
    made.device[0] = min(255, 18 + sum(map(len, parts[: chance.randrange(len(parts) + 1)])))
    if chance.random() < 0.3:
        made.device[0] = chance.randrange(256)


def _count_of_configurations(chance: Chance, made: Set) -> None:
    made.device[17] = chance.choice((0, 1, 2, 3, 8, 9, 255))
    if chance.random() < 0.7:
        made.parts += [_configuration(chance, 9) for _ in range(min(made.device[17], 12) - len(made.parts))]


def _total(chance: Chance, made: Set) -> None:
    head = _one(chance, made)[1][0]
    total = int.from_bytes(head[2:4], "little") + chance.choice((-18, -16, -9, -7, -1, 1, 9, 16, 25, 1000))
    head[2:4] = min(max(total, 0), 0xFFFF).to_bytes(2, "little")


def _total_fits(chance: Chance, made: Set) -> None:
    """The total length is corrected after parts were added."""
    _, parts = _one(chance, made)
    parts[0][2:4] = min(sum(map(len, parts)), 0xFFFF).to_bytes(2, "little")


def _first_answer(chance: Chance, made: Set) -> None:
    number, parts = _one(chance, made)
    head = bytearray(parts[0][:9])
    head[2:4] = chance.choice((9, 18, 25, 34, 0, 0xFFFF)).to_bytes(2, "little")
    made.first[number] = bytes(head)


def _short_answer(chance: Chance, made: Set) -> None:
    number, parts = _one(chance, made)
    made.sent[number] = chance.randrange(sum(map(len, parts)) + 1)


def _count_of_interfaces(chance: Chance, made: Set) -> None:
    _one(chance, made)[1][0][4:5] = bytes((chance.choice((0, 1, 2, 3, 32, 33, 255)),))


def _length(chance: Chance, made: Set) -> None:
    """The length of any descriptor; its bytes stay, or are adapted."""
    part = chance.choice(_one(chance, made)[1])
    if not part:
        return
    part[0] = chance.choice((0, 1, 2, 5, 6, 7, 8, 9, 10, 18, 25, 255))
    if chance.random() < 0.5:
        part[:] = (part + bytes(255))[: max(part[0], 1)]


def _byte(chance: Chance, made: Set) -> None:
    """Any byte of any descriptor: numbers, settings, endpoints, types, classes."""
    part = chance.choice(_one(chance, made)[1])
    if part:
        part[chance.randrange(len(part))] = chance.choice((0, 1, 2, 3, 4, 5, 8, 9, 31, 32, chance.randrange(256)))


def _piece(chance: Chance, made: Set) -> None:
    """A part that does not belong there."""
    parts = _one(chance, made)[1]
    inner = bytes((9, 2, 9, 0, 0, 1, 0, 0x80, 50))
    disk = bytes((9, 4, chance.randrange(4), chance.randrange(3), 0, 8, 6, 0x50, 0))
    pieces = (
        inner,
        bytes(made.device),
        disk,
        disk,
        bytes((20, 0x24)) + disk + disk,
        b"\0",
        b"\xff\x04",
        b"\1\4",
        disk[:8],
    )
    parts.insert(chance.randrange(len(parts) + 1), bytearray(chance.choice(pieces)))


def _twice(chance: Chance, made: Set) -> None:
    parts = _one(chance, made)[1]
    part = bytearray(chance.choice(parts))
    parts.insert(chance.randrange(1, len(parts) + 1), part)


def _gone(chance: Chance, made: Set) -> None:
    parts = _one(chance, made)[1]
    if len(parts) > 1:
        del parts[chance.randrange(1, len(parts))]


def _crowd(chance: Chance, made: Set) -> None:
    """More interfaces, or more settings of one, than the kernel accepts; the last one is a disk."""
    parts = _one(chance, made)[1]
    number = chance.choice((30, 31, 32, 33, 127, 128, 129, 130))
    by_setting = number > 40
    for at in range(number):
        place = (0, at) if by_setting else (at, 0)
        parts.append(bytearray((9, 4, *place, 0, *((8, 6, 0x50) if at == number - 1 else (3, 1, 2)), 0)))
    if chance.random() < 0.6:
        parts[0][4:5] = bytes((1 if by_setting else number,))
        parts[0][2:4] = min(sum(map(len, parts)), 0xFFFF).to_bytes(2, "little")


def _long_file(chance: Chance, made: Set) -> None:
    """A first configuration so long that the kernel's file ends before or inside the second one."""
    if chance.random() > 0.02:
        return
    parts = made.parts[0]
    room = 65535 - sum(map(len, parts)) - chance.choice((0, 0, 1, 9, 18, 100))
    while room > 1 and len(parts) < 1000:
        size = min(room, 255)
        parts.append(bytearray(bytes((size, 0x24)) + bytes(size - 2)))
        room -= size
    if chance.random() < 0.5:
        made.first[0] = bytes(parts[0][:2]) + b"\xff\xff" + bytes(parts[0][4:9])
    else:
        parts[0][2:4] = min(sum(map(len, parts)), 0xFFFF).to_bytes(2, "little")
    made.parts.append(_configuration(chance, 7))
    made.device[17] = len(made.parts)


LIES: tuple[Callable[[Chance, Set], None], ...] = (
    _device_length, _count_of_configurations, _total, _total_fits, _total_fits, _first_answer, _short_answer,
    _count_of_interfaces, _length, _length, _byte, _byte, _piece, _piece, _twice, _gone, _crowd, _long_file,
)  # fmt: skip


def of_bytes(data: bytes) -> Answers:
    """A device that answers with these bytes, split into configurations at their total lengths or anywhere."""
    chance = random.Random(data)
    body, found = data[18:], []
    while body and len(found) < 12:
        total = int.from_bytes(body[2:4], "little")
        size = total if total >= 9 and chance.random() < 0.8 else chance.randrange(1, len(body) + 10)
        head = body[:2] + size.to_bytes(2, "little") + body[4:9] if size < 65536 else body[:9]
        found.append((head if chance.random() < 0.3 else body[:9], body[:size]))
        body = body[size:]
    return Answers(data[:18], found)
