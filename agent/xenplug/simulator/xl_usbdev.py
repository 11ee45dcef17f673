"""usbdev-attach of the simulated xl, in libxl's order (xen-facts 1.2, 2.4).

It checks when it starts and writes when it ends, without a lock in between: two overlapping calls lose a device, or
attach one device to two guests (xen-facts 2.10).
"""

from __future__ import annotations

from dataclasses import dataclass

from xenplug.core.model import BusId, ControllerType, Device
from xenplug.core.usb.hubs import HUB_CLASS_CODE
from xenplug.simulator import vusb
from xenplug.simulator.answers import NOT_ADDED, Answer, XlRefusal, atoi, error, strtoul, unreadable
from xenplug.simulator.domain import SimGuest
from xenplug.simulator.failures import How
from xenplug.simulator.qemu import UsbHostDevice
from xenplug.simulator.toolstack import Attaching, SimulatedToolstack, XlCall
from xenplug.simulator.xl_usb import QMP, automatic, no_domain, no_model

ADD = "libxl__device_usbdev_add"
DEVICE_SETDEFAULT = "libxl__device_usbdev_setdefault"
OLD_TYPES = "Invalid parameter type for 'hostbus', expected: integer"


@dataclass(frozen=True, slots=True)
class _Request:
    bus: int = 0
    number: int = 0
    controller: int | None = None
    port: int = 0


@dataclass(frozen=True, slots=True)
class _Target:
    guest: SimGuest
    device: Device
    controller: vusb.Vusb
    port: int


