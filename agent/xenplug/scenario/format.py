"""The scenario file, one format for `simulate`, policy tests, bench and lab: text -> Scenario.

Read strictly, like every document, and turned into the values that the floors use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from xenplug.core.documents.document import Node, Problem, plain, read, schema
from xenplug.core.documents.units import duration
from xenplug.core.model import Bdf, BusId, ControllerType, Device, GuestType, Interface, Speed, Tag, Use
from xenplug.core.policy.patterns import InterfacePattern, RevisionPattern
from xenplug.core.policy.rules import ControllerSpec
from xenplug.core.usb.hubs import is_hub, says_hub
from xenplug.core.usb.sanitize import sanitize
from xenplug.simulator.answers import XlRefusal
from xenplug.simulator.sockets import Bus, HostController
from xenplug.simulator.xl_usb import complete_controller

NodePlace = tuple[Node, str]
"""A node and its path in the file."""

FLOORS = ("sim", "bench", "lab")
KIND_INTERFACES: Mapping[str, tuple[Interface, ...]] = {
    "keyboard": (Interface(3, 1, 1),),
    "mouse": (Interface(3, 1, 2),),
    "gamepad": (Interface(0xFF, 0x5D, 0x01),),
    "storage": (Interface(8, 6, 0x50),),
    "printer": (Interface(7, 1, 2),),
    "audio": (Interface(1, 1, 0), Interface(1, 2, 0)),
    "video": (Interface(0x0E, 1, 0), Interface(0x0E, 2, 0)),
    "smartcard": (Interface(0x0B, 0, 0),),
    "net": (Interface(2, 6, 0), Interface(0x0A, 0, 0)),
    "bluetooth": (Interface(0xE0, 1, 1),),
    "serial": (Interface(2, 2, 1), Interface(0x0A, 0, 0)),
    "phone": (Interface(6, 1, 1),),
    "hub": (Interface(9, 0, 0),),
}
"""The interfaces that `kind` in a scenario means: those that a device of this kind usually has."""

HUB_TRIPLE = Interface(9, 0, 1)
STREAMING = frozenset({"audio", "video"})
"""Kinds whose devices have isochronous endpoints."""

YES = frozenset({"true", "yes"})
MAX_DURATION = 7 * 24 * 3600.0
"""Maximum seconds of one wait in a scenario; otherwise a test could run for ever."""


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One entry of the timeline: a verb and its value, as plain strings, lists and mappings."""

    verb: str
    value: Any
    line: int


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """A guest of the scenario."""

    type: GuestType
    running: bool = True
    frontend: bool | None = None
    controllers: tuple[Mapping[str, str], ...] = ()
    device_model: bool | None = None
    passthrough: bool = False
    kept: bool = False
    boots_in: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario, read."""

    file: str
    name: str
    policy: str | Node
    """A path as written in the file, or the policy itself."""
    timeline: tuple[TimelineEvent, ...]
    floors: tuple[str, ...] = FLOORS
    controllers: tuple[HostController, ...] = ()
    devices: tuple[Device, ...] = ()
    guests: Mapping[str, GuestSpec] = field(default_factory=lambda: MappingProxyType({}))
    iommu: bool = True


def default_controllers() -> tuple[HostController, ...]:
    """One xHCI as in most machines: eight USB 2 ports, four of them with a SuperSpeed side."""
    peers = {BusId(f"2-{n}"): BusId(f"1-{n}") for n in range(1, 5)}
    buses = {1: Bus(8), 2: Bus(4, Speed.SUPER)}
    return (HostController(buses=buses, bdf=Bdf("0000:00:14.0"), peers=peers),)


def load(text: bytes, file: str) -> tuple[Scenario | None, list[Problem]]:
    """The scenario, or all problems of the file."""
    node, problems = read(text, file, schema("scenario"))
    if node is None or problems:
        return None, problems
    problems = _meaning(node, file)
    return (None, problems) if problems else (_scenario(node, file), [])


def _meaning(node: Node, file: str) -> list[Problem]:
    """Checks that a schema cannot express: durations, bus numbers, kinds that contradict interfaces."""
    events = list(_events(node.mapping["timeline"], "timeline"))
    checks: list[tuple[Iterable[NodePlace], Callable[[Node], object]]] = [
        (_device_nodes(node, events), lambda spec: device(plain(spec))),
        (_durations(node, events), lambda value: seconds(value.text or "")),
        (_at(node, "host", "controllers", "*"), lambda controller: _controller(plain(controller))),
        (_at(node, "guests", "*", "controllers", "*"), lambda controller: controller_spec(plain(controller))),
        (((e, path) for e, path in events if "].together[" in path), _at_one_instant),
        (_texts(node, ""), _printable),
    ]
    problems = [problem for places, check in checks for problem in _wrong(places, check, file)]
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


def _wrong(places: Iterable[NodePlace], check: Callable[[Node], object], file: str) -> Iterator[Problem]:
    for place, path in places:
        try:
            check(place)
        except ValueError as error:
            yield Problem(file, place.line, place.column, path, str(error))


def guest_problems(guests: Node, file: str) -> list[Problem]:
    """Checks on a file of guests that its schema cannot express."""
    return list(_wrong(_at(guests, "*", "boots_in"), lambda value: seconds(value.text or ""), file))


def _at(node: Node, *steps: str, path: str = "") -> Iterator[NodePlace]:
    """The nodes at a path, as far as it exists; `*` is any entry."""
    if not steps:
        yield node, path.removeprefix(".")
    elif steps[0] == "*":
        entries = [(f"[{i}]", item) for i, item in enumerate(node.items)]
        for step, child in entries or [(f".{key}", child) for key, child in node.mapping.items()]:
            yield from _at(child, *steps[1:], path=path + step)
    elif steps[0] in node.mapping:
        yield from _at(node.mapping[steps[0]], *steps[1:], path=f"{path}.{steps[0]}")


def _events(timeline: Node, path: str) -> Iterator[NodePlace]:
    """Every event, including those in `together`."""
    for event, here in _at(timeline, "*", path=path):
        yield event, here
        for together, below in _at(event, "together", path=here):
            yield from _events(together, below)


def _device_nodes(node: Node, events: Iterable[NodePlace]) -> Iterator[NodePlace]:
    found = list(_at(node, "host", "devices", "*"))
    for event, path in events:
        found += _at(event, "plug", path=path)
    while found:
        spec, path = found.pop()
        yield spec, path
        found += _at(spec, "children", "*", path=path)


def _durations(node: Node, events: Iterable[NodePlace]) -> Iterator[NodePlace]:
    yield from _at(node, "guests", "*", "boots_in")
    for event, path in events:
        yield from _at(event, "wait", path=path)
        yield from _at(event, "suspend", path=path)
        yield from _at(event, "expect", "within", path=path)


def _texts(node: Node, path: str) -> Iterator[NodePlace]:
    """Every text and key, except for those of a policy, which its own loader checks."""
    if node.text is not None:
        yield node, path.removeprefix(".")
    for number, item in enumerate(node.items):
        yield from _texts(item, f"{path}[{number}]")
    for key, child in node.mapping.items():
        yield Node(key, *node.key(key)), path.removeprefix(".")
        if key not in ("policy", "reload") or child.text is not None:
            yield from _texts(child, f"{path}.{key}")


def _printable(node: Node) -> None:
    """Refuse control characters: scenarios may come from other people, and are printed on a terminal. Devices' texts
    are sanitized in any case.
    """
    if not (node.text or "").isprintable():
        raise ValueError(f"{node.text!r} contains a control character; remove it")


def _at_one_instant(event: Node) -> None:
    if "expect" in event.mapping:
        raise ValueError("expect takes time, but together is one instant; put it after")


def _scenario(node: Node, file: str) -> Scenario:
    top = node.mapping
    host = plain(top["host"]) if "host" in top else {}
    policy = top["policy"]
    return Scenario(
        file=file,
        name=str(top["name"].text),
        policy=policy.text if policy.text is not None else policy,
        timeline=tuple(_event(entry) for entry in top["timeline"].items),
        floors=tuple(plain(top["floors"])) if "floors" in top else FLOORS,
        controllers=tuple(_controller(c) for c in host.get("controllers", ())) or default_controllers(),
        devices=tuple(d for spec in host.get("devices", ()) for d in family(spec)),
        guests=guest_specs(plain(top["guests"])) if "guests" in top else {},
        iommu=host.get("iommu", "true") in YES,
    )


def _event(entry: Node) -> TimelineEvent:
    [(verb, value)] = entry.mapping.items()
    return TimelineEvent(verb, value if verb == "reload" and value.text is None else plain(value), entry.line)


def guest_specs(guests: Mapping[str, Any]) -> dict[str, GuestSpec]:
    """The guests of a `guests:` mapping that fits the schema."""
    return {name: _guest(spec) for name, spec in guests.items()}


def _guest(spec: Mapping[str, Any]) -> GuestSpec:
    return GuestSpec(
        type=GuestType(spec["type"]),
        running=spec.get("state", "running") == "running",
        frontend=_flag(spec, "frontend"),
        controllers=tuple(spec.get("controllers", ())),
        device_model=_flag(spec, "device_model"),
        passthrough=_flag(spec, "passthrough") or False,
        kept=spec.get("on_poweroff") == "preserve",
        boots_in=seconds(spec["boots_in"]) if "boots_in" in spec else None,
    )


def _flag(spec: Mapping[str, Any], key: str) -> bool | None:
    return spec[key] in YES if key in spec else None


def _controller(spec: Mapping[str, Any]) -> HostController:
    for number in spec["buses"]:
        if not re.fullmatch("[1-9][0-9]{0,2}", number):
            raise ValueError(f"{number!r} is not a bus number; write it like 1")
    buses = {int(n): Bus(int(b["ports"]), Speed(b.get("speed", "high"))) for n, b in spec["buses"].items()}
    peers = {BusId(fast): BusId(slow) for fast, slow in spec.get("peers", {}).items()}
    bdf = spec.get("bdf")
    driver = spec.get("driver", "xhci_hcd")
    return HostController(buses=buses, bdf=Bdf(bdf) if bdf else None, driver=driver, peers=peers)


def seconds(text: str) -> float:
    """A duration as in policies and settings, in seconds, at most a week. Raises ValueError."""
    found = duration(text)
    if found > MAX_DURATION:
        raise ValueError(f"{text!r} is longer than a week, the limit of one wait in a scenario; shorten it")
    return found


def controller_spec(spec: Mapping[str, str]) -> ControllerSpec:
    """A guest controller as a guest's configuration makes it, with libxl's defaults. Raises ValueError where libxl
    refuses it: with such a line the guest does not start.
    """
    asked = {key: str(value) for key, value in spec.items()}
    try:
        return complete_controller(asked, ControllerSpec(ControllerType(spec["type"]), 0, 0))
    except XlRefusal as refused:
        said = refused.answer.stderr.splitlines()[0].rpartition(": ")[2]
        raise ValueError(f"libxl refuses this controller ({said}); write what a guest's usbctrl= may say") from None


def family(spec: Mapping[str, Any]) -> list[Device]:
    """The device that a spec describes and the devices below it, from the top down. Raises ValueError."""
    return [device(spec), *(d for child in spec.get("children", ()) for d in family(child))]


def device(spec: Mapping[str, Any]) -> Device:
    """The device that a spec describes, not yet plugged in. Raises ValueError."""
    if spec.get("children") and spec.get("kind", "hub") != "hub":
        raise ValueError(f"a {spec['kind']} cannot have children; only a hub can")
    class_, interfaces = _classes(spec)
    hub = is_hub([class_], interfaces)
    return Device(
        port=BusId(spec["port"]),
        bus=0,
        number=0,
        tag=Tag(spec["device"].lower()),
        device_class=class_,
        interfaces=interfaces,
        speed=Speed(spec.get("speed", "high")),
        serial=sanitize(spec.get("serial")),
        manufacturer=sanitize(spec.get("manufacturer")),
        product=sanitize(spec.get("product")),
        revision=RevisionPattern.parse(spec["revision"]).revision if "revision" in spec else None,
        removable=spec.get("removable", "unknown"),
        configured=_flag(spec, "configured") is not False,
        isochronous=spec["isochronous"] in YES if "isochronous" in spec else spec.get("kind") in STREAMING,
        hub=hub,
        partly_hub=not hub and says_hub([class_], interfaces),
        in_use=frozenset({Use(spec["in_use"])} if "in_use" in spec else ()),
    )


def _classes(spec: Mapping[str, Any]) -> tuple[Interface, tuple[Interface, ...]]:
    """Device class and interfaces. If one of them says hub, or the device has children, the missing one is that of a
    hub.
    """
    interfaces, class_ = _interfaces(spec), _triple(spec.get("class", "00:00:00"))
    meant = says_hub([class_], interfaces) or bool(spec.get("children"))
    interfaces = interfaces or (KIND_INTERFACES["hub"] if meant else (Interface(255, 0, 0),))
    if not says_hub([class_], interfaces) and spec.get("children"):
        return HUB_TRIPLE, interfaces
    return (HUB_TRIPLE if "class" not in spec and is_hub([], interfaces) else class_), interfaces


def _interfaces(spec: Mapping[str, Any]) -> tuple[Interface, ...]:
    listed = tuple(_triple(text) for text in spec.get("interfaces", ()))
    kind = spec.get("kind")
    if kind is None:
        return listed
    if kind not in KIND_INTERFACES:
        raise ValueError(f"{kind!r} is not a kind of device; use one of {', '.join(sorted(KIND_INTERFACES))}")
    implied = KIND_INTERFACES[kind]
    if listed and not set(implied) <= set(listed):
        raise ValueError(f"kind {kind} has interfaces {_words(implied)}, not {_words(listed)}; leave one of them out")
    return listed or implied


def _words(interfaces: tuple[Interface, ...]) -> str:
    return ", ".join(map(str, interfaces))


def _triple(text: str) -> Interface:
    pattern = InterfacePattern.parse(text)
    return Interface(*(int(part or "0", 16) for part in (pattern.class_, pattern.subclass, pattern.protocol)))


def moved(base: Device, tag: str | None) -> Device:
    """The device after a re-enumeration, perhaps with another tag."""
    return replace(base, tag=Tag(tag.lower())) if tag else base
