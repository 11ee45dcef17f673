"""The USB lines of a guest's xl configuration -> rules, and a note for each line that cannot be imported.

`usbdev=`, `usbctrl=` and `pci=` are lists of strings, xl ignores a single string; `usbdevice=` can be either.
Numbers are read as xl reads them: strtoul with base 0 (010 is 8), cut to a byte (xen-facts 1.2, 1.9).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from xenplug.core.documents.problems import Problem, shown
from xenplug.core.interop.xl_cfg import Setting, spec
from xenplug.core.model import ControllerType, Device
from xenplug.core.policy.guests import CONTROLLER_PORTS, name_fault
from xenplug.core.policy.patterns import BdfPattern

NUMBER = re.compile(r"\s*[+-]?(0[xX][0-9a-fA-F]+|[0-9]+)")
HOST = re.compile(r"host:(?:(?P<vid>[0-9a-fA-F]{1,4}):(?P<pid>[0-9a-fA-F]{1,4})|(?P<bus>\d+)\.(?P<number>\d+))\Z")

Find = Callable[[int, int], Device | None]
"""Finds the device at a bus address, if one is plugged in there now."""


@dataclass(slots=True)
class Imported:
    """The rules and notes from a configuration."""

    guest: str
    rules: list[tuple[Mapping[str, object], str]] = field(default_factory=list)
    """Each with a comment."""
    controller: Mapping[str, object] | None = None
    notes: list[Problem] = field(default_factory=list)


def read(settings: Mapping[str, Setting], file: str, find: Find, controllers: frozenset[str]) -> Imported:
    """Import a guest's configuration. `controllers`: PCI addresses of this host's USB controllers."""
    return _Reading(settings, file, find, controllers).whole()


def strtoul(text: str) -> int:
    """A number as xl reads hostbus and hostaddr: base 0, garbage is 0, truncated to a byte."""
    found = NUMBER.match(text)
    if not found:
        return 0
    digits = found[1]
    if digits.lower().startswith("0x"):
        value = int(digits, 16)
    elif digits.startswith("0"):
        octal = re.match("[0-7]*", digits)
        value = int(octal[0] if octal else "0", 8)
    else:
        value = int(digits)
    return (-value if "-" in found[0] else value) & 0xFF


class _Reading:
    def __init__(self, settings: Mapping[str, Setting], file: str, find: Find, controllers: frozenset[str]) -> None:
        self._settings, self._file, self._find, self._controllers = settings, file, find, controllers
        name = settings.get("name")
        stem = file.rpartition("/")[2].removesuffix(".cfg")
        self._out = Imported(name.value if name and isinstance(name.value, str) else stem)

    def whole(self) -> Imported:
        fault = name_fault(self._out.guest)
        if fault:
            self._note("name", fault)
        if "name" not in self._settings:
            self._out.notes.append(
                Problem(
                    self._file, 1, 1, "", f"no name=, so the guest is called {self._out.guest!r}; set name=", "warning"
                )
            )
        for key, reader in {"usbdev": self._usbdev, "usbdevice": self._usbdevice, "pci": self._pci}.items():
            for entry in self._entries(key):
                reader(entry)
        for index, entry in enumerate(self._entries("usbctrl")):
            self._usbctrl(entry, index)
        for key in ("usb", "usbversion", "usbredir", "spiceusbredirection"):
            if key in self._settings:
                self._note(key, "concerns QEMU's own devices; leave it in the guest's configuration")
        return self._out

    def _note(self, key: str, message: str) -> None:
        line = self._settings[key].line if key in self._settings else 1
        self._out.notes.append(Problem(self._file, line, 1, key, message, "warning"))

    def _entries(self, key: str) -> Iterator[str]:
        setting = self._settings.get(key)
        if setting is None:
            return
        if isinstance(setting.value, str) and key != "usbdevice":
            self._note(key, 'is a single string, which xl ignores too; write a list: ["…"]')
            return
        yield from [setting.value] if isinstance(setting.value, str) else setting.value

    def _usbdev(self, entry: str) -> None:
        keys = spec(entry)
        unknown = [key for key in keys if key not in ("type", "hostbus", "hostaddr", "controller", "port")]
        if unknown or keys.get("type", "hostdev") != "hostdev":
            self._note(
                "usbdev", f"{shown(entry)}: xl refuses {shown(unknown[0] if unknown else keys['type'])}; not imported"
            )
            return
        if "hostbus" not in keys or "hostaddr" not in keys:
            self._note("usbdev", f"{shown(entry)} names no device and is not imported; add hostbus= and hostaddr=")
            return
        bus, number = strtoul(keys["hostbus"]), strtoul(keys["hostaddr"])
        if not (bus >= 1 and 1 <= number <= 127):
            self._note(
                "usbdev", f"{shown(entry)}: xl reads this as {bus}.{number}, an impossible address; not imported"
            )
            return
        if keys["hostbus"].strip() != str(bus) or keys["hostaddr"].strip() != str(number):
            self._note(
                "usbdev", f"{shown(entry)}: xl reads this as bus {bus}, device {number}; check that this is intended"
            )
        if "controller" in keys or "port" in keys:
            self._note("usbdev", f"{shown(entry)}: the agent chooses controller and port; these are not imported")
        self._device("usbdev", bus, number)

    def _device(self, key: str, bus: int, number: int) -> None:
        device = self._find(bus, number)
        if device is None:
            self._note(
                key,
                f"no device is at {bus}.{number} now, so the rule matches the address, which changes every time the "
                "device is plugged in; name the device or its socket (see `xenplug devices`)",
            )
            self._rule({"address": f"{bus}.{number}"}, f"{key} {bus}.{number}")
            return
        match: dict[str, object] = {"device": device.tag}
        if device.serial:
            match["serial"] = device.serial
        self._note(
            key, f"{bus}.{number} is now {device.tag} in {device.port}, which is imported; check that this is intended"
        )
        self._rule(match, f"{key} {bus}.{number}: {device.product or device.tag}")

    def _rule(self, match: Mapping[str, object], comment: str, **more: object) -> None:
        entry = {"match": match, "attach": self._out.guest} | more
        if entry not in [rule for rule, _ in self._out.rules]:
            self._out.rules.append((entry, comment))

    def _usbdevice(self, entry: str) -> None:
        found = HOST.match(entry.strip())
        if not found:
            fact = "is QEMU's own device" if not entry.startswith("host") else "does not name a device correctly"
            self._note("usbdevice", f"{shown(entry)} {fact}; leave it in the guest's configuration")
            return
        if found["vid"]:
            tag = f"{found['vid'].lower():0>4}:{found['pid'].lower():0>4}"
            self._rule({"device": tag}, f"usbdevice {entry}")
        else:
            self._device("usbdevice", int(found["bus"]), int(found["number"]))
        self._note(
            "usbdevice", f"{shown(entry)} prevents QEMU 6 and later from starting; remove it from the configuration"
        )

    def _pci(self, entry: str) -> None:
        keys = spec(entry)
        bdf = keys.get("bdf") or entry.partition(",")[0].partition("@")[0].strip()
        try:
            address = str(BdfPattern.parse(bdf))
        except ValueError as error:
            self._note("pci", f"{error}; not imported")
            return
        if address not in self._controllers:
            self._note("pci", f"{address} is not a USB controller of this host; leave it in the guest's configuration")
            return
        self._note("pci", f"{address} is imported as a rule; remove it from the configuration, or xl itself assigns it")
        self._rule({"controller": address}, f"pci {entry}", via="pci", siblings="take")

    def _usbctrl(self, entry: str, index: int) -> None:
        keys = spec(entry)
        unknown = [key for key in keys if key not in ("type", "version", "ports")]
        kind = keys.get("type", "auto").lower()
        if unknown or kind not in ("auto", *ControllerType):
            self._note("usbctrl", f"{shown(entry)}: xl refuses {shown(unknown[0] if unknown else kind)}; not imported")
            return
        kind = self._usual() if kind == "auto" else kind
        version = _atoi(keys.get("version", "")) or 2
        allowed = CONTROLLER_PORTS.get((ControllerType(kind), version))
        if allowed is None:
            self._note(
                "usbctrl", f"{shown(entry)}: libxl makes no {kind} controller of version {version}; not imported"
            )
            return
        usual = 8 if allowed.most >= 8 else allowed.most
        spec_ = {"type": kind, "version": version, "ports": _atoi(keys.get("ports", "")) or usual}
        if not allowed.least <= int(str(spec_["ports"])) <= allowed.most:
            self._note(
                "usbctrl", f"{shown(entry)}: libxl makes no controller with {spec_['ports']} ports; not imported"
            )
            return
        if index == 0:
            self._out.controller = spec_
            self._note("usbctrl", "the agent uses this controller and makes further ones alike; leave it there")
        else:
            self._note("usbctrl", f"{shown(entry)}: the agent uses further controllers too; leave them there")
        if kind == "devicemodel" and version == 2:
            self._note("usbctrl", "version 2 carries only high speed; write version=3,ports=15 for all speeds")

    def _usual(self) -> str:
        kind, builder = self._settings.get("type"), self._settings.get("builder")
        hvm = (kind and kind.value == "hvm") or (not kind and builder and builder.value == "hvm")
        return "devicemodel" if hvm else "qusb"


def _atoi(text: str) -> int:
    found = re.match(r"\s*[0-9]+", text)
    return int(found[0]) if found else 0
