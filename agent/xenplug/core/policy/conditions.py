"""A `match` mapping -> Conditions: each value is parsed in the form of its key.

The schema checks the keys and the shape of the mapping. This module parses the values that are there, and reports
those that do not have the form of their key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from xenplug.core.documents.node import Node
from xenplug.core.documents.problems import Path, shown
from xenplug.core.documents.report import Report
from xenplug.core.policy import patterns
from xenplug.core.policy.patterns import Pattern
from xenplug.core.policy.rules import Condition

MAX_VALUE = 255
"""Characters; the longest string of a USB device has 126 (USB 2.0, 9.6.7)."""

FORMS: Mapping[str, Callable[[str], Pattern]] = {
    "device": patterns.TagPattern.parse,
    "address": patterns.AddressPattern.parse,
    "port": patterns.PlacePattern.parse_port,
    "path": patterns.PlacePattern.parse_path,
    "controller": patterns.BdfPattern.parse,
    "serial": patterns.parse_text,
    "manufacturer": patterns.parse_text,
    "product": patterns.parse_text,
    "class": patterns.InterfacePattern.parse,
    "interface": patterns.InterfacePattern.parse,
    "interfaces": patterns.InterfacePattern.parse,
    "kind": patterns.parse_kind,
    "speed": patterns.parse_speed,
    "revision": patterns.RevisionPattern.parse,
    "removable": patterns.parse_removable,
    "descriptors": patterns.parse_fingerprint,
}


NESTED = ("not", "any", "below")
"""Keys whose values are matches themselves."""


def conditions(match: Node, path: Path, report: Report) -> tuple[Condition, ...]:
    """The conditions of a match mapping, in the order of the file."""
    return tuple(
        _nested(key, value, [*path, key], report)
        if key in NESTED
        else Condition(key, tuple(_patterns(key, value, [*path, key], report)))
        for key, value in match.mapping.items()
        if key in FORMS or key in NESTED
    )


def _nested(key: str, value: Node, path: Path, report: Report) -> Condition:
    if key != "any":
        return Condition(key, (), (conditions(value, path, report),))
    groups = (conditions(entry, [*path, index], report) for index, entry in enumerate(value.items))
    return Condition(key, (), tuple(groups))


def _patterns(key: str, value: Node, path: Path, report: Report) -> Iterator[Pattern]:
    for index, entry in enumerate(value.one_or_more):
        text = entry.text
        if text is None:
            continue
        try:
            yield _pattern(key, text)
        except ValueError as error:
            report.add(entry.position, path if entry is value else [*path, index], str(error))


def _pattern(key: str, text: str) -> Pattern:
    if len(text) > MAX_VALUE:
        raise ValueError(f"{shown(text)} is {len(text)} characters long; write at most {MAX_VALUE}")
    return FORMS[key](text)
