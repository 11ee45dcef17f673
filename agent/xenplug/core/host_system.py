"""The host's own package and service manager, for remedies: from os-release(5) to the command that a person types here.

One table for each kind of remedy. Where the distribution is not known, the remedy says what is needed instead. Names of
packages: Debian 12 and 13, Fedora's, openSUSE's and Alpine's package sources, Arch's repositories and AUR, in 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """Distributions that share package names and commands."""

    DEBIAN = "debian"
    FEDORA = "fedora"
    QUBES = "qubes"
    """Fedora's packages; dom0 has no network and gets them through a qube."""
    SUSE = "suse"
    ALPINE = "alpine"
    ARCH = "arch"
    UNKNOWN = "unknown"


IDS: Mapping[str, Family] = {
    "debian": Family.DEBIAN,
    "ubuntu": Family.DEBIAN,
    "devuan": Family.DEBIAN,
    "fedora": Family.FEDORA,
    "rhel": Family.FEDORA,
    "centos": Family.FEDORA,
    "qubes": Family.QUBES,
    "suse": Family.SUSE,
    "opensuse": Family.SUSE,
    "sles": Family.SUSE,
    "opensuse-leap": Family.SUSE,
    "opensuse-tumbleweed": Family.SUSE,
    "alpine": Family.ALPINE,
    "arch": Family.ARCH,
}
"""By ID, or by a word of ID_LIKE for all others."""


class Services(StrEnum):
    """The service manager."""

    SYSTEMD = "systemd"
    OPENRC = "openrc"
    SYSV = "sysv"
    UNKNOWN = "unknown"


class Package(StrEnum):
    """What a package is needed for; the value is how it is called where its package is not known."""

    XEN_TOOLS = "xl, Xen's command line tool"
    QEMU = "QEMU for Xen (qemu-system-i386)"
    USB_HOST = "QEMU's module hw-usb-host.so"
    PYUDEV = "the Python module pyudev"
    YAML = "the Python module yaml (PyYAML)"
    JSONSCHEMA = "the Python module jsonschema"


_RPM = {
    Package.XEN_TOOLS: "xen-runtime",
    Package.QEMU: "qemu-system-x86-core",
    Package.USB_HOST: "qemu-device-usb-host",
    Package.PYUDEV: "python3-pyudev",
    Package.YAML: "python3-pyyaml",
    Package.JSONSCHEMA: "python3-jsonschema",
}
PACKAGES: Mapping[Family, Mapping[Package, str]] = {
    # usb-host is in Debian's QEMU for Xen itself.
    Family.DEBIAN: {
        Package.XEN_TOOLS: "xen-utils-common",
        Package.QEMU: "qemu-system-xen",
        Package.PYUDEV: "python3-pyudev",
        Package.YAML: "python3-yaml",
        Package.JSONSCHEMA: "python3-jsonschema",
    },
    Family.FEDORA: _RPM,
    Family.QUBES: _RPM,
    Family.SUSE: {
        Package.XEN_TOOLS: "xen-tools",
        Package.QEMU: "qemu-x86",
        Package.USB_HOST: "qemu-hw-usb-host",
        Package.PYUDEV: "python3-pyudev",
        Package.YAML: "python3-PyYAML",
        Package.JSONSCHEMA: "python3-jsonschema",
    },
    Family.ALPINE: {
        Package.XEN_TOOLS: "xen",
        Package.QEMU: "xen-qemu",
        Package.USB_HOST: "qemu-hw-usb-host",
        Package.PYUDEV: "py3-udev",
        Package.YAML: "py3-yaml",
        Package.JSONSCHEMA: "py3-jsonschema",
    },
    Family.ARCH: {
        Package.USB_HOST: "qemu-hw-usb-host",
        Package.PYUDEV: "python-pyudev",
        Package.YAML: "python-yaml",
        Package.JSONSCHEMA: "python-jsonschema",
    },
}
AUR: Mapping[Package, str] = {Package.XEN_TOOLS: "xen", Package.QEMU: "xen-qemu"}
"""Arch has no Xen in its own repositories."""
INSTALL: Mapping[Family, str] = {
    Family.DEBIAN: "apt-get install",
    Family.FEDORA: "dnf install",
    Family.QUBES: "qubes-dom0-update",
    Family.SUSE: "zypper install",
    Family.ALPINE: "apk add",
    Family.ARCH: "pacman -S",
}
INITRAMFS: Mapping[Family, str] = {
    Family.DEBIAN: "update-initramfs -u",
    Family.FEDORA: "dracut -f",
    Family.QUBES: "dracut -f",
    Family.SUSE: "dracut -f",
    Family.ALPINE: "mkinitfs",
    Family.ARCH: "mkinitcpio -P",
}


