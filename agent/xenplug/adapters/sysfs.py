"""Reads USB devices and host controllers from sysfs and udev's database, and writes the few files that control them.

Plain file reads of bounded size, no libudev: one device costs a few dozen system calls. adapters/udev calls it from
worker threads, because the kernel makes readers of some attributes wait while a driver probes the device or resets it.
"""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from xenplug.adapters import kernel_files
from xenplug.adapters.pci import PciTree
from xenplug.core.model import Bdf, BusId, Interface, PciController
from xenplug.core.usb import place
from xenplug.core.usb.configurations import MAX_DESCRIPTORS_BYTES
from xenplug.core.usb.device import RawDevice, RawInterface
from xenplug.core.usb.place import PORT

IDENTITY = ("idVendor", "idProduct", "bcdDevice", "bDeviceClass", "bDeviceSubClass", "bDeviceProtocol")
"""Read only if `descriptors`, which begins with the same numbers, is missing: this saves a third of the reads."""
ATTRIBUTES = (
    "busnum",
    "speed",
    "authorized",
    "removable",
    "manufacturer",
    "product",
    "serial",
    "descriptors",
    "bConfigurationValue",
    "bNumInterfaces",
)
RESET = 5.0
"""Maximum seconds to wait for a device that is being reset; its number is 0 during the reset (hub.c:
hub_port_reset)."""
_PROGRAMMING_INTERFACES = (b"0x0c0300", b"0x0c0310", b"0x0c0320", b"0x0c0330")
"""UHCI, OHCI, EHCI, xHCI (PCI Code and ID Assignment, 0Ch 03h); not USB4 routers, not device controllers."""


class Sysfs:
    """One sysfs tree. `root` is /sys, `run` is /run/udev; tests pass other folders."""

    def __init__(self, root: Path = Path("/sys"), run: Path = Path("/run/udev")) -> None:
        self._root = str(root)
        self._bus = f"{root}/bus/usb"
        self._run = str(run)
        self._parents: dict[str, tuple[place.Parent, ...]] = {}
        self.pci = PciTree(self._root)

    def ports(self) -> list[str]:
        """Port paths of the present devices, without root hubs."""
        return sorted(name for name in kernel_files.names(f"{self._bus}/devices") if PORT.match(name))

    def folder(self, port: str) -> str:
        """The folder of the device's attributes."""
        return f"{self._bus}/devices/{port}"

    def read(self, port: str) -> RawDevice | None:
        """The device at this port as it is now; None if there is none or it disappears during the reading.

        The device number is read first and last, so a mixture of two devices is never returned.
        """
        folder = self.folder(port)
        devpath = self._devpath(folder)
        before = _number(folder)
        if devpath is None or before is None:
            return None
        attrs = _attributes(folder, ATTRIBUTES)
        if len(attrs.get("descriptors", b"")) < 18:
            attrs |= _attributes(folder, IDENTITY)
        attrs["devnum"] = before
        raw = RawDevice(
            devpath=devpath,
            attrs=attrs,
            properties=self._properties(folder, attrs),
            interfaces=self._interfaces(folder, port),
            peer=self._peer(devpath, attrs),
            parents=self._above(devpath),
        )
        return raw if _number(folder) == before else None

    def usbback(self) -> bool:
        """Whether the kernel has this driver (no released Linux does; SUSE's and XenServer's did)."""
        return os.path.exists(f"{self._root}/bus/usb/drivers/usbback")  # noqa: PTH110 - Path.exists may raise

    def controllers(self) -> tuple[PciController, ...]:
        """The PCI USB host controllers with their current drivers, including those bound to pciback."""
        devices = f"{self._root}/bus/pci/devices"
        found = {
            name
            for name in kernel_files.names(devices)
            if place.BDF.match(name) and (_read(f"{devices}/{name}/class") or b"").strip() in _PROGRAMMING_INTERFACES
        }
        found.update(self._hosts_of_buses())
        return tuple(self.pci.controller(Bdf(bdf)) for bdf in sorted(found))

    def authorize(self, port: BusId, number: int, allowed: bool) -> bool:
        """Write `authorized`; False if another device is there now, or the write failed."""
        return self._is(port, number) and kernel_files.write(
            f"{self.folder(port)}/authorized", b"1" if allowed else b"0"
        )

    def interfaces(self, port: BusId, number: int, allowed: bool) -> bool:
        """Write `authorized` of each interface; False as above. Every interface is tried. If some interfaces of a
        device are authorised already, no others are: somebody closed them on purpose.
        """
        folder = self.folder(port)
        names = [name for name in kernel_files.names(folder) if name.startswith(port + ":") and name.count(":") == 1]
        files = [f"{folder}/{name}/authorized" for name in names]
        if not self._is(port, number):
            return False
        if allowed and any((_read(file) or b"").strip() == b"1" for file in files):
            return True
        return all([kernel_files.write(file, b"1" if allowed else b"0") for file in files])

    def _is(self, port: BusId, number: int) -> bool:
        return (_number(self.folder(port)) or b"").strip() == str(number).encode()

    def probe(self, port: BusId) -> None:
        """Let dom0's drivers bind to each driverless interface. A failure shows in the drivers read next."""
        for name, interface in self._interfaces(self.folder(port), port).items():
            if interface.driver is None:
                kernel_files.write(f"{self._bus}/drivers_probe", name.encode())

    def _hosts_of_buses(self) -> Iterator[str]:
        for name in kernel_files.names(f"{self._bus}/devices"):
            if name.startswith("usb"):
                devpath = self._devpath(self.folder(name))
                bdf = place.controller(self._above(devpath)) if devpath else None
                if bdf:
                    yield bdf

    def _devpath(self, folder: str) -> str | None:
        """The folder's device path. The link's text is enough; resolving it would take as long as all the rest."""
        try:
            target = os.readlink(folder)  # noqa: PTH115 - Path takes ten times as long
        except OSError:
            return None
        path = posixpath.normpath(posixpath.join("/bus/usb/devices", target))
        return path if path.startswith("/devices/") else None

    def _above(self, devpath: str) -> tuple[place.Parent, ...]:
        """The devices above the root hub. Subsystems never change, so each bus is read once."""
        parts = place.split(devpath)
        if parts is None:
            return ()
        host = parts[0]
        known = self._parents.get(host)
        if known is None:
            known = tuple(self._climb(host))
            if known and host.endswith("/" + known[0][0]):  # else it just disappeared
                self._parents[host] = known
        return known

    def _climb(self, host: str) -> Iterator[place.Parent]:
        while host.count("/") > 1:
            subsystem = _link_name(f"{self._root}{host}/subsystem")
            if subsystem:
                yield posixpath.basename(host), subsystem
            host = posixpath.dirname(host)

    def _interfaces(self, folder: str, port: str) -> Mapping[str, RawInterface]:
        names = [name for name in kernel_files.names(folder) if name.startswith(port + ":") and name.count(":") == 1]
        return {name: _interface(f"{folder}/{name}") for name in sorted(names, key=_order)}

    def _peer(self, devpath: str, attrs: Mapping[str, bytes]) -> str | None:
        parts = place.split(devpath)
        if parts is None or len(attrs.get("speed", b"").strip()) < len("5000"):
            return None
        root_port = parts[2].partition("/")[0].partition("-")[2]
        bus = parts[1].removeprefix("usb")
        at = f"{parts[0]}/{parts[1]}/{bus}-0:1.0/{parts[1]}-port{root_port}"
        target = kernel_files.link(f"{self._root}{at}/peer")
        return posixpath.normpath(posixpath.join(at, target)) if target else None

    def _properties(self, folder: str, attrs: Mapping[str, bytes]) -> Mapping[str, str]:
        """The kernel's properties (`uevent`) and those that udev's rules added (its database of the device node)."""
        content = _read(f"{folder}/uevent") or b""
        found = uevent_pairs(content.split(b"\n"))
        if found.get("MAJOR") and found.get("MINOR"):
            lines = (_read(f"{self._run}/data/c{found['MAJOR']}:{found['MINOR']}") or b"").split(b"\n")
            found |= uevent_pairs(line[2:] for line in lines if line.startswith(b"E:"))
        return found


