"""umockdev's text format, both ways: descriptions of devices -> paragraphs, and recordings -> descriptions.

The attributes are those the kernel shows (Documentation/ABI/*/sysfs-bus-usb, drivers/usb/core/sysfs.c), in its formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .usbspec import SPEEDS, HostController, UsbDevice, UsbInterface

Property = str | int | None
Value = Property | bytes
CONFIGURATION = ("configuration", "bConfigurationValue", "bNumInterfaces", "bmAttributes", "bMaxPower")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a device: folder of its host controller below /sys/devices, port path ("usb1": root hub), number."""

    controller: str
    port: str
    number: int

    @property
    def bus(self) -> int:
        """The bus number, from the port path."""
        return int(self.port.removeprefix("usb").split("-")[0])

    @property
    def devpath(self) -> str:
        """sysfs `devpath`: the port path without the bus; 0 for a root hub."""
        return self.port.split("-")[1] if "-" in self.port else "0"

    @property
    def path(self) -> str:
        """The device's folder, from /devices on."""
        parts = [] if self.devpath == "0" else self.devpath.split(".")
        chain = [f"{self.bus}-{'.'.join(parts[: depth + 1])}" for depth in range(len(parts))]
        return "/".join(["/devices", self.controller, f"usb{self.bus}", *chain])

    @property
    def node(self) -> str:
        """The device node below /dev."""
        return f"bus/usb/{self.bus:03d}/{self.number:03d}"

    def interface(self, number: int) -> str:
        """Name of an interface's folder ("1-0:1.0" on a root hub)."""
        stem = self.port if "-" in self.port else f"{self.bus}-0"
        return f"{stem}:1.{number}"


def _line(key: str, value: Value) -> str:
    """One attribute. Text the kernel would print gets its newline; text that is not plain ASCII is written as hex."""
    if isinstance(value, bytes):
        return f"H: {key}={value.hex().upper()}"
    text = str(value)
    if not text.isascii() or not text.isprintable() or "\\" in text:
        return _line(key, text.encode("utf-8", "surrogateescape") + b"\n")
    return f"A: {key}={text}" if key == "dev" else f"A: {key}={text}\\n"


def paragraph(
    path: str,
    properties: Mapping[str, Property],
    attributes: Mapping[str, Value],
    links: Mapping[str, str] | None = None,
    node: str | None = None,
) -> str:
    """One device of a recording; values None are left out."""
    lines = [f"P: {path}"]
    lines += [f"N: {node}"] if node else []
    lines += [f"E: {key}={value}" for key, value in properties.items() if value is not None]
    lines += [_line(key, value) for key, value in attributes.items() if value is not None]
    lines += [f"L: {key}={target}" for key, target in (links or {}).items()]
    return "\n".join(lines) + "\n\n"


def driver_link(path: str, bus: str, driver: str) -> str:
    """The relative target of a `driver` link in /sys PATH."""
    return "../" * path.count("/") + f"bus/{bus}/drivers/{driver}"


def _modalias(device: UsbDevice) -> str:
    c, s, p = device.device_class
    ids = f"v{device.vendor_id.upper()}p{device.product_id.upper()}d{device.revision:04X}"
    return f"usb:{ids}dc{c:02X}dsc{s:02X}dp{p:02X}"


def _product(device: UsbDevice) -> str:
    return f"{int(device.vendor_id, 16):x}/{int(device.product_id, 16):x}/{device.revision:x}"


def device_properties(device: UsbDevice, place: Place, driver: str | None) -> dict[str, Property]:
    """What the kernel puts into the uevent of a usb_device."""
    return {
        "DEVNAME": f"/dev/{place.node}",
        "DEVTYPE": "usb_device",
        "DRIVER": driver,
        "PRODUCT": _product(device),
        "TYPE": "/".join(str(part) for part in device.device_class),
        "BUSNUM": f"{place.bus:03d}",
        "DEVNUM": f"{place.number:03d}",
        "MAJOR": 189,
        "MINOR": (place.bus - 1) * 128 + place.number - 1,
        "SUBSYSTEM": "usb",
    }


