"""XCP-ng's and XenServer's usb-policy.conf -> rules that allow and deny exactly the same devices.

The meaning of the file (xen-api, python3/libexec/usb_scan.py): each line is ALLOW or DENY with keys that must all hold.
The first line that matches an interface decides for it; an interface that no line matches is denied. A device may be
passed through only if all its interfaces are allowed, and hubs never. So for each set of devices that the lines
distinguish (vid, pid, rel) there is a set of allowed class triples, written as `interfaces:` or
`not: {interface: …}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from xenplug.core.documents.problems import Problem, shown

Triple = tuple[int | None, int | None, int | None]
"""Class, subclass and protocol; None is any."""
Devices = frozenset[tuple[str, str]]
"""vid, pid and rel of a line."""

PAIR = re.compile(r"\s*(class|subclass|prot|vid|pid|rel)\s*=\s*([0-9a-f]+)", re.IGNORECASE)
WIDTH = {"class": 2, "subclass": 2, "prot": 2, "vid": 4, "pid": 4, "rel": 4}
ANY_TRIPLE: Triple = (None, None, None)
HUB_CLASS_TEXT: Triple = (9, None, None)
MAX_RULES = 5_000
"""The most patterns of one rule: the complement of a pattern needs 255 patterns for each of its parts."""


@dataclass(frozen=True, slots=True)
class Line:
    """One rule of the file."""

    number: int
    allow: bool
    devices: Devices
    triple: Triple


def read(text: str, file: str) -> tuple[list[Line], list[Problem]]:
    """The lines of a usb-policy.conf, and the problems of those that cannot be read."""
    lines: list[Line] = []
    problems: list[Problem] = []
    for number, raw in enumerate(text.splitlines(), 1):
        content = raw.partition("#")[0].strip()
        if not content:
            continue
        try:
            lines.append(_line(number, content))
        except ValueError as error:
            problems.append(Problem(file, number, 1, "", str(error)))
    return lines, problems


def _line(number: int, content: str) -> Line:
    action, colon, target = (part.strip() for part in content.partition(":"))
    if not colon or ":" in target or action.lower() not in ("allow", "deny"):
        raise ValueError(f"{shown(content)} is not a rule; write ALLOW: or DENY: and keys like vid=046d class=03")
    pairs: dict[str, str] = {}
    at = 0
    for found in PAIR.finditer(target):
        key, value = found[1].lower(), found[2].lower()
        if found.start() != at or len(value) != WIDTH[key] or key in pairs:
            break
        pairs[key], at = value, found.end()
    if at != len(target):
        raise ValueError(
            f"{shown(target[at:].strip())} cannot be read; write each key once, with two hex digits for class, "
            "subclass and prot, and four for vid, pid and rel"
        )
    triple = tuple(int(pairs[key], 16) if key in pairs else None for key in ("class", "subclass", "prot"))
    devices = frozenset((key, value) for key, value in pairs.items() if key in ("vid", "pid", "rel"))
    return Line(number, action.lower() == "allow", devices, (triple[0], triple[1], triple[2]))


def carried(lines: Sequence[Line], file: str) -> tuple[list[Line], list[Problem]]:
    """The lines that a policy can express, and warnings for the others.

    A policy cannot express a pid without its vid. Such a DENY is widened and such an ALLOW is omitted, so the policy
    never allows more than the file.
    """
    kept: list[Line] = []
    problems: list[Problem] = []
    for line in lines:
        keys = {key for key, _ in line.devices}
        if "pid" not in keys or "vid" in keys:
            kept.append(line)
            continue
        effect = "is omitted" if line.allow else "now denies these interfaces of every product"
        message = f"a policy cannot express pid= without vid=, so this line {effect}; add vid="
        problems.append(Problem(file, line.number, 1, "", message, "warning"))
        if not line.allow:
            kept.append(Line(line.number, False, frozenset(d for d in line.devices if d[0] != "pid"), line.triple))
    for cell in cells(kept):
        if allowed(kept, cell) == (None, None):
            last = max(line.number for line in kept if line.devices <= cell)
            message = (
                f"too many nested exceptions by class, subclass and prot, so {_named(cell)} is denied completely; name "
                "the class in these lines"
            )
            problems.append(Problem(file, last, 1, "", message, "warning"))
    return kept, problems


def cells(lines: Iterable[Line]) -> list[Devices]:
    """The sets of devices to distinguish, the narrowest first: those of the lines, and their intersections."""
    found: set[Devices] = set()
    for line in lines:
        found |= {line.devices, *(both for cell in found if (both := _both(cell, line.devices)) is not None)}
    return sorted(found | {frozenset()}, key=lambda cell: (-len(cell), sorted(cell)))


def _both(one: Devices, other: Devices) -> Devices | None:
    values = dict(one)
    return one | other if all(values.get(key, value) == value for key, value in other) else None


def allowed(lines: Sequence[Line], cell: Devices) -> tuple[list[Triple] | None, list[Triple] | None]:
    """For the devices of a cell (and of no narrower one): the allowed triples, and the denied ones; None instead of
    a list that would be too long.
    """
    first, last = Line(0, False, frozenset(), HUB_CLASS_TEXT), Line(0, False, frozenset(), ANY_TRIPLE)
    ruling = [first, *(line for line in lines if line.devices <= cell), last]
    return _decided(ruling, True), _decided(ruling, False)


def _decided(ruling: Sequence[Line], allow: bool) -> list[Triple] | None:
    """The triples that lines with this action decide: each without those of earlier lines with the other action."""
    found: list[Triple] = []
    for at, line in enumerate(ruling):
        if line.allow is not allow:
            continue
        rest = list(_with_class(line.triple))
        for earlier in ruling[:at]:
            if earlier.allow is not allow:
                rest = list(islice(minus(rest, earlier.triple), MAX_RULES + 1))
            if len(found) + len(rest) > MAX_RULES:
                return None
        found += rest
    return list(dict.fromkeys(found))


def _with_class(triple: Triple) -> Iterator[Triple]:
    """The triple with each class, because a policy's patterns must name a class."""
    yield from ((n, *triple[1:]) for n in (range(256) if triple[0] is None else [triple[0]]))


