"""Checks of the running guests: ports that block the host, controllers without a backend, guests without a driver."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from xenplug.core.doctor.facts import Facts, RunningGuest
from xenplug.core.doctor.findings import Check, Finding, bad, unknown, warning
from xenplug.core.model import ControllerType, Device, GuestController, GuestState
from xenplug.core.planning.fit import unfit
from xenplug.core.planning.steps import Cause


def readable(facts: Facts) -> Iterator[Finding]:
    """Only root can read xenstore."""
    if facts.running is None:
        yield unknown("the running guests are not known", "run this as root, with xenstored running")


def stale(facts: Facts) -> Iterator[Finding]:
    """A port with a device that is no longer plugged in makes every later attach on the host fail."""
    for running in facts.running or ():
        for controller in running.guest.controllers:
            for port, busid in controller.ports.items():
                if busid and busid not in facts.present:
                    yield bad(
                        f"port {port} of controller {controller.id} of {running.guest.name} still names {busid}, which "
                        "is not plugged in: no USB device can be attached to any guest",
                        f"start the agent ({facts.system.service('start')}); it clears the port",
                    )


def untaken(facts: Facts) -> Iterator[Finding]:
    """xl exits 0 even if the guest never gets the device, and still lists a device that the guest has lost."""
    for running, controller, port, device in _standing(facts):
        name, claim = running.guest.name, running.claims[device.port]
        here = f"port {port} of controller {controller.id} of {name} names {device.port} ({device.tag})"
        again = f"xl usbdev-detach {name} {controller.id} {port}"
        cause = unfit(device, controller.type, controller.version)
        if not claim.taken or cause is Cause.UNFIT_SPEED:
            why = f": {_carries(controller)}" if cause is Cause.UNFIT_SPEED else ""
            yield bad(f"{here}, but the guest does not have it{why}", f"{again}, then attach it again")
        elif cause:
            yield warning(f"{here}: a qusb controller cannot carry sound or video",
                          f"{again}, and attach it to an HVM guest with an emulated controller")  # fmt: skip
    for path, value in facts.beyond.items():
        yield bad(f"{path} names {value}, but the controller has no such port", f'xenstore-write {path} ""')


def _standing(facts: Facts) -> Iterator[tuple[RunningGuest, GuestController, int, Device]]:
    """The plugged-in devices on ports of guests whose device model runs."""
    for running in facts.running or ():
        held = [(c, port, busid) for c in running.guest.controllers for port, busid in c.ports.items() if busid]
        for controller, port, busid in held if running.model_alive else ():
            if busid in facts.usb.devices and busid in running.claims:
                yield running, controller, port, facts.usb.devices[busid]


def _carries(controller: GuestController) -> str:
    return f"a {controller.type} controller of version {controller.version} does not carry its speed"


def phantom(facts: Facts) -> Iterator[Finding]:
    """For HVM, xl creates a missing controller in xenstore only (T5). QEMU keeps devices that were pulled (T21)."""
    addresses = {device.address for device in facts.usb.devices.values()}
    for running in facts.running or ():
        guest = running.guest
        if running.objects is None:
            continue
        for controller in guest.controllers:
            if controller.type is ControllerType.DEVICEMODEL and f"xenusb-{controller.id}" not in running.objects:
                yield bad(
                    f"controller {controller.id} of {guest.name} exists only in xenstore, not in the device model, so "
                    "the guest never gets a device that is attached to it",
                    f"xenstore-rm /libxl/{guest.domid}/device/vusb/{controller.id}, or restart the guest",
                )
        for held in sorted(running.objects):
            found = re.fullmatch(r"xenusb-(\d+)-(\d+)", held)
            if found and f"{found[1]}.{found[2]}" not in addresses:
                yield warning(
                    f"the device model of {guest.name} keeps {held}, which is no longer plugged in, so "
                    "the next device with this address cannot be attached",
                    f"xl qemu-monitor-command {guest.name} 'device_del {held}'",
                )


def hung(facts: Facts) -> Iterator[Finding]:
    """libxl's lock on a guest has no timeout, so a hanging xl blocks all others (T32)."""
    for call in facts.waiting:
        yield bad(
            f"`{call.words}` (process {call.pid}) has run for {call.seconds:.0f} s, and every other xl command for "
            "its guest waits for it",
            f"kill {call.pid}",
        )


