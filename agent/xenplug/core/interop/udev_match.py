"""A policy's match keys as udev rules: each key becomes a list of alternatives, one of which must hold.

udev_rules makes lines of them. A key is translated only if the result has exactly the same meaning; otherwise
Inexpressible is raised. Only `_is` and `_is_not` write quoted text, so no text of a policy can leave its quotes.
Source: udev(7) of systemd 252; ID_USB_INTERFACES is systemd's src/udev/udev-builtin-usb_id.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import prod

from xenplug.core.policy.glob import ANY_TEXT, Piece, read_glob
from xenplug.core.policy.patterns import RegexPattern
from xenplug.core.policy.rules import Condition
from xenplug.core.usb.kinds import (
    HID_GAMEPADS,
    KIND_BY_CLASS,
    KIND_BY_PROPERTY,
    KIND_BY_SUBCLASS,
    KIND_BY_TRIPLE,
    SERIAL_CHIPS,
    VENDOR,
)

MAX_ALTERNATIVES = 64
"""The most alternatives of one key, and the most lines of one rule."""

UdevTerm = tuple[str, ...]
"""Expressions that must hold together."""
UdevGlob = tuple[str, ...]
"""A class triple as six hex digits, each a digit, `?`, or a negated set of digits."""

INTERFACE_LIST = "ENV{ID_USB_INTERFACES}"
USB2 = "1.5|12|480"
UDEV_SPEEDS = {"low": "1.5", "full": "12", "high": "480", "super": "5000", "super+": "10000|20000"}

_SAFE = re.compile(r"[ -~]*\Z")
_REFUSED = re.compile(r'["\\$%]')


class Inexpressible(Exception):
    """A condition that udev cannot express with exactly the same meaning; the text is the reason."""


def terms(condition: Condition, *, protect: bool = False) -> list[UdevTerm]:
    """The alternatives of one key. `protect`: the key is in an entry of `protect`, where udev's own paths count too."""
    if condition.groups:
        raise Inexpressible(f"udev cannot test `{condition.key}`")
    if any(isinstance(pattern, RegexPattern) for pattern in condition.patterns):
        raise Inexpressible("udev does not support regular expressions")
    values = [str(pattern) for pattern in condition.patterns]
    if condition.key == "path" and not protect:
        return [(*term, _is("ATTR{speed}", USB2)) for term in UDEV_FORMS["path"](values)]
    return UDEV_FORMS[condition.key](values)


def _quoted(text: str) -> str:
    if not _SAFE.match(text) or _REFUSED.search(text):
        raise Inexpressible(f"{text!r} contains characters that are not possible in a udev rule")
    return f'"{text}"'


def _is(key: str, *values: str) -> str:
    return f"{key}=={_quoted('|'.join(values))}"


def _is_not(key: str, *values: str) -> str:
    return f"{key}!={_quoted('|'.join(values))}"


def _one_of(key: str) -> Callable[[Sequence[str]], list[UdevTerm]]:
    return lambda values: [(_is(key, *values),)]


def _device(tags: Sequence[str]) -> list[UdevTerm]:
    products: dict[str, list[str]] = {}
    for vendor, _, product_ in (tag.partition(":") for tag in tags):
        products.setdefault(vendor, []).append(product_)
    return [_tag(vendor, listed) for vendor, listed in products.items()]


def _tag(vendor: str, products: Iterable[str]) -> UdevTerm:
    vendor_is = _is("ATTR{idVendor}", "?*" if vendor == "*" else vendor)
    return (vendor_is,) if "*" in products else (vendor_is, _is("ATTR{idProduct}", *products))


def _address(addresses: Sequence[str]) -> list[UdevTerm]:
    parts = [address.split(".") for address in addresses]
    return [(_is("ATTR{busnum}", bus), _is("ATTR{devnum}", number)) for bus, number in parts]


def _controller(bdfs: Sequence[str]) -> list[UdevTerm]:
    return [(_is("SUBSYSTEMS", "pci"), _is("KERNELS", *bdfs))]


def _text(key: str) -> Callable[[Sequence[str]], list[UdevTerm]]:
    return lambda globs: [(_is(key, *map(any_case, globs)),)]


def any_case(glob: str) -> str:
    """A case-insensitive glob in udev's case-sensitive globs (systemd 252 has no i"..."). Raises Inexpressible."""
    return "*".join("".join(_piece(piece, glob) for piece in segment.pieces) for segment in read_glob(glob).segments)


def _piece(piece: Piece, glob: str) -> str:
    if isinstance(piece, str):
        return "".join(_char(char, glob) for char in piece)
    if piece == ANY_TEXT:
        return "?"
    # udev uses glibc's fnmatch(3), which reads ^ as !, has classes like [:alpha:] and reads \\ as an escape. A range
    # from a digit to a letter also contains the capitals.
    plain = [low <= high and (low + high).isalnum() and low.isdigit() == high.isdigit() for low, high in piece.ranges]
    members = "".join(low if low == high else f"{low}-{high}" for low, high in piece.ranges)
    if piece.both_cases or not members.isascii() or not all(plain):
        raise Inexpressible(f"{glob!r}: udev cannot match this [set] without regard to case")
    return f"[{'!' * piece.negated}{''.join(dict.fromkeys((members, members.upper())))}]"


def _char(char: str, glob: str) -> str:
    if char in "[]|" or not char.isascii():
        raise Inexpressible(f"{glob!r} contains {char!r}, which has another meaning in udev")
    return f"[{char}{char.upper()}]" if char.isalpha() else char


def _revision(revisions: Sequence[str]) -> list[UdevTerm]:
    parts = [revision.split(".") for revision in revisions]
    return [(_is("ATTR{bcdDevice}", *(f"{major:0>2}{minor:0>2}" for major, minor in parts)),)]


