"""qemu's emulated USB controllers and devices, as its monitor (QMP, HMP) shows them.

libxl uses it for type devicemodel, `xl qemu-monitor-command` for any guest. A result other than None is qemu's error
text. Sources: xen-facts 1.8, 3.2; lab transcripts of HVM guests.
"""

from __future__ import annotations

from collections.abc import Mapping

from xenplug.core.model import BusId, ControllerType, Device, Speed
from xenplug.core.policy.rules import ControllerSpec
from xenplug.simulator.qemu import DeviceModel, UsbHostDevice

DRIVERS = {"piix3-usb-uhci": (1, 2), "usb-ehci": (2, 6), "nec-usb-xhci": (3, 8)}
"""Version and usual number of ports."""
CARRIES = {1: {Speed.LOW, Speed.FULL}, 2: {Speed.HIGH}, 3: set(Speed)}
PORT_SPEED = {1: "full", 2: "high", 3: "full+high+super"}
MBITS = {Speed.LOW: "1.5", Speed.FULL: "12", Speed.HIGH: "480", Speed.SUPER: "5000", Speed.SUPER_PLUS: "10000"}


class QemuMonitor:
    """The monitor of one device model."""

    def __init__(self, model: DeviceModel) -> None:
        self._model = model
        self.controllers: dict[str, ControllerSpec] = {}
        """The emulated controllers that it has, by id (xenusb-0)."""

    def add_controller(self, id_: str, spec: ControllerSpec) -> str | None:
        if self._known(id_):
            return f"Duplicate device ID '{id_}'"
        self.controllers[id_] = spec
        return None

    def add_device(self, made: UsbHostDevice, device: Device | None) -> str | None:
        """Create a usb-host object on an emulated controller and open the device at once."""
        spec = self.controllers.get(made.bus)
        if spec is None:
            return f"Bus '{made.bus}.0' not found"
        if self._known(made.id):
            return f"Duplicate device ID '{made.id}'"
        if made.port > spec.ports or any(o.bus == made.bus and o.port == made.port for o in self._model.objects):
            return f"usb port {made.port} (bus {made.bus}.0) not found (in use?)"
        if device is None:
            return "failed to find host usb device " + made.id.removeprefix("xenusb-").replace("-", ":")
        if device.speed is not None and device.speed not in CARRIES[spec.version]:
            return (
                f'Warning: speed mismatch trying to attach usb device "{device.product or "USB Host Device"}" '
                f'({device.speed} speed) to bus "{made.bus}.0", port "{made.port}" ({PORT_SPEED[spec.version]} speed)'
            )
        self._model.open(self._model.add(made))
        return None

    def delete(self, id_: str) -> str | None:
        """device_del. The object is removed even if its device is gone."""
        if not self._known(id_):
            return f"Device '{id_}' not found"
        self.controllers.pop(id_, None)
        for made in [made for made in self._model.objects if id_ in (made.id, made.bus)]:
            self._model.drop(made)
        return None

    def human(self, line: str) -> str:
        """Answer an HMP line. Errors are text like any other (xen-facts T31)."""
        command, _, rest = line.strip().partition(" ")
        if line.strip() == "info usb":
            return "\n".join(self._describe(made) for made in self._model.objects)
        if line.strip() == "info qtree":
            return self._tree()
        if command == "device_del":
            error = self.delete(rest.strip())
        elif command == "device_add":
            driver, *words = rest.strip().split(",")
            error = self._human_add(driver, dict(word.split("=", 1) for word in words if "=" in word))
        else:
            return f"unknown command: '{command}'"
        return f"Error: {error}" if error else ""

    def _tree(self) -> str:
        """The part of `info qtree` that is read: the devices that have an id, below their buses."""
        names = {version: name for name, (version, _) in DRIVERS.items()}
        lines = []
        for id_, spec in self.controllers.items():
            lines += [f'      dev: {names[spec.version]}, id "{id_}"', f"        bus: {id_}.0"]
            lines += [f'          dev: usb-host, id "{o.id}"' for o in self._model.objects if o.bus == id_]
        return "\n".join(lines)

    def _human_add(self, driver: str, options: Mapping[str, str]) -> str | None:
        if driver in DRIVERS:
            version, ports = DRIVERS[driver]
            spec = ControllerSpec(ControllerType.DEVICEMODEL, version, int(options.get("p2", ports)))
            return self.add_controller(options.get("id", ""), spec)
        if driver != "usb-host":
            return f"'{driver}' is not a valid device model name"
        device = self._named(options)
        busid = device.port if device else BusId(f"{options.get('hostbus')}-{options.get('hostport')}")
        bus = options.get("bus", "").removesuffix(".0")
        return self.add_device(
            UsbHostDevice(options.get("id", ""), bus, int(options.get("port", "1")), busid, None), device
        )

    def _named(self, options: Mapping[str, str]) -> Device | None:
        kernel = self._model.kernel
        if "hostport" in options:
            return kernel.device(f"{options.get('hostbus', '0')}-{options['hostport']}")
        return kernel.at(int(options.get("hostbus", "0")), int(options.get("hostaddr", "0")))

    def _known(self, id_: str) -> bool:
        return id_ in self.controllers or any(made.id == id_ for made in self._model.objects)

    def _describe(self, made: UsbHostDevice) -> str:
        speed = MBITS[made.device.speed or Speed.HIGH] if made.device else "1.5"
        product = made.device.product if made.device and made.device.product else "USB Host Device"
        return f"  Device 0.0, Port {made.port}, Speed {speed} Mb/s, Product {product}, ID: {made.id}"