def saved(facts: Facts) -> Iterator[Finding]:
    """Xen's init script saves guests by default; neither xl nor QEMU restores USB devices."""
    if facts.saved_to and facts.named:
        yield warning(
            f"guests are saved to {facts.saved_to} when dom0 shuts down; they lose their USB devices, and restoring an "
            "HVM guest with an emulated controller may fail",
            f"write XENDOMAINS_SAVE= in {facts.saved_by}, so guests are shut down instead",
        )


def dead_model(facts: Facts) -> Iterator[Finding]:
    """Without the process of the device model, xl reports success for everything but does nothing."""
    for running in facts.running or ():
        if running.guest.device_model and not running.model_alive:
            yield bad(
                f"the device model of {running.guest.name} has ended: xl reports success but does nothing",
                f"read /var/log/xen/qemu-dm-{running.guest.name}.log, then restart the guest",
            )


def no_model(facts: Facts) -> Iterator[Finding]:
    """A guest that was started without a device model cannot get one later."""
    for running in facts.running or ():
        guest = running.guest
        if guest.name in facts.named and guest.device_model is None and guest.state is not GuestState.STARTING:
            yield bad(
                f"{guest.name} runs without a device model and cannot take a USB device",
                'write usbctrl=["type=qusb,version=2,ports=8"] in its configuration and restart it',
            )


def frontend(facts: Facts) -> Iterator[Finding]:
    """Without a driver in the guest, dom0 loses the device, but the guest does not get it."""
    for running in facts.running or ():
        for controller in running.guest.controllers:
            if controller.type is ControllerType.DEVICEMODEL or controller.connected:
                continue
            if controller.type is ControllerType.PV and not facts.toolstack.usbback:
                yield bad(
                    f"controller {controller.id} of {running.guest.name} has type pv, but no driver here serves it",
                    f"xl usbctrl-detach {running.guest.name} {controller.id} (it takes 20 s and may report a failure)",
                )
            else:
                yield warning(
                    f"no driver in {running.guest.name} has connected to its USB controller {controller.id}",
                    "wait until it has booted, or use a kernel with CONFIG_USB_XEN_HCD (Linux 5.17; "
                    "Debian 12 and 13 and RHEL lack it)",
                )


def same_port(facts: Facts) -> Iterator[Finding]:
    """QEMU 7.2 aborts if two qusb controllers of a guest have a device on the same port number."""
    for running in facts.running or ():
        used: Counter[int] = Counter()
        for controller in running.guest.controllers:
            if controller.type is ControllerType.QUSB:
                used.update(port for port, busid in controller.ports.items() if busid)
        for port, times in used.items():
            if times > 1:
                yield bad(
                    f"{running.guest.name} has devices on port {port} of {times} qusb controllers; "
                    "its device model may abort",
                    "configure one controller with more ports (up to 31)",
                )


def migrating(facts: Facts) -> Iterator[Finding]:
    """During a migration a guest has another name, and it loses its USB devices."""
    for name in facts.moving:
        yield warning(f"{name} is being migrated and loses its USB devices", "wait for the end of the migration")


CHECKS = (
    Check("running", "the running guests are known", readable, xen=True),
    Check("stale-ports", "no guest port names a device that is not plugged in", stale, xen=True),
    Check("delivery", "guests have the devices on their ports", untaken, xen=True),
    Check("phantom", "controllers and device models agree", phantom, xen=True),
    Check("dead-device-model", "the device models run", dead_model, xen=True),
    Check("no-device-model", "running guests of the policy have device models", no_model, xen=True),
    Check("frontend", "the guests' drivers have connected to their USB controllers", frontend, xen=True),
    Check("same-port", "no two qusb controllers of a guest use the same port", same_port, xen=True),
    Check("migration", "no guest is being migrated", migrating, xen=True),
    Check("hung-xl", "no xl call hangs", hung, xen=True),
    Check("save", "guests are not saved with USB devices", saved, xen=True),
)
