"""The core types of xenplug as frozen values: the state of a host and its guests at one instant.

All other modules use them. Names on the host side are USB's (device, port, address, interface), names on the guest side
are Xen's (guest, domid, guest controller, guest port). "port" alone never means a guest port.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, NewType, Self

BusId = NewType("BusId", str)
"""The kernel's port path, "1-4.2": the name of the device's directory in /sys/bus/usb/devices."""
Bdf = NewType("Bdf", str)
"""A PCI address in full, "0000:00:14.0"."""
Tag = NewType("Tag", str)
"""Vendor and product, "046d:c016", lower case."""


_DEVICE_KEY = re.compile(r"([0-9]+-[0-9]+(?:\.[0-9]+)*)@([0-9]{1,3})")


class DeviceKey(NamedTuple):
    """One enumeration of a device: its port path and the device number that the kernel assigned there.

    A replug or a re-enumeration at the same port gets another number, so records under the old key no longer apply.
    """

    port: BusId
    number: int

    def __str__(self) -> str:
        """ "1-4@6", the form in the ledger's file."""
        return f"{self.port}@{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key written as `text`. Raises ValueError if it is not "PORT@NUMBER", TypeError if it is not a string."""
        found = _DEVICE_KEY.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a device key such as '1-4@6'")
        return cls(BusId(found[1]), int(found[2]))


def natural(port: str) -> list[int]:
    """Sort key of a port path by its numbers: 1-2 before 1-10."""
    return [int(n) for n in re.findall(r"\d+", port)]


class Speed(StrEnum):
    """Link speed of a device (sysfs `speed`: 1.5, 12, 480, 5000, 10000 and more Mb/s)."""

    LOW = "low"
    FULL = "full"
    HIGH = "high"
    SUPER = "super"
    SUPER_PLUS = "super+"


class Use(StrEnum):
    """How dom0 itself uses a device; a device in use is never attached to a guest."""

    STORAGE = "storage"
    NETWORK = "network"
    KEYBOARD = "keyboard"


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """A class triple of an interface (or of the device descriptor), each 0..255."""

    class_: int
    subclass: int
    protocol: int

    def __str__(self) -> str:
        return f"{self.class_:02x}:{self.subclass:02x}:{self.protocol:02x}"


@dataclass(frozen=True, slots=True)
class Device:
    """A USB device as dom0 sees it now. The device's own strings are already sanitized (core/usb/sanitize)."""

    port: BusId
    bus: int
    number: int
    """The kernel's device number on the bus, 1..127; with `bus` it is the bus address. Each enumeration changes it."""
    tag: Tag
    path: str | None = None
    """The place in udev's ID_PATH form, naming the USB 2 side; None if the place is unknown."""
    plain_path: str | None = None
    """ID_PATH as udev writes it (a SuperSpeed device: its own side). `protect` may match it; rules never do."""
    controller: Bdf | None = None
    """The PCI host controller; None if the bus does not belong to a PCI device (dummy_hcd, vhci_hcd)."""
    device_class: Interface = Interface(0, 0, 0)
    interfaces: tuple[Interface, ...] = ()
    kinds: frozenset[str] = frozenset()
    speed: Speed | None = None
    serial: str | None = None
    manufacturer: str | None = None
    product: str | None = None
    revision: str | None = None
    """bcdDevice, "1.10"."""
    names: tuple[str, ...] = ()
    """Vendor and model from the hardware database (udev hwdb); trusted, unlike the device's own strings."""
    removable: str = "unknown"
    isochronous: bool = False
    hub: bool = False
    """A hub and nothing else (core/usb/hubs: is_hub). Such a device always stays with dom0."""
    partly_hub: bool = False
    """Its class or an interface is a hub's, but it has other functions too, or this is unknown. A device chooses its
    descriptors, so these are no reason to admit it to dom0."""
    authorized: bool = True
    configured: bool = True
    """The kernel has set a configuration and created the interfaces (never for an unauthorised device)."""
    drivers: tuple[str | None, ...] = ()
    """The driver bound to each interface, in interface order; `usbfs` if a QEMU (libusb) has claimed it."""
    fingerprint: str | None = None
    """SHA-256 of all its descriptors as the kernel read them, "sha256:…"; None if they are not available."""
    shut: bool = False
    """None of its interfaces is authorised: no driver binds to them, and no process can claim them."""
    in_use: frozenset[Use] = frozenset()
    parent: Device | None = field(default=None, compare=False, repr=False)
    """The hub that it is plugged into, unless that is a root hub; set by core/usb/hubs, for `below`."""

    @property
    def address(self) -> str:
        """The bus address, "1.6"."""
        return f"{self.bus}.{self.number}"

    @property
    def key(self) -> DeviceKey:
        """The key of this enumeration of the device."""
        return DeviceKey(self.port, self.number)