def device_attributes(device: UsbDevice, place: Place, configured: bool, authorized: bool) -> dict[str, Value]:
    """sysfs of a usb_device; without a configuration the kernel prints its values empty."""
    c, s, p = device.device_class
    found: dict[str, Value] = {
        "dev": f"189:{(place.bus - 1) * 128 + place.number - 1}",
        "busnum": place.bus,
        "devnum": place.number,
        "devpath": place.devpath,
        "speed": SPEEDS[device.speed],
        "version": f"{device.usb >> 8:2x}.{device.usb & 255:02x}",
        "idVendor": device.vendor_id,
        "idProduct": device.product_id,
        "bcdDevice": f"{device.revision:04x}",
        "bDeviceClass": f"{c:02x}",
        "bDeviceSubClass": f"{s:02x}",
        "bDeviceProtocol": f"{p:02x}",
        "bMaxPacketSize0": device.packet0,
        "bNumConfigurations": 1,
        "maxchild": device.maxchild,
        "rx_lanes": 1,
        "tx_lanes": 1,
        "authorized": int(authorized),
        "removable": device.removable,
        "descriptors": device.encode(),
        **(configuration(device) if configured else dict.fromkeys(CONFIGURATION, b"")),
    }
    strings = {"manufacturer": device.manufacturer, "product": device.product, "serial": device.serial}
    for key, value in strings.items():
        found[key] = value + b"\n" if isinstance(value, bytes) else value
    if "-" not in place.port:
        found |= {"authorized_default": 1, "interface_authorized_default": 1}
    return found


def configuration(device: UsbDevice) -> dict[str, str]:
    """The attributes of the active configuration (CONFIGURATION)."""
    return {
        "configuration": "",
        "bConfigurationValue": "1",
        "bNumInterfaces": f"{len(device.interfaces):2d}",
        "bmAttributes": f"{device.attributes:02x}",
        "bMaxPower": f"{device.max_power}mA",
    }


def device_text(device: UsbDevice, place: Place, *, configured: bool = True, authorized: bool = True) -> str:
    """The paragraph of the device itself; `configured` also means bound to the kernel's `usb` driver."""
    links = {"driver": driver_link(place.path, "usb", "usb")} if configured else {}
    properties = device_properties(device, place, "usb" if configured else None)
    attributes = device_attributes(device, place, configured, authorized)
    return paragraph(place.path, properties, attributes, links, place.node)


def interface_text(device: UsbDevice, place: Place, number: int, driver: str | None, authorized: bool = True) -> str:
    """The paragraph of one interface."""
    interface = device.interfaces[number]
    c, s, p = interface.triple
    path = f"{place.path}/{place.interface(number)}"
    alias = f"{_modalias(device)}ic{c:02X}isc{s:02X}ip{p:02X}in{number:02X}"
    properties: dict[str, Property] = {
        "DEVTYPE": "usb_interface",
        "DRIVER": driver,
        "PRODUCT": _product(device),
        "TYPE": "/".join(str(part) for part in device.device_class),
        "INTERFACE": f"{c}/{s}/{p}",
        "MODALIAS": alias,
        "SUBSYSTEM": "usb",
    }
    attributes: dict[str, Value] = {
        "bInterfaceNumber": f"{number:02x}",
        "bAlternateSetting": " 0",
        "bNumEndpoints": f"{len(interface.endpoints):02x}",
        "bInterfaceClass": f"{c:02x}",
        "bInterfaceSubClass": f"{s:02x}",
        "bInterfaceProtocol": f"{p:02x}",
        "modalias": alias,
        "authorized": int(authorized),
    }
    return paragraph(path, properties, attributes, {"driver": driver_link(path, "usb", driver)} if driver else {})


def device_tree(device: UsbDevice, place: Place) -> str:
    """Device and interfaces, configured and bound: what a recording holds."""
    bound = [interface_text(device, place, n, one.driver) for n, one in enumerate(device.interfaces)]
    return device_text(device, place) + "".join(bound)


def _ports(controller: HostController, bus: int) -> dict[str, Value]:
    stem = f"usb{bus}-port"
    return {f"{stem}{n + 1}/connect_type": "hotplug" for n in range(controller.buses[bus].ports)}


def _peer_links(controller: HostController, bus: int) -> dict[str, str]:
    both = {**controller.peers, **{two: three for three, two in controller.peers.items()}}
    links = {}
    for port, peer in both.items():
        (here, n), (there, m) = port.split("-"), peer.split("-")
        if int(here) == bus:
            links[f"usb{here}-port{n}/peer"] = f"../../../usb{there}/{there}-0:1.0/usb{there}-port{m}"
    return links


