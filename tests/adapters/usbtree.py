"""A small sysfs under a temporary folder, laid out as the kernel does it, for the modules that read it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from xenplug.core.model import Interface
from xenplug.core.usb.descriptors import Identity, encode

HOST = "/devices/pci0000:00/0000:00:14.0"
MOUSE = Interface(3, 1, 2)
STICK = Interface(8, 6, 0x50)


class Tree:
    """`root` stands for /."""

    def __init__(self, root: Path) -> None:
        self.root, self.sys = root, root / "sys"
        self.bus = self.sys / "bus/usb/devices"
        for folder in (self.bus, root / "proc/self/ns", root / "run/udev/data", self.sys / "bus/pci/devices"):
            folder.mkdir(parents=True)
        self.write("sys/bus/usb/drivers_probe", "")
        self.write(f"sys{HOST}/class", "0x0c0330\n")
        self.link(f"sys{HOST}/subsystem", "/sys/bus/pci")
        self.link(f"sys{HOST}/driver", "/sys/bus/pci/drivers/xhci_hcd")
        self.link("sys/bus/pci/devices/0000:00:14.0", f"/sys{HOST}")
        for bus in (1, 2):
            self.write(f"sys{HOST}/usb{bus}/devnum", "1\n")
            self.link(f"sys/bus/usb/devices/usb{bus}", f"/sys{HOST}/usb{bus}")

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def link(self, path: str, target: str) -> None:
        """A relative link as sysfs has them; it need not lead anywhere."""
        link = self.root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(self.root / target.lstrip("/"), link.parent))

    def folder(self, port: str) -> str:
        """Path of a device's folder below the root."""
        bus, _, rest = port.partition("-")
        steps = rest.split(".")
        names = [f"{bus}-{'.'.join(steps[: count + 1])}" for count in range(len(steps))]
        return "/".join([f"sys{HOST}/usb{bus}", *names])

    def plug(
        self,
        port: str,
        number: int,
        triples: Sequence[Interface] = (MOUSE,),
        driver: str | None = "usbhid",
        **attrs: str,
    ) -> str:
        """Create a device with its interfaces; return its folder below the root."""
        folder = self.folder(port)
        usual = {"busnum": port.partition("-")[0], "devnum": str(number), "idVendor": "046d", "idProduct": "c016"}
        usual |= {"speed": "12", "bConfigurationValue": "1", "bNumInterfaces": f" {len(triples)}", "authorized": "1"}
        for name, text in (usual | attrs).items():
            self.write(f"{folder}/{name}", text + "\n")
        self.write(f"{folder}/descriptors", encode(Identity(0x046D, 0xC016), triples))
        for index, triple in enumerate(triples):
            at = f"{folder}/{port}:1.{index}"
            self.write(f"{at}/uevent", f"INTERFACE={triple.class_}/{triple.subclass}/{triple.protocol}\n")
            self.bind(port, index, driver)
        self.link(f"sys/bus/usb/devices/{port}", f"/{folder}")
        return folder

    def bind(self, port: str, index: int, driver: str | None) -> None:
        """Bind a driver to an interface, or none."""
        link = f"{self.folder(port)}/{port}:1.{index}/driver"
        if driver:
            self.link(link, f"/sys/bus/usb/drivers/{driver}")
        else:
            (self.root / link).unlink(missing_ok=True)

    def pull(self, port: str) -> None:
        (self.bus / port).unlink()
        shutil.rmtree(self.root / self.folder(port))