@dataclass(frozen=True, slots=True)
class HostSystem:
    """The distribution and its service manager."""

    family: Family = Family.UNKNOWN
    services: Services = Services.UNKNOWN

    def package(self, needed: Package) -> str | None:
        """The package's name in the distribution's own repositories; None if it is not known, or not one of its own."""
        return PACKAGES.get(self.family, {}).get(needed)

    def install(self, needed: Package) -> str:
        """How to install it."""
        name = self.package(needed)
        if name:
            return f"{INSTALL[self.family]} {name}"
        if self.family is Family.ARCH and needed in AUR:
            return f"install {AUR[needed]} from the AUR"
        return f"install the package that has {needed}"

    def service(self, verb: str, name: str = "xenplug") -> str:
        """How to start, stop, restart or enable a service."""
        if self.services is Services.SYSTEMD:
            return f"systemctl {verb} {name}"
        if self.services is Services.OPENRC:
            return f"rc-update add {name}" if verb == "enable" else f"rc-service {name} {verb}"
        if self.services is Services.SYSV:
            return f"update-rc.d {name} enable" if verb == "enable" else f"service {name} {verb}"
        return f"{verb} the service {name}"

    def start_it(self) -> str:
        """`start it with …`, for a sentence about the agent."""
        command = self.service("start")
        return f"start it with {command}" if self.services is not Services.UNKNOWN else command

    def log(self) -> str:
        """Where the agent's messages are: a command or a place."""
        return "journalctl -u xenplug" if self.services is Services.SYSTEMD else "the system log (/var/log)"

    def start_xenstored(self) -> str:
        """How to start xenstored: in Debian one init script has all of Xen's daemons."""
        return self.service("start", "xen" if self.family is Family.DEBIAN else "xenstored")

    def make_group(self, name: str) -> str:
        """How to make a system group. Alpine's tools are BusyBox's."""
        return f"addgroup -S {name}" if self.family is Family.ALPINE else f"groupadd --system {name}"

    def make_user(self, name: str) -> str:
        """How to make a system user."""
        short = {Family.ALPINE: "adduser -S", Family.DEBIAN: "adduser --system"}
        return f"{short.get(self.family, 'useradd --system')} {name}"

    def join_group(self, group: str) -> str:
        """How to add a user to a group."""
        short = {Family.ALPINE: "addgroup", Family.DEBIAN: "adduser"}
        return f"{short[self.family]} USER {group}" if self.family in short else f"usermod -aG {group} USER"

    def load_at_boot(self, module: str) -> str:
        """How to load a kernel module now and at each boot."""
        if self.services is Services.SYSTEMD and self.family is not Family.DEBIAN:
            return f"modprobe {module}, and echo {module} >/etc/modules-load.d/{module}.conf"
        if self.family in (Family.DEBIAN, Family.ALPINE):
            return f"modprobe {module}, and add it to /etc/modules"
        return f"modprobe {module}, and load it at each boot"

    def make_initramfs(self) -> str:
        """How to build the initramfs again."""
        return INITRAMFS.get(self.family, "build the initramfs again")


def os_release(text: str) -> dict[str, str]:
    """The values of an os-release file: `KEY=VALUE` lines, a value in quotes or not, the last of a key counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"""\s*([A-Z_0-9]+)=(?:"([^"]*)"|'([^']*)'|([^\s"']*))\s*""", line)
        if match:
            found[match[1]] = match[2] or match[3] or match[4] or ""
    return found


def host_system(release: str | None, manager: Services | None = None) -> HostSystem:
    """The host: `release` is the text of its os-release, `manager` the service manager that runs, if it is known."""
    values = os_release(release or "")
    words = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    family = next((IDS[word.lower()] for word in words if word.lower() in IDS), Family.UNKNOWN)
    usual = {Family.UNKNOWN: Services.UNKNOWN, Family.ALPINE: Services.OPENRC}.get(family, Services.SYSTEMD)
    if "devuan" in words:
        usual = Services.SYSV
    return HostSystem(family, manager or usual)
