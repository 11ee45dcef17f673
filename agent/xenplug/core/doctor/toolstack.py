"""Checks of Xen and its tools: dom0, xl, xenstored, incompatible versions, missing drivers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from xenplug.core.doctor.facts import Facts, Version
from xenplug.core.doctor.findings import Check, Finding, bad, unknown, warning
from xenplug.core.host_system import Package
from xenplug.core.interop.xl_cfg import spec
from xenplug.core.model import ControllerType
from xenplug.core.printable import printable

FIXED = {(4, 19): 5, (4, 20): 3, (4, 21): 1, (4, 22): 0}
"""By release: the patch since which xl sends integers to QEMU 9.2, as that requires (xen 85e12104f4). Later releases
always do."""
STRICT_QEMU = (9, 2)
FIRST_USB = (4, 7)
FIRST_EMULATED = (4, 8)


def dom0(facts: Facts) -> Iterator[Finding]:
    """Everything else needs Xen."""
    if not facts.toolstack.dom0:
        yield bad(
            "this system is not a Xen dom0 (/proc/xen/capabilities does not contain control_d)",
            "boot the Xen entry of the boot menu; without Xen, use `xenplug run --toolstack simulated`",
        )


def xl(facts: Facts) -> Iterator[Finding]:
    """Debian's /usr/sbin/xl is a wrapper that needs the tools of exactly the running Xen."""
    error = facts.toolstack.xl_error
    if error is None:
        return
    if "version" in error and "xen utils" in error:
        remedy = "install the xen-utils of the running Xen, or reboot into the Xen version of the installed xen-utils"
    elif "permission" in error.lower() or not facts.root:
        yield unknown(f"xl does not answer ({error})", "run this as root")
        return
    elif "no such program" in error:
        remedy = f"{facts.system.install(Package.XEN_TOOLS)}, or name xl in the settings (toolstack.xl)"
    elif "xenstore" in error:
        remedy = f"{facts.system.start_xenstored()}, then see the next check"
    else:
        remedy = "make `xl info` work first; the agent runs the same program"
    yield bad(f"xl does not answer ({error})", remedy)


def xenstored(facts: Facts) -> Iterator[Finding]:
    """The agent connects to xenstore's socket, xl uses its library: the two may use different paths."""
    tools = facts.toolstack
    if tools.store_error is None:
        return
    if not facts.root:
        yield unknown(
            f"xenstored at {tools.store_socket} could not be checked ({tools.store_error})", "run this as root"
        )
        return
    also = ", but xl reaches it, so it listens elsewhere" if tools.xl is not None else ""
    yield bad(
        f"xenstored does not answer at {tools.store_socket} ({tools.store_error}){also}",
        "start xenstored, or set paths.xenstored in /etc/xenplug/xenplug.yaml to its socket",
    )


def version(facts: Facts) -> Iterator[Finding]:
    """Xen 4.7 introduced USB passthrough, Xen 4.8 emulated controllers."""
    xen = version_of(_tools(facts))
    if not xen:
        return
    if xen < FIRST_USB:
        yield bad(f"Xen {dotted(xen)} has no `xl usbdev-attach`", "install Xen 4.8 or newer")
    elif xen < FIRST_EMULATED:
        yield warning(f"Xen {dotted(xen)} has no emulated USB controllers for HVM guests", "install Xen 4.8 or newer")


def qemu(facts: Facts) -> Iterator[Finding]:
    """xl before 4.19.5 sends numbers as strings, which QEMU 9.2 and later refuse."""
    tools = facts.toolstack
    if tools.qemu_missing:
        yield bad("no QEMU for Xen is installed", f"{facts.system.install(Package.QEMU)}; it serves every USB device")
    xen = _tools(facts)
    works = speaks_to_strict_qemu(xen) if tools.qemu and tools.qemu >= STRICT_QEMU and version_of(xen) else True
    remedy = "install Xen 4.19.5, 4.20.3, 4.21.1, 4.22 or newer, or QEMU before 9.2; qusb controllers are not affected"
    if works is False:
        fact = f"xl of Xen {printable(xen)} cannot attach emulated USB devices with QEMU {dotted(tools.qemu or ())}"
        yield bad(fact, remedy)
    elif works is None:
        yield unknown(
            f"xl of Xen {printable(xen)} may be too old to attach emulated USB devices with QEMU "
            f"{dotted(tools.qemu or ())}: it was built between two releases, of which only the second can",
            f"try one; if it fails, {remedy}",
        )


def speaks_to_strict_qemu(xen: str) -> bool | None:
    """Whether xl of this version works with QEMU 9.2 and later; None if it is not known.

    Both the hypervisor (`4.20.3-pre`) and packages (`4.20.2+37-g61ff35323e-0+deb13u1`, `4.20.1_04-1.2`, `4.20.3~rc1`)
    can name a state between two releases. In it the fix may be missing: Debian's 4.20.2+37, which calls itself
    4.20.3-pre, lacks it.
    """
    release, patch = version_of(xen)[:2], (*version_of(xen), 0, 0, 0)[2]
    if release not in FIXED:
        return release > max(FIXED)
    rest = _NUMBERS.sub("", _upstream(xen))
    if patch == FIXED[release] and _BEFORE.match(rest):
        return None
    if patch == FIXED[release] - 1 and _AFTER.match(rest):
        return None
    return patch >= FIXED[release]