def _class(triples: Sequence[str]) -> list[UdevTerm]:
    return [_class_is(_glob(triple)) for triple in triples]


def _class_is(glob: UdevGlob) -> UdevTerm:
    """A test of the device descriptor's class."""
    names = ("ATTR{bDeviceClass}", "ATTR{bDeviceSubClass}", "ATTR{bDeviceProtocol}")
    bytes_ = ("".join(glob[i : i + 2]) for i in (0, 2, 4))
    return tuple(_is(name, byte) for name, byte in zip(names, bytes_, strict=True) if byte != "??")


def _glob(triple: str) -> UdevGlob:
    return tuple("".join("??" if part == "*" else part for part in triple.split(":")))


def _within(globs: Iterable[UdevGlob]) -> list[str]:
    """The globs as parts of ID_USB_INTERFACES, ":030101:030102:"."""
    return [f"*:{''.join(glob)}:*" for glob in globs]


def _interface(triples: Sequence[str]) -> list[UdevTerm]:
    return [(_is(INTERFACE_LIST, *_within(map(_glob, triples))),)]


def _interfaces(triples: Sequence[str]) -> list[UdevTerm]:
    """Every interface matches: there is at least one, and none of them is outside all the triples."""
    outside = but(("?",) * 6, [_glob(triple) for triple in triples])
    return [(_is(INTERFACE_LIST, "?*"), _is_not(INTERFACE_LIST, *_within(outside)))]


def but(base: UdevGlob, others: Iterable[UdevGlob]) -> list[UdevGlob]:
    """Globs for the triples that match `base` and none of `others`. Raises Inexpressible if there are too many."""
    meeting = [o for o in others if all("?" in (b, d) or b == d for b, d in zip(base, o, strict=True))]
    ways = [[i for i in range(6) if other[i] != "?" and base[i] == "?"] for other in meeting]
    if prod(map(len, ways)) > MAX_ALTERNATIVES:
        raise Inexpressible("these class triples together need too many patterns")
    return list(dict.fromkeys(_avoiding(base, zip(places, meeting, strict=True)) for places in product(*ways)))


def _avoiding(base: UdevGlob, choices: Iterable[tuple[int, UdevGlob]]) -> UdevGlob:
    """`base`, but at each chosen place without the digit of the other glob."""
    barred: dict[int, set[str]] = {}
    for place, other in choices:
        barred.setdefault(place, set()).add(other[place])
    return tuple(f"[!{''.join(sorted(barred[i]))}]" if i in barred else digit for i, digit in enumerate(base))


def _kinds(kinds: Sequence[str]) -> list[UdevTerm]:
    return list(dict.fromkeys(term for kind in kinds for term in _kind(kind)))


def _kind(kind: str) -> Iterator[UdevTerm]:
    """The tests by which core/usb/kinds detects a kind."""
    globs = list(dict.fromkeys(globs_of(kind)))
    if globs:
        yield (_is(INTERFACE_LIST, *_within(globs)),)
        yield from map(_class_is, globs)
    if kind == "serial":
        yield from _listed(SERIAL_CHIPS, f"{VENDOR:02x}")
    if kind == "gamepad":
        yield from _listed(HID_GAMEPADS, "03")
    yield from ((_is(f"ENV{{{name}}}", "1"),) for name, other in KIND_BY_PROPERTY.items() if other == kind)


TRIPLES: Mapping[UdevGlob, str] = {
    **{tuple(str(triple).replace(":", "")): kind for triple, kind in KIND_BY_TRIPLE.items()},
    **{(*f"{class_:02x}{subclass:02x}", "?", "?"): kind for (class_, subclass), kind in KIND_BY_SUBCLASS.items()},
    **{(*f"{class_:02x}", *"????"): kind for class_, kind in KIND_BY_CLASS.items()},
}
"""The kinds by class triple, as globs."""


def globs_of(kind: str) -> Iterator[UdevGlob]:
    """The globs of a kind, without the triples that a more specific glob assigns to another kind."""
    for glob, other in TRIPLES.items():
        if other == kind:
            closer = [g for g, k in TRIPLES.items() if k != kind and g.count("?") < glob.count("?")]
            yield from but(glob, closer)


def _listed(table: Mapping[str, frozenset[str] | None], class_: str) -> Iterator[UdevTerm]:
    whole = [vendor for vendor, products in table.items() if products is None]
    tags: list[UdevTerm] = [(_is("ATTR{idVendor}", *whole),)] if whole else []
    tags += [_tag(vendor, sorted(products)) for vendor, products in table.items() if products]
    for tag in tags:
        yield (*tag, _is(INTERFACE_LIST, f"*:{class_}????:*"))
        yield (*tag, _is("ATTR{bDeviceClass}", class_))


def _fingerprint(_values: Sequence[str]) -> list[UdevTerm]:
    raise Inexpressible("udev cannot compute a device's fingerprint")


UDEV_FORMS: Mapping[str, Callable[[Sequence[str]], list[UdevTerm]]] = {
    "device": _device,
    "address": _address,
    "port": _one_of("KERNEL"),
    "path": _one_of("ENV{ID_PATH}"),
    "controller": _controller,
    "serial": _text("ATTR{serial}"),
    "manufacturer": _text("ATTR{manufacturer}"),
    "product": _text("ATTR{product}"),
    "class": _class,
    "interface": _interface,
    "interfaces": _interfaces,
    "kind": _kinds,
    "speed": lambda speeds: [(_is("ATTR{speed}", *(UDEV_SPEEDS[speed] for speed in speeds)),)],
    "revision": _revision,
    "removable": _one_of("ATTR{removable}"),
    "descriptors": _fingerprint,
}
"""The translation of each match key."""