async def usbdev_attach(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    wish = _read_words(words[1:])
    domid = host.find(words[0])
    mine = _begin(host, domid)
    try:
        guest_port = _look(host, domid, wish)
        await host.turn()
        _write(host, call, guest_port, mine)
    except XlRefusal as refused:
        raise XlRefusal(refused.answer.stderr + NOT_ADDED + "libxl_device_usbdev_add failed.\n") from refused
    finally:
        host.attaching.remove(mine)
    return Answer()


def _begin(host: SimulatedToolstack, domid: int) -> Attaching:
    mine = Attaching(domid, met=[other for other in host.attaching if other.domid == domid])
    host.attaching.append(mine)
    return mine


def _read_words(words: list[str]) -> _Request:
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in ("type", "hostbus", "hostaddr", "controller", "port"):
            raise XlRefusal(f"Unknown string `{word}' in usbdev spec\n")
        if key == "type" and value.lower() != "hostdev":
            raise XlRefusal("Invalid usb device type: (null)\n")
        values[key] = value
    controller = atoi(values["controller"]) if "controller" in values else None
    bus, number = strtoul(values.get("hostbus", "")), strtoul(values.get("hostaddr", ""))
    return _Request(bus, number, controller, atoi(values.get("port", "")))


def _look(host: SimulatedToolstack, domid: int, wish: _Request) -> _Target:
    tree = host.guests.tree
    controller = None if wish.controller is None else vusb.read(tree, domid, wish.controller)
    if wish.controller is not None and controller is None:
        raise XlRefusal(unreadable(f"{vusb.folder(domid)}/{wish.controller}"))
    device = host.guests.kernel.at(wish.bus, wish.number)
    if (
        device is None or device.hub or device.device_class.class_ == HUB_CLASS_CODE
    ):  # the only devices that are refused (xen-facts T37)
        raise XlRefusal(error(f"libxl_usb.c:1732:{ADD}", "USB device is not assignable.", domid))
    _refuse_assigned(host, domid, device)
    guest = host.guests.of(domid)
    if guest is None:
        raise XlRefusal(no_domain(domid))
    if wish.port and controller is None:
        raise _setdefault(domid, 1166, "USB controller must be specified if you specify port")
    if not guest.ready:
        raise XlRefusal("")  # the domain is still being created: xl prints no reason (xen-facts T24)
    return _Target(guest, device, *_choose(host, guest, controller, wish.port))


def _refuse_assigned(host: SimulatedToolstack, domid: int, device: Device) -> None:
    """get_assigned_devices: one port on the host whose device is gone makes every attach fail (xen-facts T1)."""
    where = f"libxl_usb.c:1740:{ADD}"
    for busid in host_busids(host):
        here = host.guests.kernel.device(busid)
        if here is None:
            text = "cannot determine if device is assigned, refusing to continue"
            failed = error("libxl_usb.c:945:get_assigned_devices", "fail to get assigned devices")
            raise XlRefusal(failed + error(where, text, domid))
        if here.key == device.key:
            text = "USB device already attached to a domain"
            raise XlRefusal(error(f"libxl_usb.c:1746:{ADD}", text, domid))


def host_busids(host: SimulatedToolstack) -> list[BusId]:
    """Every busid on a port of a controller of a domain. Ports beyond the controller's are not read (T9)."""
    tree = host.guests.tree
    domids = [int(name) for name in tree.directory("/local/domain") if name.isdigit()]
    ports = ((found, port) for n in domids for found in vusb.all_of(tree, n) for port in range(1, found.ports + 1))
    return [BusId(value) for found, port in ports if (value := tree.read(found.port(port)))]


def _choose(
    host: SimulatedToolstack, guest: SimGuest, controller: vusb.Vusb | None, port: int
) -> tuple[vusb.Vusb, int]:
    domid = guest.domid or 0
    if controller and port:
        if host.guests.tree.read(controller.port(port)):
            raise _setdefault(domid, 1214, "The controller port isn't available")
        return controller, port
    among = [controller] if controller else vusb.all_of(host.guests.tree, domid)
    for found in among:
        for free in range(1, found.ports + 1):
            if not host.guests.tree.read(found.port(free)):
                return found, free
    if controller:
        raise _setdefault(domid, 1241, "No available port under specified controller")
    return _implicit(host, guest), 1


def _implicit(host: SimulatedToolstack, guest: SimGuest) -> vusb.Vusb:
    """libxl creates a controller by itself, but in xenstore only: qemu gets no emulated one (xen-facts T5)."""
    spec, domid = automatic(guest), guest.domid or 0
    if host.lacks_model(guest, spec.type):
        raise XlRefusal(no_model(domid))
    id_ = vusb.next_id(host.guests.tree, domid)
    guest.saved[id_] = spec
    return vusb.write(host.guests.tree, domid, id_, spec)


def _setdefault(domid: int, where: int, text: str) -> XlRefusal:
    return XlRefusal(error(f"libxl_usb.c:{where}:{DEVICE_SETDEFAULT}", text, domid))


def _write(host: SimulatedToolstack, call: XlCall, guest_port: _Target, mine: Attaching) -> None:
    tree, node = host.guests.tree, guest_port.controller.port(guest_port.port)
    for other in mine.met:
        # As measured: two calls for one guest both exit 0 and one device is in xenstore, the later one's.
        if other.node:
            tree.write(other.node, "")
    if guest_port.guest.qusb and call.how in (How.SILENT, How.GRAB):
        marked = guest_port.guest.qusb.deaf if call.how == How.SILENT else guest_port.guest.qusb.eager
        marked.add((guest_port.controller.id, guest_port.port))
    tree.write(node, guest_port.device.port)
    mine.node = node
    if guest_port.controller.type is ControllerType.DEVICEMODEL and call.how != How.SILENT:
        said = _hand_to_qemu(host, guest_port)
        if said:
            tree.write(node, "")
            raise XlRefusal(said)


def _hand_to_qemu(host: SimulatedToolstack, guest_port: _Target) -> str:
    """Add the device through QMP; libxl's lines if qemu refused."""
    domid, device = guest_port.controller.domid, guest_port.device
    try:
        monitor = host.monitor(domid)
    except XlRefusal as refused:
        return refused.answer.stderr
    bus = f"xenusb-{guest_port.controller.id}"
    made = UsbHostDevice(f"xenusb-{device.bus}-{device.number}", bus, guest_port.port, device.port, None)
    present = host.guests.kernel.at(device.bus, device.number)
    problem = monitor.add_device(made, present) if host.sends_integers else OLD_TYPES
    return error(QMP, problem, domid) if problem else ""
