"""The forms of match values: each parses its text strictly and then answers one question, `admits`.

A pattern is a value: two patterns that are written differently but mean the same are equal. `parse` raises ValueError
with fact and remedy; the policy loader adds file, line and column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from xenplug.core.model import Speed
from xenplug.core.policy.glob import Glob, read_glob
from xenplug.core.policy.regex import Regex, compile_
from xenplug.core.usb.place import PORT

HEX4 = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,4})\Z")
HEX2 = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,2})\Z")
DECIMAL = re.compile(r"[0-9]{1,5}\Z")
BDF_TEXT = re.compile(r"(?:([0-9a-fA-F]{1,4}):)?([0-9a-fA-F]{1,2}):([01]?[0-9a-fA-F])\.([0-7])\Z")
REVISION = re.compile(r"(?:(?:0[xX])?([0-9a-fA-F]{2})|([0-9a-fA-F]{1,2})\.)([0-9a-fA-F]{2})\Z")
PATH = re.compile(r"[a-z0-9_]+-[0-9A-Za-z_.:-]+-usb-[0-9]+:[1-9][0-9]{0,2}(?:\.[1-9][0-9]{0,2}){0,6}\Z")


class Pattern(Protocol):
    """The interface of every form."""

    def admits(self, value: str) -> bool:
        """Whether a device's value matches. The value is in the canonical form of the Device."""


@dataclass(frozen=True, slots=True)
class TagPattern:
    """`046d:c016`, `046d:*`, `*:*`; hex, case-insensitive; `0x` and missing leading zeros are allowed."""

    vendor: str | None
    product: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        vendor, colon, product = text.partition(":")
        if not colon:
            raise ValueError(f"{text!r} is not a vendor:product pair; write it like 046d:c016 or 046d:*")
        if vendor == "*" and product != "*":
            raise ValueError(f'{text!r} has a product but no vendor; write the vendor, or "*:*"')
        return cls(_id(vendor, text), _id(product, text))

    def admits(self, value: str) -> bool:
        vendor, _, product = value.partition(":")
        return self.vendor in (None, vendor) and self.product in (None, product)

    def __str__(self) -> str:
        return f"{self.vendor or '*'}:{self.product or '*'}"


def _id(text: str, whole: str) -> str | None:
    if text == "*":
        return None
    found = HEX4.match(text)
    if not found:
        raise ValueError(f"{whole!r}: {text!r} is not 1 to 4 hex digits; write the tag like 046d:c016 or 046d:*")
    return found[1].lower().zfill(4)


@dataclass(frozen=True, slots=True)
class AddressPattern:
    """`1.6`: bus and device number, decimal; `001.006` means the same."""

    bus: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        bus, dot, number = text.partition(".")
        if not (dot and DECIMAL.match(bus) and DECIMAL.match(number)):
            raise ValueError(f"{text!r} is not a bus address; write bus.device in decimal, like 1.6 (see `lsusb`)")
        if not (int(bus) >= 1 and 1 <= int(number) <= 127):
            raise ValueError(f"{text!r} is out of range; buses count from 1, device numbers are 1 to 127")
        return cls(int(bus), int(number))

    def admits(self, value: str) -> bool:
        return value == str(self)

    def __str__(self) -> str:
        return f"{self.bus}.{self.number}"


@dataclass(frozen=True, slots=True)
class PlacePattern:
    """A port (`1-4.2`) or path (`pci-0000:00:14.0-usb-0:4.2`); with `.*` everything strictly below it.

    Compares whole components: `1-1.*` never matches `1-10`.
    """

    place: str
    below: bool = False

    @classmethod
    def parse_port(cls, text: str) -> Self:
        return cls._parse(text, PORT, "port path; write it like 1-4, 1-4.2 or 1-4.* (see `xenplug devices`)")

    @classmethod
    def parse_path(cls, text: str) -> Self:
        return cls._parse(
            text, PATH, "path; write it like pci-0000:00:14.0-usb-0:4.2 or with .* at its end (see `xenplug devices`)"
        )

    @classmethod
    def _parse(cls, text: str, form: re.Pattern[str], remedy: str) -> Self:
        place, below = (text[:-2], True) if text.endswith(".*") else (text, False)
        if not form.match(place):
            raise ValueError(f"{text!r} is not a {remedy}")
        return cls(place, below)

    def admits(self, value: str) -> bool:
        return value.startswith(self.place + ".") if self.below else value == self.place

    def __str__(self) -> str:
        return self.place + (".*" if self.below else "")


@dataclass(frozen=True, slots=True)
class InterfacePattern:
    """`03:01:01`, `03:*:*`, `03`: class, subclass and protocol in hex; an omitted part matches anything."""

    class_: str
    subclass: str | None
    protocol: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        parts = text.split(":")
        if len(parts) > 3:
            raise ValueError(_triple_help(text))
        triple = [_byte(part, text) for part in [*parts, "*", "*"][:3]]
        if triple[0] is None:
            raise ValueError(_triple_help(text))
        return cls(triple[0], triple[1], triple[2])

    def admits(self, value: str) -> bool:
        class_, subclass, protocol = value.split(":")
        return class_ == self.class_ and self.subclass in (None, subclass) and self.protocol in (None, protocol)

    def __str__(self) -> str:
        return f"{self.class_}:{self.subclass or '*'}:{self.protocol or '*'}"


