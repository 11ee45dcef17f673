"""The data about a host that the doctor checks. None, or an empty tuple: it could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from xenplug.core.host_system import Family, HostSystem, Services
from xenplug.core.interop.xl_cfg import Setting
from xenplug.core.model import BusId, Claim, Device, Guest, PciController
from xenplug.core.policy.rules import Policy, Via
from xenplug.core.settings import Settings

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ToolstackFacts:
    """Xen and its tools."""

    dom0: bool = True
    """/proc/xen/capabilities contains control_d."""
    xl: Mapping[str, str] | None = None
    """The keys of `xl info`."""
    xl_error: str | None = None
    xl_package: str | None = None
    """The version of the package that xl belongs to, as its package manager writes it; None if it is unknown."""
    store_error: str | None = None
    """The error if xenstored cannot be reached; None if it can."""
    store_socket: str = ""
    qemu: Version | None = None
    """The version of the device model that libxl starts."""
    qemu_missing: bool = False
    qemu_of_distribution: bool = False
    """The device model is the distribution's own QEMU, with modules in packages, and not one that came with Xen."""
    usb_host: bool = True
    """QEMU's module usb-host is where QEMU looks for modules."""
    usbback: bool = False
    pciback: bool = False


@dataclass(frozen=True, slots=True)
class GuestConfigFile:
    """A guest's configuration file below /etc/xen."""

    file: str
    settings: Mapping[str, Setting]
    starts_at_boot: bool = False
    """There is a link to it in /etc/xen/auto."""


@dataclass(frozen=True, slots=True)
class OwnedPath:
    """A file or directory whose writers can control devices."""

    path: str
    uid: int
    mode: int


@dataclass(frozen=True, slots=True)
class RunningGuest:
    """A guest that runs now."""

    guest: Guest
    model_alive: bool = True
    """The process of its device model in xenstore exists."""
    claims: Mapping[BusId, Claim] = field(default_factory=lambda: MappingProxyType({}))
    """Whether it has taken the devices on its ports."""
    objects: frozenset[str] | None = None
    """Ids of the objects of its device model (`info qtree`); None if they were not read."""


@dataclass(frozen=True, slots=True)
class WaitingProcess:
    """An xl process that has not ended."""

    pid: int
    words: str
    seconds: float


class Manager(StrEnum):
    """What started a process: systemd as a service of the system, systemd in a user's session, OpenRC, or neither."""

    SYSTEMD = "systemd"
    USER = "user"
    OPENRC = "openrc"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process of dom0 that holds nodes of a USB device open; no guest's device model."""

    device: BusId
    nodes: tuple[str, ...]
    pid: int
    command: str
    """Its name in the kernel, at most 15 characters, made printable."""
    service: str | None = None
    """The unit or service that it belongs to."""
    manager: Manager = Manager.NONE


@dataclass(frozen=True, slots=True)
class UsbFacts:
    """dom0's USB side."""

    devices: Mapping[BusId, Device] = field(default_factory=lambda: MappingProxyType({}))
    controllers: tuple[PciController, ...] = ()
    shut: tuple[str, ...] = ()
    """Files of root hubs with the value 0: devices that are plugged in there start unauthorised."""


@dataclass(frozen=True, slots=True)
class Install:
    """xenplug's own parts on this host."""

    packages: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """Python packages by name: the version, None if missing."""
    unit: str | None = None
    """The path of xenplug.service, or of OpenRC's script; None if the service manager does not find it."""
    enabled: bool = True
    udev_rules: frozenset[str] = frozenset()
    """The files of RULE_FILES (core/doctor/host) that are installed."""
    old_rules: tuple[str, ...] = ()
    """The paths of files that an earlier version used, and that are still there."""
    guest_rules: str | None = None
    """The content of 37-xenplug-guests.rules."""
    wanted_rules: str | None = None
    """The output of `xenplug udev-rules` for the current policy."""
    agent: str | None = None
    """The version of the agent that answers on the socket; None if none does."""
    version: str = ""
    """The version of this command."""
    group: bool = True
    """The socket's group exists."""
    owned: tuple[OwnedPath, ...] = ()
    unsafe: tuple[tuple[str, str], ...] = ()
    """Programs of the settings that users other than root can replace: the path, and fact; remedy."""
    free: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Free bytes by directory, for those that the agent writes to; -1: read-only."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All data about a host."""

    root: bool = True
    system: HostSystem = field(default_factory=lambda: HostSystem(Family.DEBIAN, Services.SYSTEMD))
    toolstack: ToolstackFacts = field(default_factory=ToolstackFacts)
    settings: Settings = field(default_factory=Settings)
    policy: Policy | None = None
    problems: tuple[str, ...] = ()
    """The problems of the policy and the settings."""
    configs: tuple[GuestConfigFile, ...] | None = ()
    running: tuple[RunningGuest, ...] | None = ()
    moving: tuple[str, ...] = ()
    """Names of guests that are being migrated."""
    beyond: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Values on guest ports that do not exist on their controller: path in xenstore -> busid."""
    waiting: tuple[WaitingProcess, ...] = ()
    """xl processes that have run for a long time."""
    saved_to: str = ""
    """The directory where Xen's init script saves guests when dom0 shuts down; empty: it does not save them."""
    saved_by: str = "/etc/default/xendomains"
    """The file of that setting."""
    present: frozenset[str] = frozenset()
    """Busids of the devices that are plugged in."""
    usb: UsbFacts = field(default_factory=UsbFacts)
    install: Install = field(default_factory=Install)
    holders: tuple[Holder, ...] = ()
    """Who holds devices open in dom0."""
    holders_complete: bool = True
    """Everything was read; there was no process with too many open files."""
    others: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Signs of other programs that move USB devices: path -> what was found."""

    @property
    def named(self) -> frozenset[str]:
        """Guests that the policy names."""
        if self.policy is None:
            return frozenset()
        return frozenset({g for rule in self.policy.rules for g in rule.guests} | set(self.policy.guests))

    @property
    def wants_pci(self) -> bool:
        """A rule may pass a whole host controller through."""
        return self.policy is not None and self.policy.passes_controllers

    @property
    def pci_guests(self) -> frozenset[str]:
        """Guests to which a rule may pass a whole host controller."""
        rules = self.policy.rules if self.policy else ()
        return frozenset(g for rule in rules if rule.via == Via.PCI or rule.fallback for g in rule.guests)