_NUMBERS = re.compile(r"\A(?:\d+:)?\d+(?:\.\d+)*")
_BEFORE = re.compile(r"[-.~_]?(?:pre|rc|unstable|alpha|beta|dev)|~", re.I)
"""What follows the number of a release that is still to come."""
_AFTER = re.compile(r"[+_^]|\.?git", re.I)
"""What follows the number of the release that a snapshot comes after."""


def _upstream(package: str) -> str:
    """A version without the revision of the distribution: what follows the last hyphen, if that begins with a digit."""
    head, hyphen, revision = package.rpartition("-")
    return head if hyphen and revision[:1].isdigit() else package


def _tools(facts: Facts) -> str:
    """The version of xl: that of its package. Only if it is unknown, that of the running hypervisor, which may be older
    or newer: the hypervisor changes at the next boot.
    """
    return facts.toolstack.xl_package or (facts.toolstack.xl or {}).get("xen_version", "")


def usb_host(facts: Facts) -> Iterator[Finding]:
    """Some distributions have QEMU's module usb-host in a package of its own; without it, every attach fails."""
    tools = facts.toolstack
    if tools.qemu_of_distribution and not tools.usb_host and facts.system.package(Package.USB_HOST):
        yield bad(
            "QEMU's module usb-host (hw-usb-host.so) is not installed, so every attach fails",
            f"{facts.system.install(Package.USB_HOST)}, then restart the guests",
        )


def usbback(facts: Facts) -> Iterator[Finding]:
    """`type=pv` needs a driver that mainline Linux lacks; without it, each attach takes 11 s and fails."""
    if facts.toolstack.usbback:
        return
    policy = facts.policy
    for name, guest in (policy.guests if policy else {}).items():
        if guest.controller and guest.controller.type is ControllerType.PV:
            yield bad(
                f"the policy sets a controller of type pv for {name}, but this kernel has no usbback driver",
                "write type: qusb there",
            )
    for config in facts.configs or ():
        setting = config.settings.get("usbctrl")
        entries = setting.value if setting and isinstance(setting.value, tuple) else ()
        if setting and any(spec(entry).get("type") == "pv" for entry in entries):
            yield bad(
                f"{config.file}:{setting.line}: a USB controller of type pv, but this kernel has no usbback driver",
                "write type=qusb there",
            )


def iommu(facts: Facts) -> Iterator[Finding]:
    """Without an IOMMU, a controller that is bound to pciback cannot be attached to a guest, and stays with pciback."""
    info = facts.toolstack.xl
    if not facts.wants_pci:
        return
    if info is None:
        yield unknown("it is not known whether Xen has an IOMMU", "make `xl info` work first")
    elif not {"hvm_directio", "pv_directio"} & set(info.get("virt_caps", "").split()):
        yield bad(
            "rules ask for a whole host controller (via: pci), but Xen has no IOMMU (virt_caps)",
            "enable VT-d or AMD-Vi in the firmware and boot Xen with iommu=1, or remove via: pci",
        )


def pciback(facts: Facts) -> Iterator[Finding]:
    """xl assigns PCI devices through this driver; `pci-assignable-list` exits 0 even without it."""
    if facts.wants_pci and not facts.toolstack.pciback:
        yield bad(
            "rules ask for a whole host controller (via: pci), but the xen-pciback driver is not loaded",
            facts.system.load_at_boot("xen-pciback"),
        )


def debug_port(facts: Facts) -> Iterator[Finding]:
    """Xen's own console may use a USB controller."""
    line = (facts.toolstack.xl or {}).get("xen_commandline", "")
    port = re.search(r"(?:^|\s)dbgp=(\S+)", line)
    if port and facts.wants_pci:
        yield warning(
            f"Xen's console is on a USB controller (dbgp={port[1]}), and rules ask for whole controllers",
            "make sure that no rule asks for that controller, or remove dbgp= from Xen's command line",
        )


def version_of(text: str) -> Version:
    """`4.17.6-pre` as (4, 17, 6), `1:4.20.2+37` as (4, 20, 2); empty if it is not a version."""
    found = _NUMBERS.match(text)
    return tuple(int(part) for part in found[0].rpartition(":")[2].split(".")) if found else ()


def dotted(version_: Version) -> str:
    """(4, 17) as 4.17."""
    return ".".join(map(str, version_))


CHECKS = (
    Check("dom0", "this is a Xen dom0", dom0),
    Check("xl", "xl answers", xl, xen=True),
    Check("xenstored", "xenstored answers", xenstored, xen=True),
    Check("xen-version", "this Xen supports USB passthrough", version, xen=True),
    Check("qemu", "xl and QEMU are compatible", qemu, xen=True),
    Check("usb-host", "QEMU has what it needs to attach USB devices", usb_host, xen=True),
    Check("usbback", "nothing needs a missing usbback driver", usbback, xen=True),
    Check("iommu", "Xen has an IOMMU if rules need one", iommu, xen=True),
    Check("pciback", "xen-pciback is loaded if rules need it", pciback, xen=True),
    Check("debug-port", "rules do not ask for the USB controller of Xen's console", debug_port, xen=True),
)
