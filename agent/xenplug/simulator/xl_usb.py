"""usbctrl-attach, usbctrl-detach, usbdev-detach and usb-list of the simulated xl (xen-facts 1.1 to 1.5, 2.2 to 2.7)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from xenplug.core.model import ControllerType, GuestType
from xenplug.core.policy.rules import ControllerSpec
from xenplug.simulator import vusb
from xenplug.simulator.answers import NOT_ADDED, NOT_REMOVED, SIGSEGV, Answer, XlRefusal, atoi, error, unreadable
from xenplug.simulator.domain import SimGuest
from xenplug.simulator.toolstack import SimulatedToolstack, XlCall

NO_TYPE = "libxl_dom.c:37:libxl__domain_type"
NO_INFO = "libxl_dom.c:1216:libxl__userdata_path"
COMPLETE = "libxl_device.c:1481:device_addrm_aocomplete"
CALLBACK = "libxl_device.c:1181:device_backend_callback"
QMP = "libxl_qmp.c:1837:qmp_ev_parse_error_messages"
CONTROLLER_SETDEFAULT = "libxl__device_usbctrl_setdefault"
EMULATED_PORTS = {1: (2, "always 2", 88), 2: (6, "always 6", 98), 3: (8, "limited to 15", 110)}
"""For devicemodel, by version: the usual number of ports, and the line of libxl_usb.c that reports another number."""


def no_type(domid: int) -> str:
    """libxl's first error for a domid that does not exist, in calls of all kinds."""
    return error(NO_TYPE, f"unable to get domain type for domid={domid}")


def no_domain(domid: int) -> str:
    """libxl's error for a domid that does not exist."""
    return no_type(domid) + error(NO_INFO, f"unable to find domain info for domain {domid}: Success")


def no_model(domid: int) -> str:
    """libxl's error for a qusb controller without a qemu to serve it."""
    return error("libxl_dm.c:3845:libxl__dm_check_start", "device model required but not running", domid)


