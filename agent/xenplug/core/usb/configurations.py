"""Splits the bytes of a device into single descriptors, and checks that they match their own counts and lengths.

The check follows the kernel's parser of the same bytes (drivers/usb/core/config.c: usb_get_configuration,
usb_parse_configuration, usb_parse_interface) but is stricter: the operating system of a guest can interpret parts that
the kernel truncates, skips or corrects in another way. Formats and lengths: USB 2.0, 9.6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

DEVICE, CONFIGURATION, INTERFACE, ENDPOINT = 1, 2, 4, 5
DEVICE_SIZE, CONFIGURATION_SIZE, INTERFACE_SIZE, ENDPOINT_SIZE = 18, 9, 9, 7
MAX_DESCRIPTORS_BYTES = DEVICE_SIZE + 0xFFFF
"""Bytes; the kernel truncates the file at this size (drivers/usb/core/sysfs.c: the attribute's size)."""
MOST_CONFIGURATIONS = 8
"""USB_MAXCONFIG: the kernel reads at most so many, and then writes this number into the device descriptor."""
MOST_INTERFACES, MOST_SETTINGS, MOST_ENDPOINTS = 32, 128, 30
"""USB_MAXINTERFACES of a configuration, USB_MAXALTSETTING of an interface, USB_MAXENDPOINTS of a setting."""


def split(raw: bytes, start: int) -> Iterator[bytes]:
    """The descriptors from byte `start` on, each with its length and type byte; ends at the first invalid length."""
    at = start
    while at + 2 <= len(raw):
        length = raw[at]
        if length < 2 or at + length > len(raw):
            return
        yield raw[at : at + length]
        at += length


def as_announced(raw: bytes, descriptors: Sequence[bytes]) -> bool:
    """Whether `descriptors`, split from byte 18 of `raw`, are exactly those that the counts in `raw` announce.

    Also False at the kernel's own limits, where it may have dropped a part silently.
    """
    if len(raw) >= MAX_DESCRIPTORS_BYTES or raw[:2] != bytes((DEVICE_SIZE, DEVICE)):
        return False
    if DEVICE_SIZE + sum(map(len, descriptors)) != len(raw):
        return False
    groups = _by_configuration(descriptors)
    return 0 < len(groups) == raw[17] < MOST_CONFIGURATIONS and all(map(_is_sound, groups))


def _by_configuration(descriptors: Iterable[bytes]) -> list[list[bytes]]:
    """Each configuration descriptor with the descriptors after it; empty if a descriptor is outside a configuration."""
    groups: list[list[bytes]] = []
    for descriptor in descriptors:
        if descriptor[1] == CONFIGURATION:
            groups.append([])
        if not groups or descriptor[1] == DEVICE:
            return []
        groups[-1].append(descriptor)
    return groups


def _is_sound(group: Sequence[bytes]) -> bool:
    """Check one configuration: its length, the number of its interfaces, and that each setting occurs once."""
    head, settings = group[0], _settings(group[1:])
    if settings is None or len(head) != CONFIGURATION_SIZE:
        return False
    if int.from_bytes(head[2:4], "little") != sum(map(len, group)):
        return False
    # Interface numbers may have gaps: the kernel warns but accepts them, and some modems have them.
    numbers = Counter(number for number, _ in settings)
    each_once = len(set(settings)) == len(settings)
    return (
        each_once and len(numbers) == head[4] <= MOST_INTERFACES and max(numbers.values(), default=0) <= MOST_SETTINGS
    )


def _settings(descriptors: Iterable[bytes]) -> list[tuple[int, int]] | None:
    """Number and alternate setting of each interface descriptor; None if lengths or endpoint counts are wrong."""
    found: list[tuple[int, int]] = []
    missing = 0
    for descriptor in descriptors:
        if descriptor[1] == INTERFACE:
            if missing or len(descriptor) != INTERFACE_SIZE or descriptor[4] > MOST_ENDPOINTS:
                return None
            missing = descriptor[4]
            found.append((descriptor[2], descriptor[3]))
        elif descriptor[1] == ENDPOINT:
            missing -= 1
            if missing < 0 or len(descriptor) < ENDPOINT_SIZE:
                return None
    return None if missing else found
