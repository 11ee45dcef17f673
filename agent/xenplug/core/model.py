"""The words of xenplug as frozen values: what a host and its guests look like at one instant.

Every other room speaks in these. USB's own terms for the host side (device, port, address, interface),
Xen's for the guest side (guest, domid, guest controller, guest port). Never a bare "port" for a guest port.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, NewType, Self

BusId = NewType("BusId", str)
"""The kernel's port path, "1-4.2": the name of the device's folder in /sys/bus/usb/devices."""
Bdf = NewType("Bdf", str)
"""A PCI address in full, "0000:00:14.0"."""
Tag = NewType("Tag", str)
"""Vendor and product, "046d:c016", lower case."""


_DEVICE_KEY = re.compile(r"([0-9]+-[0-9]+(?:\.[0-9]+)*)@([0-9]{1,3})")


class DeviceKey(NamedTuple):
    """One enumeration of a device: its port path and the device number the kernel gave it there.

    A replug or a re-enumeration at the same port has another number, so whatever is kept under a key ends with it.
    """

    port: BusId
    number: int

    def __str__(self) -> str:
        """ "1-4@6", the form in the ledger's file."""
        return f"{self.port}@{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key written as `text`. Raises ValueError if it is not "PORT@NUMBER", TypeError if it is no text."""
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
    """What dom0 itself needs a device for; a device in use is never given away."""

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
    """A USB device as dom0 sees it now. Strings the device says of itself are already cleaned (core/usb/sanitize)."""

    port: BusId
    bus: int
    number: int
    """The kernel's device number on the bus, 1..127; with `bus` it is the bus address, new at every enumeration."""
    tag: Tag
    path: str | None = None
    """The place in udev's ID_PATH form, naming the USB 2 side; None where the place cannot be told."""
    plain_path: str | None = None
    """ID_PATH as udev itself would write it (a SuperSpeed device: its own side); may protect, never admits."""
    controller: Bdf | None = None
    """The PCI host controller; None where the bus hangs on no PCI device (dummy_hcd, vhci_hcd)."""
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
    """Vendor and model as the hardware database (udev hwdb) names them; trusted, unlike the device's own strings."""
    removable: str = "unknown"
    isochronous: bool = False
    hub: bool = False
    """A hub and nothing else (core/usb/hubs: is_hub): reason enough to leave it to dom0."""
    partly_hub: bool = False
    """Its class or an interface says hub, but it is something else too, or that cannot be known. A device chooses what
    it says, so this is no reason to let it in."""
    authorized: bool = True
    configured: bool = True
    """The kernel has set a configuration and made the interfaces (an unauthorised device never has one)."""
    drivers: tuple[str | None, ...] = ()
    """The driver bound to each interface, in interface order; `usbfs` where a qemu (libusb) has claimed it."""
    fingerprint: str | None = None
    """SHA-256 of all its descriptors as the kernel read them, "sha256:…"; None where there are none to be had."""
    shut: bool = False
    """None of its interfaces is authorised: no driver binds to them, and no process can claim them."""
    in_use: frozenset[Use] = frozenset()
    parent: Device | None = field(default=None, compare=False, repr=False)
    """The hub it hangs on, where that is not a root hub; set by core/usb/hubs, for `below`."""

    @property
    def address(self) -> str:
        """The bus address, "1.6"."""
        return f"{self.bus}.{self.number}"

    @property
    def key(self) -> DeviceKey:
        """The name of this one enumeration of the device."""
        return DeviceKey(self.port, self.number)


class GuestType(StrEnum):
    """How Xen runs the guest (xenstore /libxl/N/type)."""

    PV = "pv"
    PVH = "pvh"
    HVM = "hvm"


class GuestState(StrEnum):
    """starting: known to xenstore, not yet able to take devices (libxl-json unwritten)."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"


LIVE_STATES = (GuestState.RUNNING, GuestState.PAUSED)
"""States in which a guest can have devices."""


class ControllerType(StrEnum):
    """Types of guest controllers (libxl_types.idl: libxl_usbctrl_type)."""

    PV = "pv"
    QUSB = "qusb"
    DEVICEMODEL = "devicemodel"


@dataclass(frozen=True, slots=True)
class GuestController:
    """A virtual USB host controller of a guest, as xenstore has it.

    `ports` holds every guest port from 1: the busid attached there (live value), or None when free.
    """

    id: int
    type: ControllerType
    version: int
    ports: Mapping[int, BusId | None]
    connected: bool = True
    """Frontend and backend are in xenbus state 4; always True for devicemodel, which has no frontend."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A domain that exists now. A guest that only the policy knows has no such value."""

    name: str
    domid: int
    type: GuestType
    state: GuestState
    controllers: tuple[GuestController, ...] = ()
    device_model: int | None = None
    """Process id of the guest's qemu in dom0; None: no device model, so no qusb or devicemodel controller ever."""
    uuid: str | None = None
    pci: tuple[Bdf, ...] = ()
    model_lives: bool = True
    """The process `device_model` is there. Once it is not, xl says yes to all that is asked of it, and nothing is done
    (seen on real Xen)."""
    stubdom: bool = False
    """Its device model runs in a domain of its own, which has no USB of the host's (xen-facts 7)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who has a device in hand, read from /proc and sysfs, not remembered (design law 3)."""

    taken: bool = False
    """The guest's device model holds the device's node open (pv: its interfaces are bound to usbback)."""
    used: bool = False
    """Taken, and the driver of every interface is usbfs: the guest has configured the device."""


@dataclass(frozen=True, slots=True, order=True)
class GuestPort:
    """One guest port of one guest's controller. Keyed by domid: a rebooted guest has other ports."""

    domid: int
    controller: int
    port: int


PCIBACK = "pciback"
"""The driver that holds a PCI device for guests (sysfs name; the module is xen-pciback)."""


@dataclass(frozen=True, slots=True)
class PciFunction:
    """Another PCI device of this machine, as far as it concerns a host controller."""

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
    """As for PciFunction."""
    slot: tuple[PciFunction, ...] = ()
    """The other functions of its slot."""
    bridge: tuple[PciFunction, ...] = ()
    """What else sits behind a bridge that does not keep its devices apart (no ACS), so that they share one way to the
    IOMMU. Told from sysfs alone, a heuristic: under Xen dom0's kernel has no IOMMU groups (xen-facts 5)."""
    resettable: bool | None = None
    """The kernel knows a way to reset it alone (sysfs `reset`); None: not told."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything observed at one instant; with policy, ledger and now it decides every act."""

    devices: Mapping[BusId, Device]
    guests: Mapping[str, Guest]
    """By name."""
    claims: Mapping[BusId, Claim] = field(default_factory=lambda: MappingProxyType({}))
    """Of the devices that stand on some guest port."""
    controllers: tuple[PciController, ...] = ()
    usbback: bool = False
    """dom0's kernel has the driver that serves guest controllers of type pv."""
