"""Reads guests out of xenstore: a mapping of paths to values becomes Guest values. Pure and total.

adapters/mirror.py (or the simulator's store) keeps the mapping; the reconciler calls read_guests for every snapshot.
Any value may be missing, half written or garbage: what cannot be understood is left out or counts as not connected,
and a later change of the tree brings us here again. Where things stand in xenstore: libxl_usb.c (vusb_get_port_path,
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
"""xl's endings of the names of the two halves of a guest on the move (xl_vmcontrol.c, xl_migrate.c)."""
ENDING = {GuestState.STOPPING, GuestState.STOPPED}

PORT_PATHS = {
    ControllerType.QUSB: "/local/domain/0/backend/qusb/{0.domid}/{0.controller}/port/{0.port}",
    ControllerType.PV: "/local/domain/0/backend/vusb/{0.domid}/{0.controller}/port/{0.port}",
    ControllerType.DEVICEMODEL: "/libxl/{0.domid}/device/vusb/{0.controller}/port/{0.port}",
}
BACKENDS = {ControllerType.QUSB: "qusb", ControllerType.PV: "vusb"}

_N = "(0|[1-9][0-9]{0,4})"
"""A number as Xen writes it; 05 is another node than 5."""
_BACKEND_PORT = re.compile(rf"/local/domain/0/backend/(qusb|vusb)/{_N}/{_N}/port/{_N}\Z", re.A)
_LIBXL_PORT = re.compile(rf"/libxl/{_N}/device/vusb/{_N}/port/{_N}\Z", re.A)
_OWNER = re.compile(
    rf"/(?:local/domain/(?=[1-9])|libxl/|local/domain/0/(?:backend/[a-z]+|device-model)/){_N}(?:/|\Z)", re.A
)
_CONTROLLER = re.compile(rf"(/libxl/{_N}/device/vusb|/local/domain/0/backend/(?:qusb|vusb)/{_N})/{_N}(?:/|\Z)", re.A)
_BDF = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\Z")


class PortPlace(NamedTuple):
    """What a path in xenstore says about a guest port."""

    guest_port: GuestPort
    type: ControllerType


def port_path(type_: ControllerType, guest_port: GuestPort) -> str:
    """Where the live value of a guest port stands (libxl_usb.c: vusb_get_port_path)."""
    return PORT_PATHS[type_].format(guest_port)


def port_place(path: str) -> PortPlace | None:
    """The inverse of port_path. A /libxl path reads as devicemodel; of other controllers that copy is dead (T44)."""
    if found := _BACKEND_PORT.match(path):
        type_ = ControllerType.QUSB if found[1] == "qusb" else ControllerType.PV
        return PortPlace(GuestPort(int(found[2]), int(found[3]), int(found[4])), type_)
    if found := _LIBXL_PORT.match(path):
        return PortPlace(GuestPort(int(found[1]), int(found[2]), int(found[3])), ControllerType.DEVICEMODEL)
    return None


def type_path(guest_port: GuestPort) -> str:
    """Where libxl notes the type of the controller a guest port belongs to."""
    return f"/libxl/{guest_port.domid}/device/vusb/{guest_port.controller}/type"


def owner(path: str) -> int | None:
    """The domid of the guest a path is about, wherever in the tree it stands; None for dom0 and all else."""
    found = _OWNER.match(path)
    return int(found[1]) if found else None


def read_guests(
    tree: Mapping[str, str],
    introduced: Collection[int],
    ready: Callable[[int, str], bool],
    states: Mapping[int, GuestState],
) -> dict[str, Guest]:
    """The guests by name. Left out: dom0, device model domains, guests on the move, domains without a name or type yet.

    `introduced`: domids xenstored knows as alive. `ready(domid, uuid)`: libxl has finished creating the domain.
    `states`: what the hypervisor says, where it was asked; a domain not in it runs once it is introduced and ready.
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
    """Whether the guest has the devices that stand on its ports. `held`: faces.Domains.held, of its device model."""
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
    """The names of the domains that are being migrated, which read_guests leaves out."""
    names = {value for path, value in tree.items() if path.endswith("/name") and value.endswith(MIGRATING)}
    return tuple(sorted(names))


def beyond(tree: Mapping[str, str]) -> dict[str, str]:
    """Busids on guest ports that their controller has not (xl takes any number, T9): path to value."""
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
    """What the tree holds about one domain."""

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
    """Domains that are only the device model of another one (image/device-model-domid there, target here), and dom0."""
    named = {
        _number(_DomainNodes(nodes, domid).own("image/device-model-domid"), 1, 32751) for domid, nodes in parts.items()
    }
    told = {domid for domid, nodes in parts.items() if _DomainNodes(nodes, domid).own("target")}
    return {0} | told | {domid for domid in named if domid is not None}


def _outranks(guest: Guest, other: Guest | None) -> bool:
    """Of two domains of one name (a reboot: the old one dying, the new one starting) the later counts, but a living
    one always more than an ending one.
    """
    return other is None or guest.state not in ENDING or other.state in ENDING


def _state(
    view: _DomainNodes, introduced: bool, ready: Callable[[int, str], bool], states: Mapping[int, GuestState]
) -> GuestState:
    told = states.get(view.domid, GuestState.RUNNING)
    if told in ENDING:
        return told
    uuid = view.uuid()
    return told if introduced and uuid and ready(view.domid, uuid) else GuestState.STARTING


def _guest(view: _DomainNodes, state: GuestState) -> Guest | None:
    # Nothing that could never be in a policy reaches a screen or a log; acts compare with what stands there.
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
    last_guest: defaultdict[int, set[str]] = defaultdict(set)
    # Most nodes are ports, and their controller has others.
    for found in map(_CONTROLLER.match, (path for path in view.nodes if "/port/" not in path)):
        if found:
            last_guest[int(found[4])].add(found[1])
    read = (_controller(view, id_, last_guest[id_]) for id_ in sorted(last_guest))
    return tuple(controller for controller in read if controller)


def _controller(view: _DomainNodes, id_: int, last_guest: set[str]) -> GuestController | None:
    noted = f"/libxl/{view.domid}/device/vusb"
    told = view.nodes.get(f"{noted}/{id_}/type", "")
    if told == ControllerType.DEVICEMODEL:
        return _built(view, id_, ControllerType.DEVICEMODEL, noted)
    for type_, backend in BACKENDS.items():
        if (home := f"/local/domain/0/backend/{backend}/{view.domid}") in last_guest:
            return _built(view, id_, type_, home)
    # Noted by libxl, served by nobody. Its port values there are those of its first day: none is shown.
    return _built(view, id_, ControllerType(told), noted) if told in BACKENDS else None


def _built(view: _DomainNodes, id_: int, type_: ControllerType, home: str) -> GuestController:
    base = f"{home}/{id_}"
    live = type_ is ControllerType.DEVICEMODEL or not home.startswith("/libxl/")
    # A value that is no busid blocks every attach of the host just like a stale one: it is kept, to be cleared.
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
    """PCI devices given to the guest; their backend folder is /local/domain/0/backend/pci/N/0, one dev-K for each."""
    base = f"/local/domain/0/backend/pci/{view.domid}/0/dev-"
    return tuple(sorted(Bdf(v) for path, v in view.nodes.items() if path.startswith(base) and _BDF.match(v)))


def _number(text: str, least: int, most: int) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    value = int(text)
    return value if least <= value <= most else None
