"""Reads guests from xenstore: a mapping of paths to values becomes Guest values. Pure and total.

adapters/mirror.py (or the simulator's store) keeps the mapping; the reconciler calls read_guests for every snapshot.
Any value can be missing, incomplete or garbage: a value that cannot be parsed is ignored or counts as not connected,
and the next change of the tree triggers another reading. The layout of xenstore: libxl_usb.c (vusb_get_port_path,
libxl__device_usbctrl_add_xenstore), seen with Xen 4.17.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from xenplug.core.model import (
    Bdf,
    BusId,
    Claim,
    ControllerType,
    Device,
    Guest,
    GuestController,
    GuestPort,
    GuestState,
    GuestType,
)
from xenplug.core.printable import printable

MAX_PORTS = 31
"""USBIF_MAX_PORTNR; the widest of all controller types."""
CONNECTED = "4"
"""XenbusStateConnected."""
MIGRATING = ("--incoming", "--migratedaway")
"""The endings that xl adds to the two names of a guest during migration (xl_vmcontrol.c, xl_migrate.c)."""
ENDING = {GuestState.STOPPING, GuestState.STOPPED}

PORT_PATHS = {
    ControllerType.QUSB: "/local/domain/0/backend/qusb/{0.domid}/{0.controller}/port/{0.port}",
    ControllerType.PV: "/local/domain/0/backend/vusb/{0.domid}/{0.controller}/port/{0.port}",
    ControllerType.DEVICEMODEL: "/libxl/{0.domid}/device/vusb/{0.controller}/port/{0.port}",
}
BACKENDS = {ControllerType.QUSB: "qusb", ControllerType.PV: "vusb"}

_N = "(0|[1-9][0-9]{0,4})"
"""A number as Xen writes it; 05 is a different node from 5."""
_BACKEND_PORT = re.compile(rf"/local/domain/0/backend/(qusb|vusb)/{_N}/{_N}/port/{_N}\Z", re.A)
_LIBXL_PORT = re.compile(rf"/libxl/{_N}/device/vusb/{_N}/port/{_N}\Z", re.A)
_OWNER = re.compile(
    rf"/(?:local/domain/(?=[1-9])|libxl/|local/domain/0/(?:backend/[a-z]+|device-model)/){_N}(?:/|\Z)", re.A
)
_CONTROLLER = re.compile(rf"(/libxl/{_N}/device/vusb|/local/domain/0/backend/(?:qusb|vusb)/{_N})/{_N}(?:/|\Z)", re.A)
_BDF = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\Z")


class PortPlace(NamedTuple):
    """The guest port that a path in xenstore belongs to."""

    guest_port: GuestPort
    type: ControllerType


def port_path(type_: ControllerType, guest_port: GuestPort) -> str:
    """The path of the live value of a guest port (libxl_usb.c: vusb_get_port_path)."""
    return PORT_PATHS[type_].format(guest_port)


def port_place(path: str) -> PortPlace | None:
    """The inverse of port_path. A /libxl path means devicemodel; other controllers do not use that copy (T44)."""
    if found := _BACKEND_PORT.match(path):
        type_ = ControllerType.QUSB if found[1] == "qusb" else ControllerType.PV
        return PortPlace(GuestPort(int(found[2]), int(found[3]), int(found[4])), type_)
    if found := _LIBXL_PORT.match(path):
        return PortPlace(GuestPort(int(found[1]), int(found[2]), int(found[3])), ControllerType.DEVICEMODEL)
    return None


def type_path(guest_port: GuestPort) -> str:
    """The path where libxl records the type of a guest port's controller."""
    return f"/libxl/{guest_port.domid}/device/vusb/{guest_port.controller}/type"


def owner(path: str) -> int | None:
    """The domid of the guest that a path belongs to, anywhere in the tree; None for dom0 and all other paths."""
    found = _OWNER.match(path)
    return int(found[1]) if found else None


