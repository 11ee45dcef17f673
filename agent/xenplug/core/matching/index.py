"""An index of a policy's rules by the values of a device: its tag, then its place, then the rest.

Each rule is filed once, under the most selective key of its match, for every value of that key. A device is looked up
by its own values, so of ten thousand rules only those that match in that key are tried. Globs and regular expressions
are tried only if the text contains their literal part. Rules that cannot be filed (with only `not`, for example) are
always tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import merge

from xenplug.core.model import Device
from xenplug.core.policy.patterns import RegexPattern, TagPattern, TextPattern
from xenplug.core.policy.rules import Condition
from xenplug.core.usb.hubs import removable

Term = tuple[str, str]
"""A match key and one of its values."""

BEST_FIRST = (
    "descriptors", "device", "path", "port", "address", "serial", "product", "revision", "manufacturer", "interfaces",
    "interface",
    "class", "kind", "controller", "speed", "removable",
)  # fmt: skip
"""Keys that rules can be filed under, the most selective first."""
TEXTS = ("serial", "product", "manufacturer")


class Index:
    """The matches of a policy's rules, by number."""

    def __init__(self, rules: Iterable[Sequence[Condition]]) -> None:
        self._filed: dict[str, dict[str, list[int]]] = {}
        """Rule numbers by key and value."""
        self._texts: dict[str, list[tuple[int, str]]] = {key: [] for key in TEXTS}
        """By key: the rule, and a literal that every text it can match contains."""
        self._always: list[int] = []
        for number, conditions in enumerate(rules):
            self._file(number, conditions)

    def _file(self, number: int, conditions: Sequence[Condition]) -> None:
        terms = _terms(conditions)
        if terms is not None:
            for key, value in terms:
                self._filed.setdefault(key, {}).setdefault(value, []).append(number)
            return
        for condition in conditions:
            if condition.key in TEXTS:
                held = {_held(pattern) for pattern in condition.patterns}
                self._texts[condition.key] += [(number, text) for text in sorted(held)]
                return
        self._always.append(number)

    def candidates(self, device: Device) -> Iterator[int]:
        """The rules that may match, in their order (a rule can occur twice)."""
        lists = [rules[v] for key, rules in self._filed.items() for v in VALUES[key](device) if v in rules]
        for key, entries in self._texts.items():
            value = getattr(device, key)
            if value is not None and entries:
                text = value.casefold()
                lists.append([number for number, held in entries if held in text])
        return merge(*lists, self._always)


def _terms(conditions: Sequence[Condition]) -> set[Term] | None:
    """The terms that a match is filed under; None if it has no suitable key."""
    by_key = {condition.key: condition for condition in conditions}
    for key in BEST_FIRST:
        if key in by_key and (terms := _filed_under(by_key[key])) is not None:
            return terms
    groups = [_terms(group) for condition in conditions if condition.key == "any" for group in condition.groups]
    found = [terms for terms in groups if terms is not None]
    # A match has at most one `any`, so these are the groups of one.
    return set().union(*found) if groups and len(found) == len(groups) else None


def _filed_under(condition: Condition) -> set[Term] | None:
    """Every value that the key's patterns admit; None if one of them admits an open set."""
    values = [_value(pattern) for pattern in condition.patterns]
    key = "interface" if condition.key == "interfaces" else condition.key
    return {(key, value) for value in values if value} if all(values) else None


def _value(pattern: object) -> str | None:
    if isinstance(pattern, TagPattern) and pattern.vendor is None:
        return None
    if isinstance(pattern, RegexPattern):
        return None
    if isinstance(pattern, TextPattern):
        return pattern.glob.exact
    return str(pattern)


def _held(pattern: object) -> str:
    """A casefolded text that every text the pattern matches contains; "" if there is none."""
    if isinstance(pattern, RegexPattern):
        return pattern.regex.literal
    return pattern.glob.literal if isinstance(pattern, TextPattern) else ""


def _tags(device: Device) -> tuple[str, str]:
    return device.tag, f"{device.tag.partition(':')[0]}:*"


def _places(place: str | None) -> Iterator[str]:
    """The place itself, and the subtrees that contain it: `1-4.2`, `1-4.*`."""
    if place is None:
        return
    yield place
    while "." in place:
        place = place.rpartition(".")[0]
        yield f"{place}.*"


def _triples(triple: str) -> Iterator[str]:
    class_, subclass, protocol = triple.split(":")
    yield triple
    yield f"{class_}:*:{protocol}"
    yield f"{class_}:{subclass}:*"
    yield f"{class_}:*:*"


def _interfaces(device: Device) -> Iterable[str]:
    """All values for all interfaces: `interfaces` must match the first one, `interface` any of them."""
    return dict.fromkeys(value for triple in device.interfaces for value in _triples(str(triple)))


def _text(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value.casefold(),)


def _word(value: str | None) -> tuple[str, ...]:
    return () if value is None else (str(value),)


VALUES: Mapping[str, Callable[[Device], Iterable[str]]] = {
    "descriptors": lambda device: _word(device.fingerprint),
    "device": _tags,
    "path": lambda device: _places(device.path),
    "port": lambda device: _places(device.port),
    "address": lambda device: (device.address,),
    "serial": lambda device: _text(device.serial),
    "product": lambda device: _text(device.product),
    "revision": lambda device: _word(device.revision),
    "manufacturer": lambda device: _text(device.manufacturer),
    "interface": _interfaces,
    "class": lambda device: _triples(str(device.device_class)),
    "kind": lambda device: device.kinds,
    "controller": lambda device: _word(device.controller),
    "speed": lambda device: _word(device.speed),
    "removable": lambda device: _word(removable(device)),
}
"""The values that a device is looked up by, for each key that rules are filed under."""
