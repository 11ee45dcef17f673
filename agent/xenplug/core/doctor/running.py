"""Checks of the guests that run now: ports that block the host, controllers nobody serves, drivers that never came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from xenplug.core.doctor.facts import Facts, Running
from xenplug.core.doctor.findings import Check, Finding, bad, unknown, warning
from xenplug.core.model import ControllerType, GuestState


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
    for running in facts.running or ():
        if _on_the_move(running):
            yield warning(
                f"{running.guest.name} is being migrated", "its USB devices do not go along; wait for its end"
            )


def _on_the_move(running: Running) -> bool:
    return running.guest.name.endswith(("--incoming", "--migratedaway"))


CHECKS = (
    Check("running", "the running guests are known", readable, xen=True),
    Check("stale-ports", "no guest port names a device that is gone", stale, xen=True),
    Check("dead-device-model", "device models are alive", dead_model, xen=True),
    Check("no-device-model", "running guests of the policy have device models", no_model, xen=True),
    Check("frontend", "guests serve their USB controllers", frontend, xen=True),
    Check("same-port", "no two qusb controllers of a guest use the same port", same_port, xen=True),
    Check("migration", "no guest is being migrated", migrating, xen=True),
)
