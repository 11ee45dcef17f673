"""What the doctor knows of a host. None, or an empty tuple, is what could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from xenplug.core.interop.xl_cfg import Setting
from xenplug.core.model import BusId, Claim, Device, Guest, PciController
from xenplug.core.policy.rules import Policy, Via
from xenplug.core.settings import Settings

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ToolstackFacts:
    """Xen as its tools show it."""

    dom0: bool = True
    """/proc/xen/capabilities says control_d."""
    xl: Mapping[str, str] | None = None
    """The keys of `xl info`."""
    xl_error: str | None = None
    store_error: str | None = None
    """Why xenstored cannot be reached; None if it can."""
    store_socket: str = ""
    qemu: Version | None = None
    """The version of the device model that libxl starts."""
    qemu_missing: bool = False
    usbback: bool = False
    pciback: bool = False


@dataclass(frozen=True, slots=True)
class GuestConfigFile:
    """A guest's configuration file below /etc/xen."""

    file: str
    settings: Mapping[str, Setting]
    starts_at_boot: bool = False
    """It is linked from /etc/xen/auto."""


@dataclass(frozen=True, slots=True)
class OwnedPath:
    """A file or folder whose writers decide over devices."""

    path: str
    uid: int
    mode: int


@dataclass(frozen=True, slots=True)
class RunningGuest:
    """A guest as it runs now."""

    guest: Guest
    model_alive: bool = True
    """The process that xenstore names as its device model exists."""
    claims: Mapping[BusId, Claim] = field(default_factory=lambda: MappingProxyType({}))
    """Whether it has the devices that stand on its ports."""
    objects: frozenset[str] | None = None
    """Ids of what its device model has (`info qtree`); None where that was not asked."""


@dataclass(frozen=True, slots=True)
class WaitingProcess:
    """A call of xl that has not ended."""

    pid: int
    words: str
    seconds: float


@dataclass(frozen=True, slots=True)
class UsbFacts:
    """dom0's USB side."""

    devices: Mapping[BusId, Device] = field(default_factory=lambda: MappingProxyType({}))
    controllers: tuple[PciController, ...] = ()
    shut: tuple[str, ...] = ()
    """Files of root hubs that say 0: what is plugged in there begins unauthorised."""


@dataclass(frozen=True, slots=True)
class Install:
    """xenplug's own parts on this host."""

    packages: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """Python packages by name: the version, None if missing."""
    unit: str | None = None
    """Where systemd finds xenplug.service."""
    enabled: bool = True
    udev_rules: str | None = None
    """Where 70-xenplug.rules is."""
    guest_rules: str | None = None
    """The content of 72-xenplug-guests.rules."""
    wanted_rules: str | None = None
    """What `xenplug udev-rules` prints of the policy now."""
    agent: str | None = None
    """The version of the agent that answers at the socket."""
    version: str = ""
    """The version of this command."""
    group: bool = True
    """The socket's group exists."""
    owned: tuple[OwnedPath, ...] = ()
    unsafe: tuple[tuple[str, str], ...] = ()
    """Programs of the settings that others than root may exchange: the place, and what is wrong there; the remedy."""
    free: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Bytes left where the agent writes, by folder; -1: read-only."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything."""

    root: bool = True
    toolstack: ToolstackFacts = field(default_factory=ToolstackFacts)
    settings: Settings = field(default_factory=Settings)
    policy: Policy | None = None
    problems: tuple[str, ...] = ()
    """What is wrong with the policy and the settings."""
    configs: tuple[GuestConfigFile, ...] | None = ()
    running: tuple[RunningGuest, ...] | None = ()
    moving: tuple[str, ...] = ()
    """Names of guests that are being migrated."""
    beyond: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Values on guest ports that their controller has not: path in xenstore -> busid."""
    waiting: tuple[WaitingProcess, ...] = ()
    """xl calls that have run for long."""
    saved_to: str = ""
    """Where Xen's init script saves guests when dom0 goes down; empty: nowhere."""
    present: frozenset[str] = frozenset()
    """Busids of the devices that are plugged in."""
    usb: UsbFacts = field(default_factory=UsbFacts)
    install: Install = field(default_factory=Install)
    others: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Traces of other programs that move USB devices: where -> what."""

    @property
    def named(self) -> frozenset[str]:
        """Guests that the policy names."""
        if self.policy is None:
            return frozenset()
        return frozenset({g for rule in self.policy.rules for g in rule.guests} | set(self.policy.guests))

    @property
    def wants_pci(self) -> bool:
        """Some rule may pass a whole host controller."""
        return self.policy is not None and self.policy.passes_controllers

    @property
    def pci_guests(self) -> frozenset[str]:
        """Guests that rules may give a whole host controller."""
        rules = self.policy.rules if self.policy else ()
        return frozenset(g for rule in rules if rule.via == Via.PCI or rule.fallback for g in rule.guests)
