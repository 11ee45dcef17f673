"""Where USB devices can stand: host controllers, their buses and root ports, and the place a device takes.

Wired by a scenario's `host.controllers`; kernel.py plugs devices into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from xenplug.core.model import Bdf, BusId, Device, PciController, Speed

PORT_TEXT = re.compile(r"([1-9][0-9]*)-([1-9][0-9]*)((?:\.[1-9][0-9]*)*)\Z")
SUPER = {Speed.SUPER, Speed.SUPER_PLUS}
ROOT_PORTS = 31
"""Of a bus known only by what stands on it (USB_MAXCHILDREN)."""


@dataclass(frozen=True, slots=True)
class Bus:
    """One USB bus: its root ports, and the fastest link they give."""

    ports: int
    speed: Speed = Speed.HIGH


@dataclass(slots=True, kw_only=True)
class HostController:
    """A USB host controller of the host."""

    buses: Mapping[int, Bus]
    bdf: Bdf | None = None
    driver: str | None = "xhci_hcd"
    peers: Mapping[BusId, BusId] = field(default_factory=dict)
    """SuperSpeed root port -> the USB 2 root port of the same socket (sysfs `peer`)."""
    platform: str = "dummy_hcd.0"
    """What a controller without BDF is called in ID_PATH."""

    @property
    def awake(self) -> bool:
        """dom0 drives it, so its devices are seen."""
        return self.driver not in (None, "pciback")


class Sockets:
    """All host controllers. Complaints are ValueErrors: a scenario asks for what this host has not."""

    def __init__(self, controllers: Iterable[HostController] = ()) -> None:
        self.controllers = list(controllers)

    def of(self, port: BusId) -> HostController:
        """The host controller the port path belongs to."""
        bus = split(port)[0]
        for controller in self.controllers:
            if bus in controller.buses:
                return controller
        raise ValueError(f"port {port}: this host has no bus {bus}")

    def by_bdf(self, bdf: str) -> HostController | None:
        return next((c for c in self.controllers if c.bdf == bdf), None)

    def pci(self) -> tuple[PciController, ...]:
        return tuple(PciController(c.bdf, c.driver) for c in self.controllers if c.bdf is not None)

    def learn(self, device: Device) -> None:
        """Make room for a real device: its bus, on the host controller it names."""
        bus = split(device.port)[0]
        if any(bus in controller.buses for controller in self.controllers):
            return
        mine = self.by_bdf(device.controller) if device.controller else None
        if mine is None:
            mine = HostController(bdf=device.controller, buses={})
            self.controllers.append(mine)
        mine.buses = {**mine.buses, bus: Bus(ROOT_PORTS, Speed.SUPER if device.speed in SUPER else Speed.HIGH)}

    def check(self, device: Device) -> None:
        """Complain unless the device fits the port it names."""
        bus, root, _ = split(device.port)
        wired = self.of(device.port).buses[bus]
        if root > wired.ports:
            raise ValueError(f"port {device.port}: bus {bus} has {wired.ports} ports")
        if (device.speed in SUPER) != (wired.speed in SUPER):
            raise ValueError(f"port {device.port}: a {device.speed} speed device does not link on a {wired.speed} bus")

    def placed(self, device: Device) -> Device:
        """The device with its bus, host controller and paths filled in."""
        controller = self.of(device.port)
        bus, _, below = split(device.port)
        root = BusId(device.port.removesuffix(below)) if below else device.port
        fast = controller.buses[bus].speed in SUPER
        usb2 = controller.peers.get(root) if fast else root
        return replace(
            device,
            bus=bus,
            controller=controller.bdf,
            path=None if usb2 is None else _id_path(controller, BusId(usb2 + below)),
            plain_path=_id_path(controller, device.port),
        )


def split(port: str) -> tuple[int, int, str]:
    """Bus, root port and the rest (".2.1") of a port path."""
    found = PORT_TEXT.match(port)
    if not found:
        raise ValueError(f"{port!r} is not a port path; write it like 1-4 or 1-4.2")
    return int(found[1]), int(found[2]), found[3]


def parent(port: str) -> BusId | None:
    """The hub's port path; None for a root port."""
    return BusId(port.rpartition(".")[0]) if "." in port else None


def _id_path(controller: HostController, port: BusId) -> str:
    place = f"pci-{controller.bdf}" if controller.bdf else f"platform-{controller.platform}"
    return f"{place}-usb-0:{port.partition('-')[2]}"