def read_guests(
    tree: Mapping[str, str],
    introduced: Collection[int],
    ready: Callable[[int, str], bool],
    states: Mapping[int, GuestState],
) -> dict[str, Guest]:
    """The guests by name, without dom0, device model domains, guests in migration, and domains without a name or type.

    `introduced`: domids that xenstored knows as live. `ready(domid, uuid)`: libxl has finished creating the domain.
    `states`: the states that the hypervisor reported; a domain without one is running once it is introduced and ready.
    """
    parts = _by_domain(tree)
    helpers = _stubdoms(parts)
    guests: dict[str, Guest] = {}
    for domid in sorted(parts.keys() - helpers):
        state = _state(_DomainNodes(parts[domid], domid), domid in introduced, ready, states)
        guest = _guest(_DomainNodes(parts[domid], domid), state)
        if guest and _outranks(guest, guests.get(guest.name)):
            guests[guest.name] = guest
    return guests


def claims(
    guest: Guest, devices: Mapping[BusId, Device], held: Callable[[int], Collection[tuple[int, int]]]
) -> dict[BusId, Claim]:
    """Whether the guest has taken the devices on its ports. `held`: protocols.Domains.held of its device model."""
    here = [
        (devices[busid], controller.type)
        for controller in guest.controllers
        for busid in controller.ports.values()
        if busid and busid in devices
    ]
    open_ = held(guest.device_model) if here and guest.device_model is not None else ()
    return {device.port: _claim(device, kind, (device.bus, device.number) in open_) for device, kind in here}


def _claim(device: Device, kind: ControllerType, held: bool) -> Claim:
    if kind is ControllerType.PV:
        bound = bool(device.drivers) and all(driver == "usbback" for driver in device.drivers)
        return Claim(taken=bound, used=bound)
    used = held and bool(device.drivers) and all(driver == "usbfs" for driver in device.drivers)
    back = any(driver not in (None, "usbfs") for driver in device.drivers)
    return Claim(taken=held and not back, used=used)


