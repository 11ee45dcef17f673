"""USB devices on the emulated machine, plugged and pulled through its monitor. Buses: xhci, xhci2 (any speed), ehci
(high speed only), uhci (low and full). Speeds come from the device and the bus: QEMU's tablet, mouse and keyboard
are high speed, full on uhci; storage is super speed on xhci; hub, audio and serial are full speed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import qmp
from labkit.config import LabError

KINDS = {
    "mouse": "usb-mouse", "keyboard": "usb-kbd", "tablet": "usb-tablet", "storage": "usb-storage", "hub": "usb-hub",
    "audio": "usb-audio", "serial": "usb-serial",
}  # fmt: skip
STORAGE_BYTES = 16 << 20


def plug(monitor: Path, name: str, kind: str, bus: str = "ehci", port: str | None = None, **properties: Any) -> None:
    """Plugs a device of that kind. `port` is QEMU's, counted from 1 ("1", or "1.2" behind a hub); `properties` are
    those of the QEMU device (serial="S1", usb_version=1, ...). QmpError when QEMU refuses."""
    if kind not in KINDS:
        raise LabError(f"no device kind {kind!r}; there are {', '.join(KINDS)}")
    properties |= backend(monitor, name, kind)
    if port is not None:
        properties["port"] = port
    qmp.execute(monitor, "device_add", {"driver": KINDS[kind], "id": name, "bus": f"{bus}.0", **properties})


def backend(monitor: Path, name: str, kind: str) -> dict[str, Any]:
    """Creates the backend of the device: an empty disk, an unconnected serial line, silent audio."""
    if kind == "storage":
        zeros = {"driver": "null-co", "read-zeroes": True, "size": STORAGE_BYTES}
        qmp.execute(monitor, "blockdev-add", {**zeros, "node-name": f"disk-{name}"})
        return {"drive": f"disk-{name}"}
    if kind == "serial":
        qmp.execute(monitor, "chardev-add", {"id": f"line-{name}", "backend": {"type": "null", "data": {}}})
        # otherwise it exists only while a process listens on the line
        return {"chardev": f"line-{name}", "always-plugged": True}
    return {"audiodev": "silence"} if kind == "audio" else {}


def unplug(monitor: Path, name: str) -> None:
    """Unplugs a device without asking the system, as a person would."""
    qmp.execute(monitor, "device_del", {"id": name})
    forget(monitor, name)


def forget(monitor: Path, name: str) -> None:
    """Removes the backend of a device that is gone: devices behind an unplugged hub leave theirs behind."""
    for command, key, prefix in (("blockdev-del", "node-name", "disk-"), ("chardev-remove", "id", "line-")):
        try:
            qmp.execute(monitor, command, {key: prefix + name})
        except qmp.QmpError:
            continue  # this kind has none


def plugged(monitor: Path) -> list[str]:
    """The names of the devices plugged in now, a hub before the devices behind it."""
    lines = qmp.human(monitor, "info usb").splitlines()
    return [line.rpartition("ID: ")[2].strip() for line in lines if "ID: " in line]


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A USB device as dom0's sysfs has it: port "1-4", bus and address, tag, speed in Mb/s, product, and the drivers of
    its interfaces ("usbhid", "usbfs"; "" for an interface without one)."""

    port: str
    bus: int
    address: int
    tag: str
    speed: str
    product: str
    drivers: tuple[str, ...]


LIST_HOST = r"""
cd /sys/bus/usb/devices
for d in [0-9]*-*; do case $d in *:*) continue;; esac
  drivers=; for i in $d/$d:*; do [ -d $i ] && drivers="$drivers$(basename "$(readlink $i/driver)"),"; done
  read -r bus <$d/busnum; read -r address <$d/devnum; read -r vendor <$d/idVendor; read -r model <$d/idProduct
  read -r speed <$d/speed; product=; [ -e $d/product ] && read -r product <$d/product
  printf '%s\t%s\t%s\t%s:%s\t%s\t%s\t%s\n' $d $bus $address $vendor $model $speed "${drivers%,}" "$product"
done 2>/dev/null; true
"""


def parse_host(text: str) -> list[HostDevice]:
    """LIST_HOST's output."""
    found = []
    for line in text.splitlines():
        port, bus, address, tag, speed, drivers, product = line.split("\t", 6)
        found.append(HostDevice(port, int(bus), int(address), tag, speed, product, tuple(drivers.split(","))))
    return found
