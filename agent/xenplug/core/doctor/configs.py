"""Checks of the guests' configuration files: lines that keep a guest from booting, or from ever taking a USB device."""

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
    """The entries of a list; one text counts as one."""
    setting = config.settings.get(key)
    if setting is None:
        return ()
    return setting.value if isinstance(setting.value, tuple) else (setting.value,)


def where(config: GuestConfigFile, key: str) -> str:
    """FILE:LINE of a setting that is there."""
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
    """/etc/xen may be for root only."""
    if facts.configs is None:
        yield unknown("the guests' configurations in /etc/xen cannot be read", "run this as root")


def usbdevice(facts: Facts) -> Iterator[Finding]:
    """The old way, still in xl.cfg's manual: QEMU 6 and later exits over it, and the guest does not start."""
    for config in facts.configs or ():
        if any(entry.startswith("host:") for entry in listed(config, "usbdevice")):
            yield bad(
                f"{where(config, 'usbdevice')}: usbdevice=host:… keeps {name_of(config)} from starting",
                "remove it (QEMU 6 and later refuse it) and write a rule for the device",
            )
        if "usbversion" in config.settings and {"usb", "usbdevice"} & set(config.settings):
            yield bad(
                f"{where(config, 'usbversion')}: usbversion beside usb or usbdevice stops {name_of(config)}'s start",
                "keep one of them",
            )


def usbdev(facts: Facts) -> Iterator[Finding]:
    """A device named in the configuration stops the start when it is absent, and the reboot when its address moved."""
    for config in facts.configs or ():
        if listed(config, "usbdev"):
            yield bad(
                f"{where(config, 'usbdev')}: usbdev= keeps {name_of(config)} from starting while the device is absent, "
                "and from coming back after a reboot once its address has changed",
                "remove it and write a rule for the device",
            )


def lists(facts: Facts) -> Iterator[Finding]:
    """A text where a list should be is passed over by xl, with a warning that nobody sees."""
    for config in facts.configs or ():
        for key in ("usbctrl", "usbdev", "pci"):
            if _text(config, key) is not None:
                yield bad(f"{where(config, key)}: {key} is no list, and xl ignores it", f'write {key}=["…"]')
        for entry in listed(config, "usbctrl"):
            if spec(entry) and "type" not in spec(entry) and type_of(config) != "hvm":
                yield bad(
                    f"{where(config, 'usbctrl')}: a USB controller of {name_of(config)} without type=qusb is one that "
                    "no device model serves",
                    f"write {QUSB_TYPES}",
                )


def device_model(facts: Facts) -> Iterator[Finding]:
    """A PV or PVH guest gets a device model only if its configuration asks for one at its start."""
    for config in _concerned(facts):
        if type_of(config) == "hvm" or any(listed(config, key) for key in ("usbctrl", "vfb")):
            continue
        yield bad(
            f"{config.file}: {name_of(config)} ({type_of(config)}) has no USB controller, so no device model, "
            "and can never take a USB device",
            f"write {QUSB_TYPES} and start it anew",
        )


def restricted(facts: Facts) -> Iterator[Finding]:
    """A device model that may not open /dev/bus/usb cannot pass a device on."""
    for config in _concerned(facts):
        for key, what in (("device_model_stubdomain_override", "a stub domain"), ("dm_restrict", "dm_restrict")):
            if _text(config, key) in TRUE:
                yield bad(
                    f"{where(config, key)}: the device model of {name_of(config)} runs with {what} "
                    "and cannot open USB devices",
                    f"remove {key}",
                )


def names(facts: Facts) -> Iterator[Finding]:
    """xl takes a name of digits for a domain's number."""
    running = [r.guest.name for r in facts.running or ()]
    for name in dict.fromkeys([*map(name_of, facts.configs or ()), *running]):
        if name.isdecimal():
            yield bad(f"a guest is named {name!r}, which xl takes for a domain's number", "give it another name")


def passthrough(facts: Facts) -> Iterator[Finding]:
    """Without it xl says `no IOMMU?` when a controller is attached later."""
    for config in facts.configs or ():
        name = name_of(config)
        if name not in facts.pci_guests:
            continue
        if type_of(config) == "pvh":
            yield bad(f"{config.file}: {name} is a PVH guest, which cannot take PCI devices", "make it HVM or PV")
            continue
        if _text(config, "passthrough") not in ("enabled", "1", "share_pt", "sync_pt") and not listed(config, "pci"):
            yield bad(
                f"{config.file}: rules may give {name} a whole host controller, and it is not created for that",
                'write passthrough="enabled" and start it anew (`xenplug xl-cfg` prints the lines)',
            )
        if _text(config, "maxmem") and _text(config, "maxmem") != _text(config, "memory") and type_of(config) == "hvm":
            yield bad(
                f"{where(config, 'maxmem')}: {name} uses memory on demand (maxmem above memory), "
                "which excludes PCI devices",
                "make maxmem and memory the same",
            )


def known(facts: Facts) -> Iterator[Finding]:
    """A rule may name a guest by a name that is spelled otherwise."""
    if not facts.configs:
        return
    there = {name_of(config) for config in facts.configs} | {r.guest.name for r in facts.running or ()}
    for name in sorted(facts.named - there):
        yield warning(
            f"the policy names {name}, and no file in /etc/xen and no running guest has this name",
            "correct the name in the policy, if it is not kept elsewhere",
        )


def _concerned(facts: Facts) -> Iterable[GuestConfigFile]:
    """Files of guests the policy names; of all, if there is no policy yet."""
    return [c for c in facts.configs or () if facts.policy is None or not facts.named or name_of(c) in facts.named]


CHECKS = (
    Check("configs", "the guests' configurations can be read", readable),
    Check("usbdevice", "no guest is kept from starting by usbdevice=host:…", usbdevice),
    Check("usbdev", "no guest is kept from starting by usbdev=", usbdev),
    Check("usbctrl", "USB controllers in the configurations are as xl needs them", lists),
    Check("device-model", "guests of the policy get a device model", device_model),
    Check("restricted", "device models may open USB devices", restricted),
    Check("names", "guests have names that xl takes for names", names),
    Check("passthrough", "guests that may get a whole controller are created for it", passthrough),
    Check("guests", "the policy's guests are known", known),
)
