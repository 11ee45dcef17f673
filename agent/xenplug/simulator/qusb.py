"""qemu's qusb backend: serves the ports in xenstore (hw/usb/xen-usb.c).

After any change below a controller it checks all ports of that controller again. It only logs failures: xenstore keeps
the busid, and xl has already reported success.
"""

from __future__ import annotations

from collections.abc import Callable

from xenplug.core.model import BusId, Speed
from xenplug.simulator import vusb
from xenplug.simulator.loop import later
from xenplug.simulator.qemu import DeviceModel, UsbHostDevice
from xenplug.simulator.sockets import PORT_TEXT
from xenplug.simulator.store import StoreTree

ABORT = (
    "xen-qemu-system-i386: ../../migration/savevm.c:851: vmstate_register_with_alias_id: "
    "Assertion `!se->compat || se->instance_id == 0' failed."
)
UNCLAIMED = "hw/usb/core.c:427: usb_handle_packet: Assertion `dev->state == USB_STATE_DEFAULT' failed."
NO_DEVICE = "hw/usb/core.c:740: usb_ep_get: Assertion `dev != NULL' failed."
SLOW_ENUMERATION = {Speed.LOW, Speed.FULL}


class QusbBackend:
    """The backend in one device model. `appeared` is called with a controller's id once its frontend may connect."""

    def __init__(self, model: DeviceModel, tree: StoreTree, domid: int, appeared: Callable[[int], None]) -> None:
        self._model = model
        self._tree = tree
        self._domid = domid
        self._appeared = appeared
        self._base = f"/local/domain/0/backend/qusb/{domid}"
        self.deaf: set[tuple[int, int]] = set()
        """Controllers and ports with failure `silent`: not served until the port is cleared."""
        self.eager: set[tuple[int, int]] = set()
        """Controllers and ports with failure `grab`."""
        tree.write(f"/local/domain/0/device-model/{domid}/backends/qusb", "")
        tree.watch(self._base, self._changed)

    def _changed(self, path: str) -> None:
        names = path.removeprefix(self._base).split("/")
        for name in names[1:2] or self._tree.directory(self._base):
            if self._model.alive:
                self._look(int(name))

    def _look(self, controller: int) -> None:
        found = vusb.read(self._tree, self._domid, controller)
        if found is None or self._tree.read(f"{found.backend}/state") is None:
            for made in self._made(controller):
                self._model.drop(made)
            return
        if self._tree.read(f"{found.backend}/state") == "1":
            self._tree.write(f"{found.backend}/hotplug-status", "connected")
            self._tree.write(f"{found.backend}/state", "2")
            self._appeared(controller)
        # Only the controller's own ports: a port written beyond them is ignored (xen-facts T9).
        for port in range(1, found.ports + 1):
            if self._model.alive:
                self._serve(found, port, self._tree.read(found.port(port)) or "")

    def _serve(self, found: vusb.Vusb, port: int, value: str) -> None:
        guest_port = (found.id, port)
        made = next((made for made in self._made(found.id) if made.port == port), None)
        if not value:
            self.deaf.discard(guest_port)
            if made:
                self._remove(made)
        elif made is None and guest_port not in self.deaf:  # a busid over another busid is ignored (xen-facts T34)
            self._take(found, port, value)

    def _remove(self, made: UsbHostDevice) -> None:
        """The guest's next request to the address of the removed device reaches nothing: sometimes in the lab (lab 17),
        always here.
        """
        fatal = made.asked and self._model.owner.configures(made.qusb)
        self._model.drop(made)
        if fatal:
            self._model.log.append(NO_DEVICE)
            self._model.kill()

    def _take(self, found: vusb.Vusb, port: int, value: str) -> None:
        if not PORT_TEXT.match(value):
            self._say(found, f"device {value} illegal specification")
            return
        if any(made.port == port and made.qusb not in (None, found.id) for made in self._model.objects):
            self._model.log.append(ABORT)  # lab 4: one port number on two controllers
            self._model.kill()
            return
        bus = f"xen-qusb-{found.id}"
        made = UsbHostDevice(f"{bus}-{port}", bus, port, BusId(value), found.id, eager=(found.id, port) in self.eager)
        self._model.add(made)
        later(self._model.kernel.times.claim, self._open, found, made)

    def _open(self, found: vusb.Vusb, made: UsbHostDevice) -> None:
        if made not in self._model.objects:
            return
        device = self._model.kernel.device(made.busid)
        if device is None:
            later(self._model.kernel.times.phantom_crash, self._asked, made)
        if device is None or device.speed in SLOW_ENUMERATION or (device.speed is Speed.HIGH and found.version == 2):
            self._model.open(made)
            return
        # Opened to learn its speed, and closed; the next change of the controller tries again (T16, T17, T33).
        self._model.open(made, announce=False)
        self._model.drop(made)
        self._say(found, f"device {made.busid} wrong speed")

    def _asked(self, made: UsbHostDevice) -> None:
        """The guest sends a request to a device that never existed (lab 16)."""
        absent = made in self._model.objects and not made.device and not self._model.kernel.device(made.busid)
        if absent and self._model.owner.configures(made.qusb):
            self._model.log.append(UNCLAIMED)
            self._model.kill()

    def _made(self, controller: int) -> list[UsbHostDevice]:
        return [made for made in self._model.objects if made.qusb == controller]

    def _say(self, found: vusb.Vusb, text: str) -> None:
        self._model.log.append(f"xen be: qusb-{found.id}: {text}")
