"""Checks of dom0's own USB side: devices without drivers, locked root hubs, controllers that nothing uses."""

from __future__ import annotations

from collections.abc import Iterator

from xenplug.core.doctor.facts import Facts
from xenplug.core.doctor.findings import Check, Finding, warning
from xenplug.core.model import PCIBACK

DRIVEN = {"keyboard", "mouse", "storage"}
"""Kinds that dom0's kernel has a driver for; other devices may have none."""


def shut(facts: Facts) -> Iterator[Finding]:
    """If the agent was killed, or stopped under `default: block`, root hubs may still not authorise new devices."""
    if facts.install.agent is not None:
        return
    for file in facts.usb.shut:
        yield warning(
            f"{file} is 0 and no agent answers: devices that are plugged in there get no driver in dom0",
            f"{facts.system.service('start')}, or `echo 1 >{file}`",
        )


def driverless(facts: Facts) -> Iterator[Finding]:
    """If a device model is killed, the kernel does not bind a driver to its device again (T36)."""
    on_ports = {busid for r in facts.running or () for c in r.guest.controllers for busid in c.ports.values()}
    for port, device in facts.usb.devices.items():
        kinds = device.kinds & DRIVEN
        if not kinds or port in on_ports or device.shut or not (device.authorized and device.configured):
            continue
        if not any(device.drivers):
            yield warning(
                f"{port} ({device.tag}, {', '.join(sorted(kinds))}) has no driver in dom0, and no guest has it",
                f"for i in /sys/bus/usb/devices/{port}:*; do echo ${{i##*/}} >/sys/bus/usb/drivers_probe; done",
            )


def stuck(facts: Facts) -> Iterator[Finding]:
    """Without an IOMMU, `xl pci-assignable-add` reports an error but still binds the controller to pciback."""
    if facts.running is None:
        return
    has = {bdf for running in facts.running for bdf in running.guest.pci}
    asked = " ".join(text for c in facts.configs or () if "pci" in c.settings for text in c.settings["pci"].value)
    for controller in facts.usb.controllers:
        bdf = controller.bdf
        if controller.driver == PCIBACK and bdf not in has and bdf.removeprefix("0000:") not in asked:
            yield warning(
                f"USB host controller {bdf} is bound to pciback, but no guest has it: devices on it cannot be used",
                f"xl pci-assignable-remove -r {bdf}; if that fails, echo {bdf} >/sys/bus/pci/drivers/pciback/unbind "
                f"and then >/sys/bus/pci/drivers_probe",
            )


CHECKS = (
    Check("root-hubs", "new devices get dom0's drivers", shut),
    Check("drivers", "dom0's own devices have drivers", driverless),
    Check("pciback-held", "no USB host controller is bound to pciback without a guest", stuck, xen=True),
)