def _number(folder: str) -> bytes | None:
    """The device number; waits for the end of a running reset."""
    until = time.monotonic() + RESET
    while (number := _read(f"{folder}/devnum")) == b"0\n" and time.monotonic() < until:
        time.sleep(0.02)
    return number


def _attributes(folder: str, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: text for name in names if (text := _read(f"{folder}/{name}")) is not None}


def _interface(folder: str) -> RawInterface:
    triple = triple_of(uevent_pairs((_read(f"{folder}/uevent") or b"").split(b"\n")))
    driver = _link_name(f"{folder}/driver")
    # An interface with a driver is authorised: this saves one read for nearly all of them.
    authorized = driver is not None or (_read(f"{folder}/authorized") or b"").strip() != b"0"
    return RawInterface(driver, triple, authorized)


def triple_of(properties: Mapping[str, str]) -> Interface | None:
    """The class triple in an interface's uevent: INTERFACE=3/1/2, in decimal."""
    parts = properties.get("INTERFACE", "").split("/")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        return None
    return Interface(*(int(part) & 0xFF for part in parts))


def _order(name: str) -> tuple[int, str]:
    number = name.rpartition(".")[2]
    return (int(number) if number.isascii() and number.isdigit() else 0, name)


def uevent_pairs(lines: Iterator[bytes] | list[bytes]) -> dict[str, str]:
    """The NAME=VALUE lines of a `uevent` file; other lines are skipped."""
    found = {}
    for line in lines:
        name, equals, value = line.decode("utf-8", "replace").partition("=")
        if equals:
            found[name] = value
    return found


def _link_name(path: str) -> str | None:
    """The last name of where a link leads."""
    target = kernel_files.link(path)
    return target and posixpath.basename(target)


def _read(path: str) -> bytes | None:
    """As much as a device's descriptors may have."""
    return kernel_files.read(path, MAX_DESCRIPTORS_BYTES)
