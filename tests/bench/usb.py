"""The USB side of the bench: a umockdev testbed that devices are plugged into and pulled from, with the real uevents.

    testbed = Testbed(); testbed.add_host_controller(HostController())
    testbed.plug("1-4", UsbDevice("046d:c016", speed="low")); testbed.unplug("1-4")

The tree is libumockdev's own; this process needs no preload. The agent's process runs with `environment()` and then
finds the tree at /sys and the nodes at /dev/bus/usb; held nodes show up in /proc/PID/fd as `dev_folder`/bus/usb/...,
which is what its setting paths.dev is for. Order of events: a real plug (kernel's own trace): add of device and
interfaces, then bind of device and interfaces; a real pull: children first, interfaces unbind and go, then the device.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from .kernel import Written
from .records import (
    CONFIGURATION,
    Place,
    configuration,
    controller_text,
    device_text,
    driver_link,
    interface_text,
    recorded_devices,
)
from .shims import build
from .tree import Tree
from .uevents import Uevents
from .usbspec import HostController, UsbDevice

PRELOAD = "libumockdev-preload.so.0"


class _GError(ctypes.Structure):
    _fields_ = (("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p))


class _Umockdev:
    """The five calls of libumockdev that are needed. It aborts the process on misuse, so misuse is caught above."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libumockdev.so.0")
        self._lib.umockdev_testbed_new.restype = ctypes.c_void_p
        self._lib.umockdev_testbed_get_root_dir.restype = ctypes.c_char_p
        pointer = ctypes.c_void_p
        self._lib.umockdev_testbed_get_root_dir.argtypes = (pointer,)
        self._lib.umockdev_testbed_add_from_string.argtypes = (pointer, ctypes.c_char_p, pointer)
        self._lib.umockdev_testbed_remove_device.argtypes = (pointer, ctypes.c_char_p)
        self._lib.g_object_unref.argtypes = (pointer,)
        self._testbed = self._lib.umockdev_testbed_new()
        os.unsetenv("UMOCKDEV_DIR")  # set by the library for its own children; ours get it from environment()
        self.root = Path(self._lib.umockdev_testbed_get_root_dir(self._testbed).decode())

    def add(self, text: str) -> None:
        """Add the paragraphs of a recording."""
        error = ctypes.POINTER(_GError)()
        if not self._lib.umockdev_testbed_add_from_string(self._testbed, text.encode(), ctypes.byref(error)):
            raise ValueError(error.contents.message.decode() if error else "umockdev refused the recording")

    def remove(self, path: str) -> None:
        """Remove a device by its path from /sys on."""
        self._lib.umockdev_testbed_remove_device(self._testbed, path.encode())

    def close(self) -> None:
        """Delete the tree."""
        self._lib.g_object_unref(self._testbed)
        shutil.rmtree(self.root, ignore_errors=True)  # other files may be next to umockdev's own