class GuestType(StrEnum):
    """The type of a guest (xenstore /libxl/N/type)."""

    PV = "pv"
    PVH = "pvh"
    HVM = "hvm"


class GuestState(StrEnum):
    """The state of a guest. starting: in xenstore, but it cannot take devices yet (libxl-json is not written).
    suspended: by `xl suspend` (Xen 4.20), until `xl resume`; for a moment also while it is saved or migrated.
    """

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    STOPPED = "stopped"


LIVE_STATES = (GuestState.RUNNING, GuestState.PAUSED, GuestState.SUSPENDED)
"""States in which a guest can have devices."""


class ControllerType(StrEnum):
    """Types of guest controllers (libxl_types.idl: libxl_usbctrl_type)."""

    PV = "pv"
    QUSB = "qusb"
    DEVICEMODEL = "devicemodel"


@dataclass(frozen=True, slots=True)
class GuestController:
    """A virtual USB host controller of a guest, as recorded in xenstore.

    `ports` contains every guest port from 1: the busid attached there (live value), or None if it is free.
    """

    id: int
    type: ControllerType
    version: int
    ports: Mapping[int, BusId | None]
    connected: bool = True
    """Frontend and backend are in xenbus state 4 (connected); always True for devicemodel, which has no frontend."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A domain that exists now. There is no Guest for a name that is only in the policy."""

    name: str
    domid: int
    type: GuestType
    state: GuestState
    controllers: tuple[GuestController, ...] = ()
    device_model: int | None = None
    """Process id of the guest's QEMU in dom0. None: no device model, so no qusb and devicemodel controllers."""
    uuid: str | None = None
    pci: tuple[Bdf, ...] = ()
    model_lives: bool = True
    """The process `device_model` exists. If it has ended, xl still reports success for each request but does nothing
    (seen on real Xen)."""
    stubdom: bool = False
    """Its device model runs in a separate domain, which has no access to the host's USB (xen-facts 7)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Whether a guest has really taken a device, read from /proc and sysfs: exit codes of xl prove nothing (law 3)."""

    taken: bool = False
    """The guest's device model has the device node open (pv: the interfaces are bound to usbback)."""
    used: bool = False
    """Taken, and the driver of every interface is usbfs: the guest has configured the device."""


@dataclass(frozen=True, slots=True, order=True)
class GuestPort:
    """One guest port of one guest's controller. It contains the domid, because a rebooted guest has other ports."""

    domid: int
    controller: int
    port: int


PCIBACK = "pciback"
"""The driver that holds a PCI device for guests (sysfs name; the module is xen-pciback)."""


@dataclass(frozen=True, slots=True)
class PciFunction:
    """Another PCI device of this machine that affects a host controller."""

    bdf: Bdf
    driver: str | None
    program: str
    """Class, subclass and programming interface in hex: "0c0330" is an xHCI host controller."""


@dataclass(frozen=True, slots=True)
class PciController:
    """A PCI USB host controller of this machine."""

    bdf: Bdf
    driver: str | None
    program: str = ""
    """As in PciFunction."""
    slot: tuple[PciFunction, ...] = ()
    """The other functions of its slot."""
    bridge: tuple[PciFunction, ...] = ()
    """The other devices behind a bridge that does not isolate its devices (no ACS), so they share one path to the
    IOMMU. A heuristic from sysfs alone: under Xen, dom0's kernel has no IOMMU groups (xen-facts 5)."""
    resettable: bool | None = None
    """The kernel can reset it alone (sysfs `reset`); None: unknown."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything observed at one instant. Snapshot, policy, ledger and time together determine every action."""

    devices: Mapping[BusId, Device]
    guests: Mapping[str, Guest]
    """By name."""
    claims: Mapping[BusId, Claim] = field(default_factory=lambda: MappingProxyType({}))
    """For the devices that are on a guest port."""
    controllers: tuple[PciController, ...] = ()
    usbback: bool = False
    """dom0's kernel has the driver that serves guest controllers of type pv."""