async def usbctrl_attach(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    asked = _read_words(words[1:])
    domid = host.find(words[0])
    await host.turn()
    try:
        guest = host.guests.of(domid)
        if guest is None:
            raise XlRefusal(no_domain(domid) + NOT_ADDED)
        spec = complete_controller(asked, automatic(guest))
        if not guest.ready:
            raise XlRefusal(NOT_ADDED)  # the domain is still being created: xl prints no reason (xen-facts T24)
        if host.lacks_model(guest, spec.type):
            raise XlRefusal(no_model(domid) + NOT_ADDED)
        await _make(host, guest, spec)
    except XlRefusal as refused:
        raise XlRefusal(refused.answer.stderr + "libxl_device_usbctrl_add failed.\n") from refused
    return Answer()


def _read_words(words: list[str]) -> dict[str, str]:
    asked: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in ("type", "version", "ports"):
            raise XlRefusal(f"Unknown string `{word}' in usbctrl spec\n")
        if key == "type" and value.lower() not in ("auto", *ControllerType):
            raise XlRefusal(f"Invalid usb controller type '{value}'\n")
        asked[key] = value.lower()
    return asked


def complete_controller(asked: Mapping[str, str], automatic: ControllerSpec) -> ControllerSpec:
    """A controller with libxl's defaults (libxl_usb.c: libxl__device_usbctrl_setdefault); 0 and invalid text mean the
    default.

    `automatic`: what `type=auto` means. Raises XlRefusal if libxl refuses it.
    """
    type_ = asked.get("type", "auto")
    version, ports = atoi(asked.get("version", "0")) or 2, atoi(asked.get("ports", "0"))
    if type_ == "auto":
        type_ = automatic.type
    if type_ != ControllerType.DEVICEMODEL:
        if version not in (1, 2):
            raise _setdefault(67, "USB version for paravirtualized devices must be 1 or 2")
        if not 0 <= ports <= 31:
            raise _setdefault(75, "Number of ports for USB controller is limited to 31")
        return ControllerSpec(ControllerType(type_), version, ports or 8)
    if version not in EMULATED_PORTS:
        raise _setdefault(117, "Illegal USB version")
    usual, limit, where = EMULATED_PORTS[version]
    if ports > 15 or (version < 3 and ports not in (0, usual)):
        raise _setdefault(where, f"Number of ports for USB controller of version {version} is {limit}")
    return ControllerSpec(ControllerType.DEVICEMODEL, version, ports or usual)


def automatic(guest: SimGuest) -> ControllerSpec:
    """The type that libxl chooses, on a host without usbback (xen-facts 2.1)."""
    if guest.config.type is GuestType.HVM:
        return ControllerSpec(ControllerType.DEVICEMODEL, 2, 6)
    return ControllerSpec(ControllerType.QUSB, 2, 8)


def _setdefault(where: int, text: str) -> XlRefusal:
    return XlRefusal(error(f"libxl_usb.c:{where}:{CONTROLLER_SETDEFAULT}", text) + NOT_ADDED)


async def _make(host: SimulatedToolstack, guest: SimGuest, spec: ControllerSpec) -> None:
    tree, domid = host.guests.tree, guest.domid or 0
    id_ = vusb.next_id(tree, domid)
    failed = error(COMPLETE, f"Unable to add vusb with id {id_}", domid)
    if spec.type is ControllerType.DEVICEMODEL:
        try:
            problem = host.monitor(domid).add_controller(f"xenusb-{id_}", spec)
        except XlRefusal as refused:
            raise XlRefusal(refused.answer.stderr + failed) from refused
        if problem:
            raise XlRefusal(error(QMP, problem, domid) + failed)
    made = vusb.write(tree, domid, id_, spec)
    if spec.type is ControllerType.PV:  # the host has no usbback to serve it: it stays, dead (xen-facts T43)
        await asyncio.sleep(host.guests.times.backend_wait)
        raise XlRefusal(error(CALLBACK, f"unable to add device with path {made.backend}", domid) + failed)
    guest.saved[id_] = spec


async def usbctrl_detach(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    domid, id_ = host.find(words[0]), atoi(words[1])
    await host.turn()
    found = vusb.read(host.guests.tree, domid, id_)
    if found is None:
        raise XlRefusal(unreadable(f"{vusb.folder(domid)}/{id_}") + f"Unknown device {id_}.\n")
    failed = error(COMPLETE, f"Unable to remove vusb with id {id_}", domid) + "libxl_device_usbctrl_remove failed.\n"
    _empty(host, found, failed)
    guest = host.guests.of(domid)
    if found.type is ControllerType.DEVICEMODEL:
        problem = host.monitor(domid).delete(f"xenusb-{id_}")
        if problem:
            raise XlRefusal(error(QMP, problem, domid) + failed)
        _gone(host, guest, found)
        return Answer()
    return await _close(host, guest, found, failed)


def _empty(host: SimulatedToolstack, found: vusb.Vusb, failed: str) -> None:
    """Detach every device from the controller. A port whose device is gone makes the whole call fail (T2)."""
    for port in range(1, found.ports + 1):
        value = host.guests.tree.read(found.port(port))
        if value and host.guests.kernel.device(value) is None:
            raise XlRefusal(failed)
        if value:
            _take_off(host, found, port)


async def _close(host: SimulatedToolstack, guest: SimGuest | None, found: vusb.Vusb, failed: str) -> Answer:
    """Ask the backend to close and wait for it: for a long time if it does not answer, then by force (xen-facts T30,
    lab 5).
    """
    times = host.guests.times
    host.guests.tree.write(f"{found.backend}/state", "5")
    answers = guest is not None and guest.serving is not None and found.id in guest.connected
    if guest and (guest.paused or guest.ending):
        await asyncio.sleep(times.paused_wait)
    elif not answers:
        await asyncio.sleep(2 * times.backend_wait)
    _gone(host, guest, found)
    if answers or (guest and (guest.paused or guest.ending)):
        return Answer()
    raise XlRefusal(error(CALLBACK, f"unable to remove device with path {found.backend}", found.domid) + failed)


def _gone(host: SimulatedToolstack, guest: SimGuest | None, found: vusb.Vusb) -> None:
    vusb.remove(host.guests.tree, found)
    if guest:
        guest.connected.discard(found.id)
        guest.saved.pop(found.id, None)


async def usbdev_detach(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    if len(words) > 3:
        raise XlRefusal("Invalid arguments.\n")
    domid, id_, port = host.find(words[0]), atoi(words[1]), atoi(words[2])
    await host.turn()
    found = vusb.read(host.guests.tree, domid, id_)
    if found is None:
        raise XlRefusal("", code=None, signal=SIGSEGV)  # lab 8: xl itself crashes
    value = host.guests.tree.read(found.port(port))
    if not value or host.guests.kernel.device(value) is None:
        raise XlRefusal(f"Unknown device at controller {id_} port {port}.\n")
    _take_off(host, found, port)
    return Answer()


def _take_off(host: SimulatedToolstack, found: vusb.Vusb, port: int) -> None:
    tree, node = host.guests.tree, found.port(port)
    value = tree.read(node) or ""
    device = host.guests.kernel.device(value)
    tree.write(node, "")
    if found.type is not ControllerType.DEVICEMODEL or device is None:
        return
    try:
        problem = host.monitor(found.domid).delete(f"xenusb-{device.bus}-{device.number}")
        said = error(QMP, problem, found.domid) if problem else ""
    except XlRefusal as refused:
        said = refused.answer.stderr
    if said:  # the busid is written back: the device has another address than when it was attached (xen-facts T22)
        tree.write(node, value)
        raise XlRefusal(said + NOT_REMOVED + "libxl_device_usbdev_remove failed.\n")


async def usb_list(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    if len(words) > 1:
        raise XlRefusal("Invalid arguments.\n", code=255)
    domid = host.find(words[0])
    await host.turn()
    tables = [_table(host, found) for found in vusb.all_of(host.guests.tree, domid)]
    return replace(Answer(), stdout="".join(tables))


def _table(host: SimulatedToolstack, found: vusb.Vusb) -> str:
    tree = host.guests.tree
    emulated = found.type is ControllerType.DEVICEMODEL
    state = "0" if emulated else tree.read(f"{found.frontend}/state") or "-1"
    head = f"{'Devid':<6} {'Type':<12} {'BE':<3} {'state':<5} {'usb-ver':<7} {'ports':<5}\n"
    row = f"{found.id:<6} {found.type:<12} {0:<3} {state:<5} {found.version:<7} {found.ports:<5}\n"
    return head + row + "".join(_port_line(host, found, port) for port in range(1, found.ports + 1))


def _port_line(host: SimulatedToolstack, found: vusb.Vusb, port: int) -> str:
    """Hex; and a port whose device is gone looks empty (xen-facts T3, T4)."""
    device = host.guests.kernel.device(host.guests.tree.read(found.port(port)) or "")
    return f"  Port {port}:" + (f" Bus {device.bus:03x} Device {device.number:03x}\n" if device else "\n")