def moving(tree: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the domains that are being migrated; read_guests omits them."""
    names = {value for path, value in tree.items() if path.endswith("/name") and value.endswith(MIGRATING)}
    return tuple(sorted(names))


def beyond(tree: Mapping[str, str]) -> dict[str, str]:
    """Busids on guest ports that do not exist on their controller (xl accepts any number, T9): path to value."""
    found = {}
    for path, value in tree.items():
        at = port_place(path) if value else None
        if at is None or (at.type is ControllerType.DEVICEMODEL and tree.get(type_path(at.guest_port)) != at.type):
            continue
        count = _number(tree.get(f"{path.rpartition('/port/')[0]}/num-ports", ""), 1, MAX_PORTS)
        if count and at.guest_port.port > count:
            found[path] = value
    return found


class _DomainNodes(NamedTuple):
    """The values of one domain in the tree."""

    nodes: Mapping[str, str]
    domid: int

    def own(self, name: str) -> str:
        return self.nodes.get(f"/local/domain/{self.domid}/{name}", "")

    def uuid(self) -> str | None:
        head, _, uuid = self.own("vm").rpartition("/")
        return uuid if head == "/vm" and uuid else None


def _by_domain(tree: Mapping[str, str]) -> dict[int, dict[str, str]]:
    parts: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for path, value in tree.items():
        if (domid := owner(path)) is not None:
            parts[domid][path] = value
    return parts


def _stubdoms(parts: Mapping[int, Mapping[str, str]]) -> set[int]:
    """dom0, and domains that are the device model of another one (image/device-model-domid there, target here)."""
    named = {
        _number(_DomainNodes(nodes, domid).own("image/device-model-domid"), 1, 32751) for domid, nodes in parts.items()
    }
    with_target = {domid for domid, nodes in parts.items() if _DomainNodes(nodes, domid).own("target")}
    return {0} | with_target | {domid for domid in named if domid is not None}


def _outranks(guest: Guest, other: Guest | None) -> bool:
    """Of two domains with one name (a reboot: the old one is dying, the new one is starting) the later one wins, but a
    live one always wins over one that is ending.
    """
    return other is None or guest.state not in ENDING or other.state in ENDING


def _state(
    view: _DomainNodes, introduced: bool, ready: Callable[[int, str], bool], states: Mapping[int, GuestState]
) -> GuestState:
    reported = states.get(view.domid, GuestState.RUNNING)
    if reported in ENDING:
        return reported
    uuid = view.uuid()
    return reported if introduced and uuid and ready(view.domid, uuid) else GuestState.STARTING


def _guest(view: _DomainNodes, state: GuestState) -> Guest | None:
    # The raw name never reaches a screen or a log; actions compare with the value in xenstore.
    name = printable(view.own("name"))
    type_ = view.nodes.get(f"/libxl/{view.domid}/type", "")
    if not name or name.endswith(MIGRATING) or type_ not in set(GuestType):
        return None
    return Guest(
        name=name,
        domid=view.domid,
        type=GuestType(type_),
        state=state,
        controllers=_controllers(view),
        device_model=_number(view.own("image/device-model-pid"), 1, 1 << 22),
        uuid=view.uuid(),
        pci=_pci(view),
        stubdom=bool(view.own("image/device-model-domid")),
    )


def _controllers(view: _DomainNodes) -> tuple[GuestController, ...]:
    folders: defaultdict[int, set[str]] = defaultdict(set)
    # Most nodes are ports; their controller has other nodes too.
    for found in map(_CONTROLLER.match, (path for path in view.nodes if "/port/" not in path)):
        if found:
            folders[int(found[4])].add(found[1])
    read = (_controller(view, id_, folders[id_]) for id_ in sorted(folders))
    return tuple(controller for controller in read if controller)


def _controller(view: _DomainNodes, id_: int, folders: set[str]) -> GuestController | None:
    libxl_folder = f"/libxl/{view.domid}/device/vusb"
    recorded = view.nodes.get(f"{libxl_folder}/{id_}/type", "")
    if recorded == ControllerType.DEVICEMODEL:
        return _built(view, id_, ControllerType.DEVICEMODEL, libxl_folder)
    for type_, backend in BACKENDS.items():
        if (folder := f"/local/domain/0/backend/{backend}/{view.domid}") in folders:
            return _built(view, id_, type_, folder)
    # Recorded by libxl but without a backend. Its port values are those from its creation, so none is shown.
    return _built(view, id_, ControllerType(recorded), libxl_folder) if recorded in BACKENDS else None


def _built(view: _DomainNodes, id_: int, type_: ControllerType, folder: str) -> GuestController:
    base = f"{folder}/{id_}"
    live = type_ is ControllerType.DEVICEMODEL or not folder.startswith("/libxl/")
    # A value that is not a busid blocks every attach on the host, like a stale one: keep it, so that it gets cleared.
    values = {port: BusId(view.nodes.get(f"{base}/port/{port}", "") if live else "") for port in _ports(view, base)}
    return GuestController(
        id=id_,
        type=type_,
        version=_number(view.nodes.get(f"{base}/usb-ver", ""), 1, 3) or 2,
        ports=MappingProxyType({port: value or None for port, value in values.items()}),
        connected=type_ is ControllerType.DEVICEMODEL or (live and _connected(view, id_, base)),
    )


def _ports(view: _DomainNodes, base: str) -> Iterable[int]:
    count = _number(view.nodes.get(f"{base}/num-ports", ""), 1, MAX_PORTS)
    if count:
        return range(1, count + 1)
    return [port for port in range(1, MAX_PORTS + 1) if f"{base}/port/{port}" in view.nodes]


def _connected(view: _DomainNodes, id_: int, base: str) -> bool:
    return view.nodes.get(f"{base}/state") == CONNECTED == view.own(f"device/vusb/{id_}/state")


def _pci(view: _DomainNodes) -> tuple[Bdf, ...]:
    """PCI devices assigned to the guest: the dev-K nodes of its backend directory /local/domain/0/backend/pci/N/0."""
    base = f"/local/domain/0/backend/pci/{view.domid}/0/dev-"
    return tuple(sorted(Bdf(v) for path, v in view.nodes.items() if path.startswith(base) and _BDF.match(v)))


def _number(text: str, least: int, most: int) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    value = int(text)
    return value if least <= value <= most else None