class Testbed:
    """The USB devices of one host. Safe to use from several threads."""

    __test__ = False  # not a test class, whatever its name says to pytest

    def __init__(self, udev_delay: float = 0.0) -> None:
        self._umockdev = _Umockdev()
        self.root = self._umockdev.root
        self.uevents = Uevents(self.root, udev_delay)
        self.tree = Tree(self.root, self.uevents)
        self.devices: dict[str, tuple[UsbDevice, Place]] = {}
        self._controllers: dict[int, HostController] = {}
        self._numbers: dict[int, int] = {}
        probe = self.root / "sys/bus/usb/drivers_probe"
        probe.parent.mkdir(parents=True)
        self._writes = Written(self._written, probe, self._probed)

    @property
    def dev_folder(self) -> Path:
        """What held nodes begin with in /proc/PID/fd, instead of /dev."""
        return self.root / "dev"

    def environment(self) -> dict[str, str]:
        """What the process under test needs to see this testbed. One listening process per testbed (uevents.py)."""
        preload = f"{build('uevent_groups')}:{PRELOAD}"
        return {"LD_PRELOAD": preload, "UMOCKDEV_DIR": str(self.root)}

    def close(self) -> None:
        """Stop answering writes, delete the tree."""
        self._writes.stop()
        self.tree.close()
        self._umockdev.close()

    # ---- devices ---------------------------------------------------------------------------------------

    def add_host_controller(self, controller: HostController) -> None:
        """A PCI host controller with its root hubs; no uevents (it was there at boot)."""
        self._umockdev.add(controller_text(controller))
        for number in controller.buses:
            self._controllers[number] = controller
            self._numbers[number] = 1

    def place(self, port: str, number: int | None = None) -> Place:
        """Where a device plugged now at this port sits: the bus's next free number (wraps at 127; the root hub has 1)
        unless one is given.
        """
        bus = int(port.split("-")[0])
        if bus not in self._controllers:
            raise ValueError(f"{port}: no host controller has bus {bus}")
        if number is None:
            taken = {1, *(there.number for _, there in self.devices.values() if there.bus == bus)}
            last = self._numbers[bus]
            number = next(n for n in (*range(last + 1, 128), *range(2, last + 1)) if n not in taken)
        self._numbers[bus] = number
        return Place(self._controllers[bus].path, port, number)

    # ---- plugging --------------------------------------------------------------------------------------------

    def plug(self, port: str, device: UsbDevice, *, number: int | None = None, quiet: bool = False) -> Place:
        """Plug a device in. Unauthorised (root hub's authorized_default 0): the device alone, and its `add`.

        quiet: it was there at boot, no uevents.
        """
        with self.tree.exclusive():
            if port in self.devices:
                raise ValueError(f"{port}: a device is plugged there already")
            place = self.place(port, number)
            muted, self.uevents.muted = self.uevents.muted, self.uevents.muted or quiet
            allowed = self.tree.attribute(f"usb{place.bus}", "authorized_default") != "0"
            self._umockdev.add(device_text(device, place, configured=False, authorized=allowed))
            self.devices[port] = device, place
            # Before the events are sent: a listener may write at once.
            self._writes.watch(self.tree.folder(port) / "authorized")
            self.tree.announce("add", port)
            if allowed:
                self._configure(port)
            self.uevents.muted = muted
            return place

    def plug_recording(self, recording: Path, at: str | None = None, *, quiet: bool = False) -> list[str]:
        """Plug what a recording holds, at its own ports or with its first device at another; the ports used."""
        devices = recorded_devices(recording)
        first = next(iter(devices))
        ports = []
        for port, device in devices.items():
            target = port if at is None else at + port.removeprefix(first)
            if target not in self.devices:
                self.plug(target, device, quiet=quiet)
                ports.append(target)
        return ports

    def _configure(self, port: str) -> None:
        device, place = self.devices[port]
        for key, value in configuration(device).items():
            self.tree.set_attribute(port, key, f"{value}\n")
        allowed = self.tree.attribute(f"usb{place.bus}", "interface_authorized_default") != "0"
        for number, interface in enumerate(device.interfaces):
            name = place.interface(number)
            self._umockdev.add(interface_text(device, place, number, None, allowed))
            self.tree.set_natural(name, interface.driver)
            self._writes.watch(self.tree.folder(name) / "authorized")
            self.tree.announce("add", name)
        self._bind_device(port)
        # It depends on their first state: authorising one that started deauthorised (usb_authorize_interface) does not
        # probe it.
        if allowed:
            for name in self.tree.interfaces(port):
                self.tree.probe(name)

    def _bind_device(self, port: str) -> None:
        link = self.tree.folder(port) / "driver"
        if not link.is_symlink():
            link.symlink_to(driver_link(self.devices[port][1].path, "usb", "usb"))
            self.tree.announce("bind", port)

    def unplug(self, port: str) -> None:
        """Unplug a device, and with a hub everything behind it."""
        with self.tree.exclusive():
            if port not in self.devices:
                raise ValueError(f"{port}: nothing is plugged there")
            for below in sorted((p for p in self.devices if p.startswith((f"{port}.",))), reverse=True):
                if below in self.devices:
                    self.unplug(below)
            self._deconfigure(port)
            properties = {key: value for key, value in self.tree.properties(port).items() if key != "DRIVER"}
            _, place = self.devices.pop(port)
            self.uevents.send("unbind", place.path, properties)
            self._remove(place.path, properties)

    def _deconfigure(self, port: str) -> None:
        for name in self.tree.interfaces(port):
            self.tree.set_driver(name, None)
            path = "/" + str(self.tree.folder(name).relative_to(self.root / "sys"))
            self._remove(path, self.tree.properties(name))

    def _remove(self, path: str, properties: dict[str, str]) -> None:
        """Remove the folder first, because it is gone when a listener reads the `remove`."""
        self._umockdev.remove(f"/sys{path}")
        self.uevents.send("remove", path, properties)

    def reenumerate(self, port: str, device: UsbDevice | None = None) -> Place:
        """The device disconnects and returns with a new address (perhaps as another device)."""
        with self.tree.exclusive():
            old = self.devices[port][0]
            self.unplug(port)
            return self.plug(port, device or old)

    # ---- writes to sysfs -------------------------------------------------------------------------------------

    def _written(self, file: Path) -> None:
        with self.tree.exclusive():
            if not file.exists():
                return
            value = file.read_text().strip()
            if ":" in file.parent.name:
                self._interface_authorized(file.parent.name, value)
            elif file.parent.name in self.devices:
                self._device_authorized(file.parent.name, value)

    def _probed(self, name: str) -> None:
        with self.tree.exclusive():
            self.tree.probe(name)

    def _interface_authorized(self, name: str, value: str) -> None:
        if value == "0":
            self.tree.set_driver(name, None)  # allowing one again does not probe it

    def _device_authorized(self, port: str, value: str) -> None:
        if value == "0" and self.tree.interfaces(port):
            self._deconfigure(port)
            for key in CONFIGURATION:
                self.tree.set_attribute(port, key, "")
        elif value == "1" and not self.tree.interfaces(port):
            self._configure(port)
