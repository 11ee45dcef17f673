"""Checks of `usbctrl=` in the guests' configurations: controllers that xl refuses, or that do not work well."""

from __future__ import annotations

from collections.abc import Iterator

from xenplug.core.doctor.configs import listed, name_of, type_of, where
from xenplug.core.doctor.facts import Facts, GuestConfigFile
from xenplug.core.doctor.findings import Check, Finding, bad, warning
from xenplug.core.guests import MAX_PORTS
from xenplug.core.interop.xl_cfg import spec
from xenplug.core.model import ControllerType
from xenplug.core.policy.guests import CONTROLLER_PORTS

USBCTRL_KEYS = {"type", "version", "ports"}


def refused_limits(facts: Facts) -> Iterator[Finding]:
    """libxl refuses a controller outside its limits, and the guest does not start."""
    for config, entry in _controllers(facts):
        wrong = sorted(set(entry) - USBCTRL_KEYS)
        if wrong:
            yield _refused(config, f"has {wrong[0]}, which xl does not know", "write only type, version and ports")
            continue
        version, ports = _number(entry, "version", 2), _number(entry, "ports", 0)
        if not _emulated(config, entry):
            limits = CONTROLLER_PORTS.get((ControllerType.QUSB, version))
            if limits is None or ports > limits.most:
                yield _refused(config, f"has version {version} with {ports or 'default'} ports",
                               f"version 1 or 2, at most {MAX_PORTS} ports")  # fmt: skip
            continue
        limits = CONTROLLER_PORTS.get((ControllerType.DEVICEMODEL, version))
        if limits is None:
            yield _refused(config, f"has version {version}", "write version=3,ports=15")
        elif ports and not limits.least <= ports <= limits.most:
            yield _refused(config, f"has {ports} ports at version {version}", "write version=3,ports=15")


def _refused(config: GuestConfigFile, fact: str, remedy: str) -> Finding:
    return bad(
        f"{where(config, 'usbctrl')}: a USB controller of {name_of(config)} {fact}, so the guest does not start", remedy
    )


def speeds(facts: Facts) -> Iterator[Finding]:
    """A device whose speed the controller does not support is lost with exit 0 (qusb), or refused (emulated)."""
    for config, entry in _controllers(facts):
        version = _number(entry, "version", 2)
        emulated = _emulated(config, entry)
        if (emulated, version) not in SLOW_VERSIONS:
            continue
        words, remedy = SLOW_VERSIONS[emulated, version]
        yield warning(f"{where(config, 'usbctrl')}: a USB controller of {name_of(config)} {words}", remedy)


SLOW_VERSIONS = {
    (True, 1): ("supports only low and full speed: no stick, no camera", "write version=3,ports=15"),
    (True, 2): ("supports only high speed: no mouse, no keyboard", "write version=3,ports=15"),
    (False, 1): ("loses high speed devices, but xl reports success", "write version=2"),
}
"""By emulated or not, and version: the limit of the controller, and the remedy."""


def several(facts: Facts) -> Iterator[Finding]:
    """QEMU 7.2 aborts if two qusb controllers have devices on the same port number."""
    for config in facts.configs or ():
        paravirtual = [entry for of, entry in _controllers(facts) if of is config and not _emulated(config, entry)]
        if len(paravirtual) > 1:
            yield warning(
                f"{where(config, 'usbctrl')}: {name_of(config)} has {len(paravirtual)} paravirtual USB controllers; "
                "devices on the same port number of two of them crash its device model",
                f"configure one with more ports (up to {MAX_PORTS})",
            )


def _controllers(facts: Facts) -> Iterator[tuple[GuestConfigFile, dict[str, str]]]:
    for config in facts.configs or ():
        for text in listed(config, "usbctrl"):
            entry = dict(spec(text))
            if entry:
                yield config, entry


def _emulated(config: GuestConfigFile, entry: dict[str, str]) -> bool:
    return entry.get("type", "devicemodel" if type_of(config) == "hvm" else "pv") == "devicemodel"


def _number(entry: dict[str, str], key: str, usual: int) -> int:
    """The number as xl reads it (atoi): text that is not a number is 0, and 0 means the default."""
    text = entry.get(key, "")
    return int(text) or usual if text.isdecimal() else usual


CHECKS = (
    Check("usbctrl-limits", "xl accepts the USB controllers in the configurations", refused_limits),
    Check("usbctrl-speeds", "USB controllers in the configurations support all common speeds", speeds),
    Check("usbctrl-several", "no configuration has two paravirtual USB controllers", several),
)
