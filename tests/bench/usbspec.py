"""USB devices and host controllers as the bench describes them, and the descriptors they answer with."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

SPEEDS = {"low": "1.5", "full": "12", "high": "480", "super": "5000", "super+": "10000"}
"""Our words -> what sysfs `speed` says (Mb/s)."""
Triple = tuple[int, int, int]
DEVICE, CONFIG, STRING, INTERFACE, ENDPOINT = 1, 2, 3, 4, 5
BULK, INTERRUPT, ISOCHRONOUS = 2, 3, 1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint descriptor: address with direction bit, transfer type and sync bits, packet size, interval."""

    address: int
    attributes: int
    packet: int
    interval: int = 0
    tail: bytes = b""
    """What follows bInterval and the descriptor: audio's two more bytes, a class-specific or SuperSpeed companion."""

    def encode(self) -> bytes:
        """The descriptor's bytes. Audio class 1 endpoints are two bytes longer; `tail` starts with those."""
        length = 9 if self.attributes & 3 == ISOCHRONOUS else 7
        return struct.pack("<BBBBHB", length, ENDPOINT, self.address, self.attributes, self.packet, self.interval) + (
            self.tail
        )


@dataclass(frozen=True, slots=True)
class UsbInterface:
    """Alternate setting 0 of an interface; `alternates` are the raw bytes of the further ones."""

    triple: Triple
    driver: str | None = None
    """dom0's driver that binds to it by itself."""
    endpoints: tuple[Endpoint, ...] = ()
    extra: bytes = b""
    """Class-specific descriptors between the interface's and its endpoints'."""
    alternates: bytes = b""
    name: int = 0
    """Index of its string descriptor."""

    def encode(self, number: int, alternate: int = 0) -> bytes:
        """Interface descriptor, extras and endpoints."""
        head = struct.pack("9B", 9, INTERFACE, number, alternate, len(self.endpoints), *self.triple, self.name)
        return head + self.extra + b"".join(point.encode() for point in self.endpoints) + self.alternates


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """A device's own description, and what dom0's kernel adds."""

    tag: str
    interfaces: tuple[UsbInterface, ...] = (UsbInterface((3, 1, 2), "usbhid", (Endpoint(0x81, INTERRUPT, 8, 10),)),)
    speed: str = "high"
    device_class: Triple = (0, 0, 0)
    usb: int = 0x0200
    revision: int = 0x0100
    packet0: int = 64
    attributes: int = 0x80
    max_power: int = 100
    """mA"""
    manufacturer: str | bytes | None = None
    product: str | bytes | None = None
    serial: str | bytes | None = None
    removable: str = "removable"
    maxchild: int = 0
    """Number of ports, for a hub."""
    descriptors: bytes | None = None
    """Verbatim contents of sysfs `descriptors`; None: made from the rest."""

    @property
    def vendor_id(self) -> str:
        """Four hex digits."""
        return self.tag.split(":")[0]

    @property
    def product_id(self) -> str:
        """Four hex digits."""
        return self.tag.split(":")[1]

    @property
    def hub(self) -> bool:
        """The device is a hub."""
        return self.device_class[0] == 9

    def with_(self, **changes: object) -> UsbDevice:
        """A copy with some fields changed; descriptors are made again."""
        return replace(self, **{"descriptors": None, **changes})  # type: ignore[arg-type]

    def encode(self) -> bytes:
        """sysfs `descriptors`: the device descriptor and the configuration with all below it."""
        if self.descriptors is not None:
            return self.descriptors
        body = b"".join(one.encode(number) for number, one in enumerate(self.interfaces))
        unit = 8 if self.speed.startswith("super") else 2
        config = struct.pack(
            "<BBHBBBBB", 9, CONFIG, 9 + len(body), len(self.interfaces), 1, 0, self.attributes, self.max_power // unit
        )
        strings = [1 if self.manufacturer else 0, 2 if self.product else 0, 3 if self.serial else 0]
        packet0 = 9 if self.speed.startswith("super") else self.packet0
        ids = (int(self.vendor_id, 16), int(self.product_id, 16), self.revision)
        return struct.pack("<BBH4B3H4B", 18, DEVICE, self.usb, *self.device_class, packet0, *ids, *strings, 1) + (
            config + body
        )


@dataclass(frozen=True, slots=True)
class Bus:
    """A root hub: its number of ports and the speed it runs at (high or super)."""

    ports: int = 8
    speed: str = "high"


@dataclass(frozen=True, slots=True)
class HostController:
    """A PCI USB host controller and its buses; `peers` pairs SuperSpeed root ports with USB 2 ones (sysfs `peer`)."""

    bdf: str = "0000:00:14.0"
    driver: str = "xhci_hcd"
    buses: Mapping[int, Bus] = field(default_factory=lambda: {1: Bus(8, "high"), 2: Bus(4, "super")})
    peers: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Its folder below /sys/devices."""
        return f"pci{self.bdf[:7]}/{self.bdf}"

    def root_hub(self, number: int) -> UsbDevice:
        """The root hub of a bus, as Linux presents it."""
        bus = self.buses[number]
        fast = bus.speed.startswith("super")
        companion = bytes((6, 48, 0, 0, 2, 0)) if fast else b""
        return UsbDevice(
            "1d6b:0003" if fast else "1d6b:0002",
            (UsbInterface((9, 0, 0), "hub", (Endpoint(0x81, INTERRUPT, 4, 12, companion),)),),
            speed=bus.speed,
            device_class=(9, 0, 3 if fast else 1),
            usb=0x0300 if fast else 0x0200,
            revision=0x0601,
            attributes=0xE0,
            max_power=0,
            manufacturer=f"Linux 6.1.0-18-amd64 {self.driver.replace('_', '-')}",
            product="xHCI Host Controller" if self.driver == "xhci_hcd" else "EHCI Host Controller",
            serial=self.bdf,
            removable="unknown",
            maxchild=bus.ports,
        )
