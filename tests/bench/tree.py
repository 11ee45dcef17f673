"""The testbed's sysfs as files, for any process: what the kernel's driver core does to it, with the uevents.

dom0's own driver of an interface is noted in ROOT/natural/NAME, outside the tree: returning a device to dom0 needs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .uevents import Uevents

SILENT = "usbfs"
"""Claims and releases through it send no uevent (drivers/usb/core/devio.c: claimintf, releaseintf)."""

RESET = 0.1
"""Seconds for which a device that is reset has no number."""


class Tree:
    """The devices below ROOT/sys and their nodes below ROOT/dev."""

    def __init__(self, root: Path, uevents: Uevents | None = None) -> None:
        self.root = root
        self.uevents = uevents or Uevents(root)
        self._lock, self._depth = threading.RLock(), 0
        self._file = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock on the tree, against other threads and device models' processes. Can be nested."""
        with self._lock:
            if not self._depth:
                fcntl.flock(self._file, fcntl.LOCK_EX)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock file."""
        os.close(self._file)

    @property
    def by_name(self) -> Path:
        """sys/bus/usb/devices."""
        return self.root / "sys/bus/usb/devices"

    def folder(self, name: str) -> Path:
        """The folder of a device or interface, "1-4" or "1-4:1.0"."""
        return (self.by_name / name).resolve()

    def present(self, name: str) -> bool:
        """The device or interface exists."""
        return (self.by_name / name / "uevent").exists()

    def names(self) -> list[str]:
        """All devices and interfaces, sorted; root hubs are "usbN"."""
        return sorted(link.name for link in self.by_name.iterdir())

    def interfaces(self, busid: str) -> list[str]:
        """The interfaces of a device, sorted."""
        return [name for name in self.names() if name.startswith(f"{busid}:")]

    def attribute(self, name: str, key: str) -> str:
        """A text attribute without its newline; "" if it is not there."""
        try:
            return (self.by_name / name / key).read_text(errors="replace").strip()
        except OSError:
            return ""

    def set_attribute(self, name: str, key: str, value: str) -> None:
        """Change an attribute, as the kernel's own view changes: at once, without a uevent."""
        new = self.root / f"attribute-{os.getpid()}-{threading.get_ident()}"
        new.write_text(value)
        new.replace(self.folder(name) / key)

    def node(self, busid: str) -> Path:
        """The device's node."""
        bus, number = int(self.attribute(busid, "busnum")), int(self.attribute(busid, "devnum"))
        return self.root / f"dev/bus/usb/{bus:03d}/{number:03d}"

    def at_address(self, bus: int, number: int) -> str | None:
        """The port path of the device with this bus address."""
        for name in self.names():
            address = self.attribute(name, "busnum"), self.attribute(name, "devnum")
            if address == (str(bus), str(number)):
                return name
        return None

    def properties(self, name: str) -> dict[str, str]:
        """The kernel's uevent properties, with SUBSYSTEM."""
        lines = (self.folder(name) / "uevent").read_text().splitlines()
        return {"SUBSYSTEM": "usb", **dict(line.split("=", 1) for line in lines if "=" in line)}

    def announce(self, action: str, name: str) -> None:
        """Send the uevent of something that exists."""
        path = "/" + str(self.folder(name).relative_to(self.root / "sys"))
        self.uevents.send(action, path, self.properties(name))

    # ---- drivers ---------------------------------------------------------------------------------------------

    def driver(self, name: str) -> str | None:
        """The driver bound to a device or interface."""
        try:
            return (self.by_name / name / "driver").readlink().name
        except OSError:  # none, or it is being removed
            return None

    def drivers(self, busid: str) -> list[str | None]:
        """The drivers of a device's interfaces, in their order."""
        return [self.driver(name) for name in self.interfaces(busid)]

    def set_driver(self, name: str, driver: str | None) -> None:
        """Unbind what is bound, bind the other, each with its uevent but for usbfs. Nothing if it is bound already."""
        with self.exclusive():
            if not self.present(name) or self.driver(name) == driver:
                return
            self._unbind(name)
            if driver is not None:
                self._bind(name, driver)

    def _unbind(self, name: str) -> None:
        old = self.driver(name)
        if old is None:
            return
        (self.folder(name) / "driver").unlink()
        (self._driver_folder(old) / name).unlink(missing_ok=True)
        self._set_property(name, None)
        if old != SILENT:
            self.announce("unbind", name)

    def _bind(self, name: str, driver: str) -> None:
        folder = self.folder(name)
        inside = folder.relative_to(self.root / "sys")
        (folder / "driver").symlink_to("../" * len(inside.parts) + f"bus/usb/drivers/{driver}")
        link = self._driver_folder(driver) / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../../../{inside}")
        self._set_property(name, driver)
        if driver != SILENT:
            self.announce("bind", name)

    def _driver_folder(self, driver: str) -> Path:
        folder = self.root / "sys/bus/usb/drivers" / driver
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _set_property(self, name: str, driver: str | None) -> None:
        file = self.folder(name) / "uevent"
        lines = [line for line in file.read_text().splitlines() if not line.startswith("DRIVER=")]
        lines += [f"DRIVER={driver}"] if driver else []
        file.write_text("".join(f"{line}\n" for line in lines))

    def natural(self, name: str) -> str | None:
        """dom0's own driver for an interface."""
        note = self.root / "natural" / name
        return note.read_text() or None if note.exists() else None

    def set_natural(self, name: str, driver: str | None) -> None:
        """Remember dom0's own driver for an interface."""
        note = self.root / "natural" / name
        note.parent.mkdir(exist_ok=True)
        note.write_text(driver or "")

    def probe(self, name: str) -> None:
        """Let dom0's driver bind to an interface that has none and is authorised."""
        if self.present(name) and self.driver(name) is None and self.attribute(name, "authorized") != "0":
            self.set_driver(name, self.natural(name))

    # ---- what a device model does ----------------------------------------------------------------------------

    def take(self, busid: str) -> None:
        """libusb opens the device: all interfaces lose their drivers."""
        with self.exclusive():
            for name in self.interfaces(busid):
                self.set_driver(name, None)

    def claim(self, busid: str) -> None:
        """The guest configures the device: its authorised interfaces are claimed through usbfs."""
        with self.exclusive():
            for name in self.interfaces(busid):
                if self.attribute(name, "authorized") != "0":
                    self.set_driver(name, "usbfs")

    def give_back(self, busid: str) -> None:
        """libusb closes the device: reset, then dom0's drivers bind again. Nothing if it was pulled meanwhile."""
        with self.exclusive():
            if not self.present(busid):
                return
            self.take(busid)
            number = self.attribute(busid, "devnum")
            self.set_attribute(busid, "devnum", "0\n")  # hub.c: hub_port_reset
            time.sleep(RESET)
            self.set_attribute(busid, "devnum", f"{number}\n")
            for name in self.interfaces(busid):
                self.probe(name)
