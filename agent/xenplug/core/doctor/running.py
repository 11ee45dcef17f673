"""Checks of the guests that run now: ports that block the host, controllers nobody serves, drivers that never came."""

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
    """Only root may read xenstore."""
    if facts.running is None:
        yield unknown("which guests run is not known", "run this as root, with xenstored running")


def stale(facts: Facts) -> Iterator[Finding]:
    """One port that names a device which is gone makes every later attach on the host fail."""
    for running in facts.running or ():
        for controller in running.guest.controllers:
            for port, busid in controller.ports.items():
                if busid and busid not in facts.present:
                    yield bad(
                        f"port {port} of controller {controller.id} of {running.guest.name} names {busid}, which is "
                        "not plugged in: no USB device can be attached to any guest",
                        "start the agent (systemctl start xenplug), which clears it",
                    )


def untaken(facts: Facts) -> Iterator[Finding]:
    """xl exits 0 for a device that the guest never gets, and goes on listing one that it has lost."""
    for running, controller, port, device in _standing(facts):
        name, claim = running.guest.name, running.claims[device.port]
        here = f"port {port} of controller {controller.id} of {name} names {device.port} ({device.tag})"
        again = f"xl usbdev-detach {name} {controller.id} {port}"
        cause = unfit(device, controller.type, controller.version)
        if not claim.taken or cause is Cause.UNFIT_SPEED:
            why = f": {_carries(controller)}" if cause is Cause.UNFIT_SPEED else ""
            yield bad(f"{here}, and the guest does not have it{why}", f"{again}, then attach it anew")
        elif cause:
            yield warning(f"{here}: a qusb controller carries no sound and no pictures",
                          f"{again}, and give it to an HVM guest with an emulated controller")  # fmt: skip
    for path, value in facts.beyond.items():
        yield bad(f"{path} names {value}, and that controller has no such port", f'xenstore-write {path} ""')


def _standing(facts: Facts) -> Iterator[tuple[RunningGuest, GuestController, int, Device]]:
    """What is plugged in and stands on a port of a guest whose device model lives."""
    for running in facts.running or ():
        held = [(c, port, busid) for c in running.guest.controllers for port, busid in c.ports.items() if busid]
        for controller, port, busid in held if running.model_alive else ():
            if busid in facts.usb.devices and busid in running.claims:
                yield running, controller, port, facts.usb.devices[busid]


def _carries(controller: GuestController) -> str:
    return f"a {controller.type} controller of version {controller.version} does not carry its speed"


def phantom(facts: Facts) -> Iterator[Finding]:
    """For HVM, xl makes a missing controller in xenstore only (T5); QEMU keeps what was pulled (T21)."""
    addresses = {device.address for device in facts.usb.devices.values()}
    for running in facts.running or ():
        guest = running.guest
        if running.objects is None:
            continue
        for controller in guest.controllers:
            if controller.type is ControllerType.DEVICEMODEL and f"xenusb-{controller.id}" not in running.objects:
                yield bad(
                    f"controller {controller.id} of {guest.name} stands in xenstore only, its device model has none: "
                    "what is attached to it never arrives",
                    f"xenstore-rm /libxl/{guest.domid}/device/vusb/{controller.id}, or start the guest anew",
                )
        for held in sorted(running.objects):
            found = re.fullmatch(r"xenusb-(\d+)-(\d+)", held)
            if found and f"{found[1]}.{found[2]}" not in addresses:
                yield warning(
                    f"the device model of {guest.name} keeps {held}, which is not plugged in any more; "
                    "a device that gets this address again cannot be attached",
                    f"xl qemu-monitor-command {guest.name} 'device_del {held}'",
                )


def hung(facts: Facts) -> Iterator[Finding]:
    """libxl's lock on a guest has no timeout (T32)."""
    for call in facts.waiting:
        yield bad(
            f"`{call.words}` (process {call.pid}) has run for {call.seconds:.0f} s; every other xl call on its guest "
            "waits for it",
            f"kill {call.pid}",
        )


def saved(facts: Facts) -> Iterator[Finding]:
    """Debian's init script saves guests by default; neither xl nor QEMU carries a USB device over that."""
    if facts.saved_to and facts.named:
        yield warning(
            f"guests are saved to {facts.saved_to} when dom0 goes down, which USB devices do not survive, nor perhaps "
            "an HVM guest with an emulated controller",
            "write XENDOMAINS_SAVE= into /etc/default/xendomains: they are shut down instead",
        )


def dead_model(facts: Facts) -> Iterator[Finding]:
    """xl says yes to everything then, and does nothing."""
    for running in facts.running or ():
        if running.guest.device_model and not running.model_alive:
            yield bad(
                f"the device model of {running.guest.name} is gone; xl will report success and do nothing",
                f"look at /var/log/xen/qemu-dm-{running.guest.name}.log, then start the guest anew",
            )


def no_model(facts: Facts) -> Iterator[Finding]:
    """What was started without one can never get one."""
    for running in facts.running or ():
        guest = running.guest
        if guest.name in facts.named and guest.device_model is None and guest.state is not GuestState.STARTING:
            yield bad(
                f"{guest.name} runs without a device model and cannot take a USB device",
                'give its configuration usbctrl=["type=qusb,version=2,ports=8"] and start it anew',
            )


def frontend(facts: Facts) -> Iterator[Finding]:
    """Without a driver in the guest, dom0 loses the device and nobody gets it."""
    for running in facts.running or ():
        for controller in running.guest.controllers:
            if controller.type is ControllerType.DEVICEMODEL or controller.connected:
                continue
            if controller.type is ControllerType.PV and not facts.toolstack.usbback:
                yield bad(
                    f"controller {controller.id} of {running.guest.name} is of type pv, which nothing here serves",
                    f"xl usbctrl-detach {running.guest.name} {controller.id} (it takes 20 s and may say it failed)",
                )
            else:
                yield warning(
                    f"no driver of {running.guest.name} has connected to its USB controller {controller.id}",
                    "its kernel needs CONFIG_USB_XEN_HCD (Linux 5.17; Debian's has it not); a guest that boots is fine",
                )


def same_port(facts: Facts) -> Iterator[Finding]:
    """QEMU 7.2 aborts over two qusb controllers of a guest that hold a device on the same port number."""
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
                    "give it one controller with more ports (up to 31)",
                )


def migrating(facts: Facts) -> Iterator[Finding]:
    """A guest on the move has another name, and loses its USB devices."""
    for name in facts.moving:
        yield warning(f"{name} is being migrated", "its USB devices do not go along; wait for its end")


CHECKS = (
    Check("running", "the running guests are known", readable, xen=True),
    Check("stale-ports", "no guest port names a device that is gone", stale, xen=True),
    Check("delivery", "guests have what stands on their ports", untaken, xen=True),
    Check("phantom", "controllers and device models agree", phantom, xen=True),
    Check("dead-device-model", "device models are alive", dead_model, xen=True),
    Check("no-device-model", "running guests of the policy have device models", no_model, xen=True),
    Check("frontend", "guests serve their USB controllers", frontend, xen=True),
    Check("same-port", "no two qusb controllers of a guest use the same port", same_port, xen=True),
    Check("migration", "no guest is being migrated", migrating, xen=True),
    Check("hung-xl", "no xl call hangs", hung, xen=True),
    Check("save", "guests are not saved with USB devices", saved, xen=True),
)
