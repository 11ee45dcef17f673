"""Checks of dom0's own USB side: devices without drivers, root hubs that were left shut, controllers nobody has."""

from __future__ import annotations

from collections.abc import Iterator

from xenplug.core.doctor.facts import Facts
from xenplug.core.doctor.findings import Check, Finding, warning
from xenplug.core.model import PCIBACK

DRIVEN = {"keyboard", "mouse", "storage"}
"""Kinds that dom0's kernel has a driver for; others may have none by nature."""


def shut(facts: Facts) -> Iterator[Finding]:
    """The agent opens what it shut; one that was killed, or stopped under `default: block`, left it so."""
    if facts.install.agent is not None:
        return
    for file in facts.usb.shut:
        yield warning(
            f"{file} is 0 and no agent answers: what is plugged in there gets no driver of dom0",
            f"systemctl start xenplug, or `echo 1 >{file}`",
        )


def driverless(facts: Facts) -> Iterator[Finding]:
    """A device model that was killed does not give its device back, and the kernel does not probe it again (T36)."""
    on_ports = {busid for r in facts.running or () for c in r.guest.controllers for busid in c.ports.values()}
    for port, device in facts.usb.devices.items():
        kinds = device.kinds & DRIVEN
        if not kinds or port in on_ports or device.shut or not (device.authorized and device.configured):
            continue
        if not any(device.drivers):
            yield warning(
                f"{port} ({device.tag}, {', '.join(sorted(kinds))}) has no driver in dom0 and is with no guest",
                f"for i in /sys/bus/usb/devices/{port}:*; do echo ${{i##*/}} >/sys/bus/usb/drivers_probe; done",
            )


def stuck(facts: Facts) -> Iterator[Finding]:
    """Without an IOMMU `xl pci-assignable-add` says no and takes the controller all the same."""
    if facts.running is None:
        return
    has = {bdf for running in facts.running for bdf in running.guest.pci}
    asked = " ".join(text for c in facts.configs or () if "pci" in c.settings for text in c.settings["pci"].value)
    for controller in facts.usb.controllers:
        bdf = controller.bdf
        if controller.driver == PCIBACK and bdf not in has and bdf.removeprefix("0000:") not in asked:
            yield warning(
                f"USB host controller {bdf} is with pciback, and no guest has it: nobody gets what is plugged in there",
                f"xl pci-assignable-remove -r {bdf}; if that fails, echo {bdf} >/sys/bus/pci/drivers/pciback/unbind "
                f"and then >/sys/bus/pci/drivers_probe",
            )


CHECKS = (
    Check("root-hubs", "what is plugged in gets dom0's drivers", shut),
    Check("drivers", "dom0's own devices have drivers", driverless),
    Check("pciback-held", "no USB host controller is held for nobody", stuck, xen=True),
)