def _meet(one: Triple, other: Triple) -> Triple | None:
    parts: list[int | None] = []
    for a, b in zip(one, other, strict=True):
        if a is not None and b is not None and a != b:
            return None
        parts.append(b if a is None else a)
    return parts[0], parts[1], parts[2]


def minus(triples: Iterable[Triple], other: Triple) -> Iterator[Triple]:
    """The part of the triples outside `other`, as triples that exclude each other."""
    for triple in triples:
        if _meet(triple, other) is None:
            yield triple
            continue
        head: list[int | None] = list(triple)
        for place, barred in enumerate(other):
            if barred is None or head[place] is not None:
                continue
            for value in range(256):
                if value != barred:
                    yield _with(head, place, value)
            head[place] = barred


def _with(head: Sequence[int | None], place: int, value: int) -> Triple:
    parts = [*head[:place], value, *head[place + 1 :]]
    return parts[0], parts[1], parts[2]


def rules(lines: Sequence[Line], guest: str) -> Iterator[Mapping[str, object]]:
    """Rules of a policy: for each cell one that attaches the allowed devices, and one that stops wider cells."""
    for cell in cells(lines):
        named = _named(cell)
        yes, no = allowed(lines, cell)
        match = _devices(cell)
        if (yes or yes is None) and (interfaces := _interfaces(yes, no)):
            yield {"name": f"{named}: allowed", "match": match | interfaces, "attach": guest}
        if cell:
            yield {"name": f"{named}: denied", "match": match, "action": "host"}


def _named(cell: Devices) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(cell, reverse=True)) or "anything else"


def _devices(cell: Devices) -> dict[str, object]:
    values = dict(cell)
    match: dict[str, object] = {"device": f"{values['vid']}:{values.get('pid', '*')}"} if "vid" in values else {}
    return match | ({"revision": values["rel"]} if "rel" in values else {})


def _interfaces(yes: Sequence[Triple] | None, no: Sequence[Triple] | None) -> dict[str, object]:
    """The match "every interface is allowed", by allowed or denied triples, the shorter list; empty without either."""
    if yes is not None and (no is None or len(yes) <= len(no)):
        return {"interfaces": _written(yes)}
    return {} if no is None else {"not": {"interface": _written(no)}}


def _written(triples: Iterable[Triple]) -> list[str]:
    return [":".join("*" if part is None else f"{part:02x}" for part in triple) for triple in triples]