def controller_text(controller: HostController) -> str:
    """A host controller: its PCI device, root hubs, their hub interfaces with the root ports and `peer` links."""
    path = f"/devices/{controller.path}"
    program = {"xhci_hcd": "0c0330", "ehci-pci": "0c0320"}.get(controller.driver, "0c0300")
    properties: dict[str, Property] = {
        "DRIVER": controller.driver,
        "PCI_CLASS": program.removeprefix("0").upper(),
        "PCI_ID": "8086:A36D",
        "PCI_SLOT_NAME": controller.bdf,
        "SUBSYSTEM": "pci",
    }
    attributes: dict[str, Value] = {"class": f"0x{program}", "vendor": "0x8086", "device": "0xa36d", "irq": 125}
    text = paragraph(path, properties, attributes, {"driver": driver_link(path, "pci", controller.driver)})
    for number in controller.buses:
        place, hub = Place(controller.path, f"usb{number}", 1), controller.root_hub(number)
        text += device_text(hub, place) + interface_text(hub, place, 0, "hub").rstrip("\n") + "\n"
        text += "".join(f"{_line(key, value)}\n" for key, value in _ports(controller, number).items())
        text += "".join(f"L: {key}={target}\n" for key, target in _peer_links(controller, number).items()) + "\n"
    return text


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A parsed paragraph: its path (from /devices on), properties, attributes as bytes, links."""

    path: str
    properties: Mapping[str, str]
    attributes: Mapping[str, bytes]
    links: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """An attribute as text without its newline."""
        value = self.attributes.get(name)
        return None if value is None else value.decode("utf-8", "surrogateescape").strip()


def parse(text: str) -> list[Paragraph]:
    """Read a recording; lines that are not used here (S:) are skipped."""
    return [_paragraph(block.splitlines()) for block in text.split("\n\n") if block.strip()]


def _paragraph(lines: Iterable[str]) -> Paragraph:
    path, properties, attributes, links = "", {}, {}, {}
    for line in lines:
        kind, _, rest = line.partition(": ")
        key, _, value = rest.partition("=")
        if kind == "P":
            path = rest
        elif kind == "E":
            properties[key] = value
        elif kind == "A":
            attributes[key] = value.encode().decode("unicode_escape").encode("latin-1")
        elif kind == "H":
            attributes[key] = bytes.fromhex(value)
        elif kind == "L":
            links[key] = value
    return Paragraph(path, properties, attributes, links)


def recorded_devices(path: Path) -> dict[str, UsbDevice]:
    """The devices of a recording by port path, parents first; without root hubs."""
    blocks = parse(path.read_text())
    found = {}
    for block in sorted(blocks, key=lambda b: b.path.count("/")):
        name = Path(block.path).name
        if block.properties.get("DEVTYPE") == "usb_device" and not name.startswith("usb"):
            below = [b for b in blocks if str(Path(b.path).parent) == block.path and ":" in Path(b.path).name]
            found[name] = _device(block, sorted(below, key=lambda b: b.path))
    return found


def _device(block: Paragraph, interfaces: list[Paragraph]) -> UsbDevice:
    speeds = {value: word for word, value in SPEEDS.items()}
    return UsbDevice(
        f"{block.text('idVendor')}:{block.text('idProduct')}",
        tuple(_interface(one) for one in interfaces),
        speed=speeds[block.text("speed") or "480"],
        device_class=_triple(block, "bDeviceClass", "bDeviceSubClass", "bDeviceProtocol"),
        usb=int((block.text("version") or "2.00").replace(".", ""), 16),
        revision=int(block.text("bcdDevice") or "0", 16),
        packet0=int(block.text("bMaxPacketSize0") or 64),
        attributes=int(block.text("bmAttributes") or "80", 16),
        max_power=int((block.text("bMaxPower") or "0mA").removesuffix("mA")),
        manufacturer=block.text("manufacturer"),
        product=block.text("product"),
        serial=block.text("serial"),
        removable=block.text("removable") or "unknown",
        maxchild=int(block.text("maxchild") or 0),
        descriptors=block.attributes.get("descriptors"),
    )


def _interface(block: Paragraph) -> UsbInterface:
    driver = Path(block.links["driver"]).name if "driver" in block.links else block.properties.get("DRIVER")
    return UsbInterface(_triple(block, "bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol"), driver)


def _triple(block: Paragraph, *names: str) -> tuple[int, int, int]:
    one, two, three = (int(block.text(name) or "0", 16) for name in names)
    return one, two, three
