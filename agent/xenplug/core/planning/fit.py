"""Which guest controller can carry which device, and which guest port to use: known before anything is tried."""

from __future__ import annotations

from collections.abc import Iterable

from xenplug.core.model import ControllerType, Device, Guest, GuestController, GuestPort, GuestType, Speed
from xenplug.core.planning.steps import Cause
from xenplug.core.policy.guests import default_controller
from xenplug.core.policy.rules import ControllerSpec, GuestPolicy

SPEEDS = {
    (ControllerType.DEVICEMODEL, 1): {Speed.LOW, Speed.FULL},
    # EHCI without companions takes 480 Mb/s only (xen-facts 3.2).
    (ControllerType.DEVICEMODEL, 2): {Speed.HIGH},
    (ControllerType.DEVICEMODEL, 3): set(Speed),
}
PARAVIRTUAL = {ControllerType.PV, ControllerType.QUSB}
NO_ISOCHRONOUS_KINDS = {"audio", "video"}

HVM_DEFAULT = default_controller(ControllerType.DEVICEMODEL)
PV_DEFAULT = default_controller(ControllerType.QUSB)


def default_spec(guest: Guest) -> ControllerSpec:
    """The controller created for a guest that the policy does not list under `guests:`."""
    return HVM_DEFAULT if guest.type is GuestType.HVM else PV_DEFAULT


def unfit(device: Device, kind: ControllerType, version: int) -> Cause | None:
    """Why a controller of this type and version cannot carry the device; None if it can."""
    if device.speed is not None and device.speed not in _carried(kind, version):
        return Cause.UNFIT_SPEED
    # qemu's qusb backend answers isochronous transfers with an error (xen-usb.c: usbback_init_packet). A device that #
    # depends on them is useless there; others (a headset's buttons, a Bluetooth dongle) still work in part.
    if kind is ControllerType.QUSB and device.isochronous and device.kinds & NO_ISOCHRONOUS_KINDS:
        return Cause.UNFIT_ISOCHRONOUS
    return None


def _carried(kind: ControllerType, version: int) -> set[Speed]:
    if kind in PARAVIRTUAL:
        return {Speed.LOW, Speed.FULL} | ({Speed.HIGH} if version >= 2 else set())
    return SPEEDS.get((kind, version), set())


def choose_port(
    guest: Guest, device: Device, allotted: Iterable[GuestPort], skip: int = 0, usbback: bool = False
) -> GuestPort | Cause | None:
    """A free guest port for the device on the guest's controllers: the first one by devid, then by port.

    NO_FRONTEND: all controllers that fit wait for the guest's driver; NO_FREE_PORT: all are full; None: none fits.
    `allotted` are ports already taken in this plan; the first `skip` free ports are not used.
    """
    there = [c for c in sorted(guest.controllers, key=lambda c: c.id) if not _out_of_reach(guest, c, usbback)]
    fitting = [c for c in there if not unfit(device, c.type, c.version)]
    if not fitting:
        return None
    ready = [c for c in fitting if c.connected or c.type is ControllerType.DEVICEMODEL]
    if not ready:
        return Cause.NO_FRONTEND
    taken = {(s.controller, s.port) for s in allotted if s.domid == guest.domid}
    free = [GuestPort(guest.domid, c.id, port) for c in ready for port in _free(c, guest, taken)]
    return free[skip % len(free)] if free else Cause.NO_FREE_PORT


def _out_of_reach(guest: Guest, controller: GuestController, usbback: bool) -> bool:
    if controller.type is ControllerType.PV and not (usbback or controller.connected):
        return True  # dead: left behind by a failed usbctrl-attach (xen-facts T43)
    return guest.stubdom and controller.type is ControllerType.DEVICEMODEL


def _free(controller: GuestController, guest: Guest, taken: set[tuple[int, int]]) -> list[int]:
    in_use_elsewhere = _numbers_elsewhere(controller, guest, taken)
    return [
        port
        for port, busid in sorted(controller.ports.items())
        if busid is None and (controller.id, port) not in taken and port not in in_use_elsewhere
    ]


def _numbers_elsewhere(controller: GuestController, guest: Guest, taken: set[tuple[int, int]]) -> set[int]:
    """Port numbers in use on the guest's other qusb controllers. Its qemu aborts if two devices have the same port
    number (qemu 7.2, seen on real Xen: vmstate_register_with_alias_id).
    """
    if controller.type is not ControllerType.QUSB:
        return set()
    others = {c.id: c for c in guest.controllers if c.id != controller.id and c.type is ControllerType.QUSB}
    occupied = {port for c in others.values() for port, busid in c.ports.items() if busid}
    return occupied | {port for id_, port in taken if id_ in others}


def new_controller(
    guest: Guest, policy: GuestPolicy, made: int, device: Device, usbback: bool = False
) -> ControllerSpec | Cause:
    """The controller to create for the device, or why none can be created. `usbback`: dom0's kernel has that driver."""
    spec = policy.controller or default_spec(guest)
    if guest.stubdom and spec.type is ControllerType.DEVICEMODEL:
        return Cause.STUB_DOMAIN
    if policy.own_only or made >= policy.max_controllers:
        return _why_none(guest, device)
    if spec.type is ControllerType.PV and not usbback:
        return Cause.NO_USBBACK
    if cause := unfit(device, spec.type, spec.version):
        return cause
    if guest.device_model is None and spec.type is not ControllerType.PV:
        return Cause.NO_DEVICE_MODEL
    return spec


def _why_none(guest: Guest, device: Device) -> Cause:
    causes = [unfit(device, c.type, c.version) for c in guest.controllers]
    if not causes:
        return Cause.NO_CONTROLLER
    return next((cause for cause in causes if cause), Cause.NO_FREE_PORT) if all(causes) else Cause.NO_FREE_PORT
