"""Checks of the guests' configuration files: settings that prevent a guest from starting or from taking USB devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xenplug.core.doctor.facts import Facts, GuestConfigFile
from xenplug.core.doctor.findings import Check, Finding, bad, unknown, warning
from xenplug.core.interop.xl_cfg import spec

TRUE = ("1", "enabled", "true", "True")
QUSB_TYPES = 'usbctrl=["type=qusb,version=2,ports=8"]'


def _text(config: GuestConfigFile, key: str) -> str | None:
    setting = config.settings.get(key)
    return setting.value if setting and isinstance(setting.value, str) else None


def listed(config: GuestConfigFile, key: str) -> tuple[str, ...]:
    """The entries of a list; a single string counts as one entry."""
    setting = config.settings.get(key)
    if setting is None:
        return ()
    return setting.value if isinstance(setting.value, tuple) else (setting.value,)


def where(config: GuestConfigFile, key: str) -> str:
    """FILE:LINE of an existing setting."""
    return f"{config.file}:{config.settings[key].line}"


def name_of(config: GuestConfigFile) -> str:
    """The guest's name."""
    return _text(config, "name") or config.file.rpartition("/")[2].removesuffix(".cfg")


def type_of(config: GuestConfigFile) -> str:
    """pv, pvh or hvm: `type`, else the older `builder`; xl's default is pv."""
    kind = _text(config, "type")
    if kind in ("pv", "pvh", "hvm"):
        return kind
    return "hvm" if _text(config, "builder") == "hvm" else "pv"


def readable(facts: Facts) -> Iterator[Finding]:
    """Often only root can read /etc/xen."""
    if facts.configs is None:
        yield unknown("the guests' configurations in /etc/xen cannot be read", "run this as root")


def usbdevice(facts: Facts) -> Iterator[Finding]:
    """An old setting, still in xl.cfg(5). QEMU 6 and later exits with an error, so the guest does not start."""
    for config in facts.configs or ():
        if any(entry.startswith("host:") for entry in listed(config, "usbdevice")):
            yield bad(
                f"{where(config, 'usbdevice')}: usbdevice=host:… prevents {name_of(config)} from starting",
                "remove it (QEMU 6 and later refuse it) and write a rule for the device",
            )
        if "usbversion" in config.settings and {"usb", "usbdevice"} & set(config.settings):
            yield bad(
                f"{where(config, 'usbversion')}: usbversion with usb or usbdevice prevents {name_of(config)} from "
                "starting",
                "keep only one of them",
            )


def usbdev(facts: Facts) -> Iterator[Finding]:
    """With usbdev=, a guest does not start while the device is absent, nor reboot after its address has changed."""
    for config in facts.configs or ():
        if listed(config, "usbdev"):
            yield bad(
                f"{where(config, 'usbdev')}: usbdev= prevents {name_of(config)} from starting while the device is "
                "absent, and from rebooting after its address has changed",
                "remove it and write a rule for the device",
            )


def lists(facts: Facts) -> Iterator[Finding]:
    """xl ignores a string where it expects a list, with a warning that is easy to miss."""
    for config in facts.configs or ():
        for key in ("usbctrl", "usbdev", "pci"):
            if _text(config, key) is not None:
                yield bad(f"{where(config, key)}: {key} is not a list, so xl ignores it", f'write {key}=["…"]')
        for entry in listed(config, "usbctrl"):
            if spec(entry) and "type" not in spec(entry) and type_of(config) != "hvm":
                yield bad(
                    f"{where(config, 'usbctrl')}: a USB controller of {name_of(config)} has no type=qusb, so no device "
                    "model serves it",
                    f"write {QUSB_TYPES}",
                )


def device_model(facts: Facts) -> Iterator[Finding]:
    """A PV or PVH guest has a device model only if its configuration needs one when the guest is created."""
    for config in _concerned(facts):
        if type_of(config) == "hvm" or any(listed(config, key) for key in ("usbctrl", "vfb")):
            continue
        yield bad(
            f"{config.file}: {name_of(config)} ({type_of(config)}) has no USB controller and therefore no device "
            "model, so it can never take a USB device",
            f"write {QUSB_TYPES} and restart the guest",
        )


def restricted(facts: Facts) -> Iterator[Finding]:
    """A device model without access to /dev/bus/usb cannot pass a device through."""
    for config in _concerned(facts):
        for key, what in (("device_model_stubdomain_override", "a stub domain"), ("dm_restrict", "dm_restrict")):
            if _text(config, key) in TRUE:
                yield bad(
                    f"{where(config, key)}: the device model of {name_of(config)} runs with {what} "
                    "and cannot open USB devices",
                    f"remove {key}",
                )


def names(facts: Facts) -> Iterator[Finding]:
    """xl reads a name that consists of digits as a domain id."""
    running = [r.guest.name for r in facts.running or ()]
    for name in dict.fromkeys([*map(name_of, facts.configs or ()), *running]):
        if name.isdecimal():
            yield bad(f"a guest is named {name!r}, which xl reads as a domain id", "rename the guest")


def passthrough(facts: Facts) -> Iterator[Finding]:
    """Without passthrough=, attaching a controller later fails, and xl reports `no IOMMU?`."""
    for config in facts.configs or ():
        name = name_of(config)
        if name not in facts.pci_guests:
            continue
        if type_of(config) == "pvh":
            yield bad(
                f"{config.file}: {name} is a PVH guest, which cannot take PCI devices", 'write type="hvm" or "pv"'
            )
            continue
        if _text(config, "passthrough") not in ("enabled", "1", "share_pt", "sync_pt") and not listed(config, "pci"):
            yield bad(
                f"{config.file}: rules may pass a whole host controller to {name}, but its configuration does not "
                "allow that",
                'write passthrough="enabled" and restart the guest (`xenplug xl-cfg` prints the lines)',
            )
        if _text(config, "maxmem") and _text(config, "maxmem") != _text(config, "memory") and type_of(config) == "hvm":
            yield bad(
                f"{where(config, 'maxmem')}: {name} uses populate-on-demand memory (maxmem above memory), "
                "which does not work with PCI devices",
                "set maxmem and memory to the same value",
            )


def known(facts: Facts) -> Iterator[Finding]:
    """The name of a guest may be misspelled in the policy."""
    if not facts.configs:
        return
    there = {name_of(config) for config in facts.configs} | {r.guest.name for r in facts.running or ()}
    for name in sorted(facts.named - there):
        yield warning(
            f"the policy names {name}, but no file in /etc/xen and no running guest has this name",
            "correct the name in the policy, unless the guest's configuration is kept elsewhere",
        )


def _concerned(facts: Facts) -> Iterable[GuestConfigFile]:
    """The files of the guests that the policy names; all files if there is no policy yet."""
    return [c for c in facts.configs or () if facts.policy is None or not facts.named or name_of(c) in facts.named]


CHECKS = (
    Check("configs", "the guests' configurations can be read", readable),
    Check("usbdevice", "usbdevice=host:… prevents no guest from starting", usbdevice),
    Check("usbdev", "usbdev= prevents no guest from starting", usbdev),
    Check("usbctrl", "the configurations describe USB controllers in the form that xl needs", lists),
    Check("device-model", "the guests of the policy get a device model", device_model),
    Check("restricted", "device models can open USB devices", restricted),
    Check("names", "xl cannot mistake a guest's name for a domain id", names),
    Check("passthrough", "guests that rules may pass a controller to are configured for it", passthrough),
    Check("guests", "the guests of the policy exist", known),
)
