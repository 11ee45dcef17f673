"""The bytes of a device's descriptors, cut into single descriptors, and whether they are all that was announced.

Held to the kernel's walk over the same bytes (drivers/usb/core/config.c: usb_get_configuration,
usb_parse_configuration, usb_parse_interface) and stricter: what the kernel cuts, skips or corrects, the system in a
guest may read otherwise. Formats and lengths: USB 2.0, 9.6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

DEVICE, CONFIGURATION, INTERFACE, ENDPOINT = 1, 2, 4, 5
DEVICE_SIZE, CONFIGURATION_SIZE, INTERFACE_SIZE, ENDPOINT_SIZE = 18, 9, 9, 7
MOST = DEVICE_SIZE + 0xFFFF
"""Bytes at which the kernel cuts the file, whatever follows (drivers/usb/core/sysfs.c: the attribute's size)."""
MOST_CONFIGURATIONS = 8
"""USB_MAXCONFIG: the kernel takes no more, and then writes this number into the device descriptor."""
MOST_INTERFACES, MOST_SETTINGS, MOST_ENDPOINTS = 32, 128, 30
"""USB_MAXINTERFACES of a configuration, USB_MAXALTSETTING of an interface, USB_MAXENDPOINTS of a setting."""


def split(raw: bytes, start: int) -> Iterator[bytes]:
    """The descriptors from byte `start` on, each with its length and type byte; ends at the first unsound length."""
    at = start
    while at + 2 <= len(raw):
        length = raw[at]
        if length < 2 or at + length > len(raw):
            return
        yield raw[at : at + length]
        at += length


def as_announced(raw: bytes, descriptors: Sequence[bytes]) -> bool:
    """Whether `descriptors`, split from byte 18 of `raw`, are neither more nor less than `raw` says there are.

    False as well where the kernel may have left something out without a trace: at its own limits.
    """
    if len(raw) >= MOST or raw[:2] != bytes((DEVICE_SIZE, DEVICE)):
        return False
    if DEVICE_SIZE + sum(map(len, descriptors)) != len(raw):
        return False
    groups = _by_configuration(descriptors)
    return 0 < len(groups) == raw[17] < MOST_CONFIGURATIONS and all(map(_is_sound, groups))


def _by_configuration(descriptors: Iterable[bytes]) -> list[list[bytes]]:
    """Each configuration descriptor with what follows it; nothing if anything stands outside of one."""
    groups: list[list[bytes]] = []
    for descriptor in descriptors:
        if descriptor[1] == CONFIGURATION:
            groups.append([])
        if not groups or descriptor[1] == DEVICE:
            return []
        groups[-1].append(descriptor)
    return groups


def _is_sound(group: Sequence[bytes]) -> bool:
    """One configuration: its length, the number of its interfaces, and each setting there once."""
    head, settings = group[0], _settings(group[1:])
    if settings is None or len(head) != CONFIGURATION_SIZE:
        return False
    if int.from_bytes(head[2:4], "little") != sum(map(len, group)):
        return False
    # Interface numbers may have gaps: the kernel warns and takes them, and modems have them.
    numbers = Counter(number for number, _ in settings)
    each_once = len(set(settings)) == len(settings)
    return (
        each_once and len(numbers) == head[4] <= MOST_INTERFACES and max(numbers.values(), default=0) <= MOST_SETTINGS
    )


def _settings(descriptors: Iterable[bytes]) -> list[tuple[int, int]] | None:
    """Number and alternate setting of each interface descriptor; None if lengths or endpoints are not as announced."""
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
