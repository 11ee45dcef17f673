"""The `guests` section, and the guest names that xl cannot misread.

xl reads an argument of digits only as a domain id, without checking that it exists, and an argument that begins with
`-` as an option; it names a log file after each guest (libxl_utils.c: libxl_domain_qualifier_to_domid, xl_utils.c:
def_getopt, libxl_utils.c: libxl_create_logfile). The controllers that can be made: libxl_usb.c,
libxl__device_usbctrl_setdefault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xenplug.core.documents.node import Node, choice
from xenplug.core.documents.problems import Path, listed, shown
from xenplug.core.documents.report import Report
from xenplug.core.guests import MAX_PORTS
from xenplug.core.model import ControllerType
from xenplug.core.policy.rules import ControllerSpec, GuestPolicy, WhenEmpty

MAX_NAME = 63
"""Bytes. xl itself has no limit, but the log files and xenstore values that contain the name have several."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The allowed numbers of guest ports of a controller, and the number if the policy does not set it (`usual`)."""

    most: int
    usual: int
    least: int = 1


CONTROLLER_PORTS: Mapping[tuple[ControllerType, int], Ports] = {
    (ControllerType.PV, 1): Ports(MAX_PORTS, MAX_PORTS),
    (ControllerType.PV, 2): Ports(MAX_PORTS, MAX_PORTS),
    (ControllerType.QUSB, 1): Ports(MAX_PORTS, MAX_PORTS),
    (ControllerType.QUSB, 2): Ports(MAX_PORTS, MAX_PORTS),
    (ControllerType.DEVICEMODEL, 1): Ports(2, 2, 2),
    (ControllerType.DEVICEMODEL, 2): Ports(6, 6, 6),
    (ControllerType.DEVICEMODEL, 3): Ports(15, 15),
}
"""The guest controllers that libxl makes, by type and version (libxl_usb.c: libxl__device_usbctrl_setdefault, 4.17; at
most USBIF_MAX_PORTNR ports). The agent asks for `usual` ports."""
USUAL_VERSION: Mapping[ControllerType, int] = {
    ControllerType.PV: 2,
    ControllerType.QUSB: 2,
    ControllerType.DEVICEMODEL: 3,
}


def default_controller(kind: ControllerType) -> ControllerSpec:
    """The guest controller of a type that the agent makes if the policy sets neither version nor ports."""
    version = USUAL_VERSION[kind]
    return ControllerSpec(kind, version, CONTROLLER_PORTS[kind, version].usual)


def name_fault(name: str) -> str | None:
    """The reason why a guest cannot have this name (fact; remedy); None if it can."""
    size = len(name.encode(errors="replace"))
    faults = (
        (not name, "a guest's name cannot be empty; write it as `xl list` shows it"),
        (not name.isprintable(), f"{shown(name)} contains a control character; write the name as `xl list` shows it"),
        (name != name.strip(), f"{shown(name)} begins or ends with a space; write the name as `xl list` shows it"),
        (name.isdigit(), f"{shown(name)} consists of digits only, which xl reads as a domain id; rename the guest"),
        (name.startswith("-"), f"{shown(name)} begins with '-', which xl reads as an option; rename the guest"),
        ("/" in name, f"{shown(name)} contains a '/', but xl names a log file after the guest; rename the guest"),
        (size > MAX_NAME, f"{shown(name)} is {size} bytes long, at most {MAX_NAME} are allowed; rename the guest"),
        (name == "Domain-0", "'Domain-0' is the host, not a guest; write `action: host` to keep a device there"),
    )
    return next((message for holds, message in faults if holds), None)


def guest_policy(node: Node, path: Path, report: Report) -> GuestPolicy:
    """One entry of `guests`."""
    controller, most = node.mapping.get("controller"), node.mapping.get("max_controllers")
    own_only = controller is not None and controller.text == "none"
    for key in ("max_controllers", "when_empty") if own_only else ():
        if key in node.mapping:
            message = "has no effect with `controller: none`, because the agent then makes no controller; remove it"
            report.add(node.key(key), [*path, key], message)
    empty = choice(node.mapping.get("when_empty"), WhenEmpty) or WhenEmpty.KEEP
    spec = _spec(controller, [*path, "controller"], report) if controller is not None and not own_only else None
    return GuestPolicy(spec, own_only, _number(most) or 1, empty)


def _spec(node: Node, path: Path, report: Report) -> ControllerSpec | None:
    """A controller that libxl can make; else None, and a problem reported here or by the schema."""
    fields = node.mapping
    kind = _kind(fields.get("type"))
    if kind is None:
        return None
    version = _number(fields.get("version")) or USUAL_VERSION[kind]
    allowed = CONTROLLER_PORTS.get((kind, version))
    if allowed is None:
        legal = listed([str(number) for other, number in CONTROLLER_PORTS if other is kind])
        report.add(
            node.find(["version"]).position, [*path, "version"], f"{kind} has no version {version}; write {legal}"
        )
        return None
    ports = _number(fields.get("ports")) or allowed.usual
    if not allowed.least <= ports <= allowed.most:
        legal = str(allowed.most) if allowed.least == allowed.most else f"{allowed.least} to {allowed.most}"
        report.add(
            node.find(["ports"]).position,
            [*path, "ports"],
            f"{kind} version {version} cannot have {ports} ports; write {legal}, or remove it",
        )
    return ControllerSpec(kind, version, ports)


def _kind(node: Node | None) -> ControllerType | None:
    return next((kind for kind in ControllerType if node is not None and kind == node.text), None)


def _number(node: Node | None) -> int | None:
    """A small decimal number; None if it is absent or the schema refuses it."""
    text = node.text if node is not None else None
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 2 else None