def _byte(text: str, whole: str) -> str | None:
    if text == "*":
        return None
    found = HEX2.match(text)
    if not found:
        raise ValueError(_triple_help(whole))
    return found[1].lower().zfill(2)


def _triple_help(text: str) -> str:
    return f"{text!r} is not a class triple; write class:subclass:protocol in hex, like 03:01:01, 03:*:* or 03"


@dataclass(frozen=True, slots=True)
class TextPattern:
    """A glob over one of the device's own strings, case-insensitive: `*`, `?`, `[abc]` (core/policy/glob)."""

    text: str
    """In its canonical form."""
    glob: Glob = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text:
            raise ValueError("is empty; remove the key to match any device")
        glob = read_glob(text)
        return cls(glob.text, glob)

    def admits(self, value: str) -> bool:
        return self.glob.admits(value.casefold())

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class RegexPattern:
    """`/regex/` over one of the device's own strings, case-insensitive, searched anywhere in it; in linear time."""

    text: str
    regex: Regex = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        if len(text) < 3:
            raise ValueError("'//' is an empty regular expression; remove the key to match any device")
        try:
            return cls(text, compile_(text[1:-1]))
        except ValueError as refused:
            raise ValueError(f"{text!r} cannot be read as a regular expression: {refused}") from None

    def admits(self, value: str) -> bool:
        return self.regex.fits(value)

    def __str__(self) -> str:
        return self.text


def parse_text(text: str) -> TextPattern | RegexPattern:
    """A glob, or a regular expression between slashes. Raises ValueError.

    Device texts are sanitized (core/usb/sanitize) before they are compared. An unprintable character in a pattern would
    never match, and commands that show the rule would print it to the terminal.
    """
    if not text.isprintable():
        raise ValueError(f"{text!r} contains a control character, which never matches a device; remove it")
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        return RegexPattern.parse(text)
    return TextPattern.parse(text)


@dataclass(frozen=True, slots=True)
class BdfPattern:
    """`0000:00:14.0`: the PCI address of a host controller, hex, case-insensitive; the domain may be omitted."""

    bdf: str

    @classmethod
    def parse(cls, text: str) -> Self:
        found = BDF_TEXT.match(text)
        if not found:
            raise ValueError(f"{text!r} is not a PCI address; write it like 0000:00:14.0 (see `lspci -D`)")
        domain, bus, slot, function = (part or "0" for part in found.groups())
        return cls(f"{domain:0>4}:{bus:0>2}:{slot:0>2}.{function}".lower())

    def admits(self, value: str) -> bool:
        return value == self.bdf

    def __str__(self) -> str:
        return self.bdf


@dataclass(frozen=True, slots=True)
class RevisionPattern:
    """`1.10`, or `0110` as in sysfs' bcdDevice: the device's own release number."""

    revision: str

    @classmethod
    def parse(cls, text: str) -> Self:
        found = REVISION.match(text)
        if not found:
            raise ValueError(f"{text!r} is not a revision; write it like 1.10 or 0110 (bcdDevice in `lsusb -v`)")
        major = (found[1] or found[2]).lstrip("0") or "0"
        return cls(f"{major}.{found[3]}".lower())

    def admits(self, value: str) -> bool:
        return value == self.revision

    def __str__(self) -> str:
        return self.revision


@dataclass(frozen=True, slots=True)
class WordPattern:
    """One word of a closed list (kind, speed, removable)."""

    word: str

    def admits(self, value: str) -> bool:
        return value == self.word

    def __str__(self) -> str:
        return self.word


KINDS: Mapping[str, str] = {
    "keyboard": "a keyboard (HID boot protocol)",
    "mouse": "a mouse (HID boot protocol)",
    "gamepad": "a game controller",
    "storage": "a stick, disk or card reader",
    "printer": "a printer",
    "audio": "a sound card, headset or microphone",
    "video": "a camera or capture card",
    "smartcard": "a smart card reader or token",
    "net": "a network adapter",
    "bluetooth": "a Bluetooth adapter",
    "serial": "a serial adapter or modem",
    "phone": "a phone or camera in picture transfer mode",
    "hub": "a hub",
}
"""Kinds by name, with the words `xenplug` uses for them. How they are detected: core/usb/kinds."""


def parse_kind(text: str) -> WordPattern:
    """A kind by its name; ValueError lists the kinds."""
    if text not in KINDS:
        raise ValueError(f"{text!r} is not a kind of device; write one of {', '.join(sorted(KINDS))}")
    return WordPattern(text)


def parse_speed(text: str) -> WordPattern:
    """A speed by its name; ValueError lists the speeds."""
    return _word(text, list(Speed), "speed")


def parse_fingerprint(text: str) -> WordPattern:
    """SHA-256 of a device's descriptors; ValueError if it is not written as `devices --json` prints it."""
    found = re.fullmatch("sha256:[0-9a-f]{64}", text.lower())
    if not found:
        raise ValueError(
            f"{text!r} is not a fingerprint; write sha256: and 64 hex digits, as `xenplug devices --json` prints it"
        )
    return WordPattern(found[0])


def parse_removable(text: str) -> WordPattern:
    """The firmware's word for a socket (sysfs `removable`); ValueError lists the words."""
    return _word(text, ["removable", "fixed", "unknown"], "value of `removable`")


def _word(text: str, words: Sequence[str], what: str) -> WordPattern:
    if text not in words:
        raise ValueError(f"{text!r} is not a {what}; write one of {', '.join(words)}")
    return WordPattern(text)
