"""What a plan is made of: steps (acts, one guest's in order) and verdicts (how each device stands, and why)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from xenplug.core.ledger.records import Leftover
from xenplug.core.matching.match import Decision
from xenplug.core.model import BusId, ControllerType, Device, DeviceKey, GuestController, GuestPort
from xenplug.core.planning.pci_steps import PciStep
from xenplug.core.policy.rules import ControllerSpec, Via


class State(StrEnum):
    """How a device stands (design §4)."""

    HOST = "host"
    PROTECTED = "protected"
    BLOCKED = "blocked"
    PENDING = "pending"
    ATTACHING = "attaching"
    ATTACHED = "attached"
    FAILING = "failing"
    GIVEN_UP = "given_up"
    FOREIGN = "foreign"
    PCI = "pci"


class Cause(StrEnum):
    """Why a device stands as it does: stable words for programs; explain has the sentences for people."""

    RULE = "rule"
    DEFAULT = "default"
    BY_HAND = "by_hand"
    PAUSED = "paused"
    HUB = "hub"
    PROTECT = "protect"
    IN_USE = "in_use"
    LAST_KEYBOARD = "last_keyboard"
    NO_POLICY = "no_policy"
    SETTLING = "settling"
    PORT_EMPTIED = "port_emptied"
    CONFIGURING = "configuring"
    GUEST_STOPPED = "guest_stopped"
    GUEST_STARTING = "guest_starting"
    GUEST_PAUSED = "guest_paused"
    REBOOT_GRACE = "reboot_grace"
    NO_FREE_PORT = "no_free_port"
    NO_FRONTEND = "no_frontend"
    NO_DEVICE_MODEL = "no_device_model"
    DEVICE_MODEL_GONE = "device_model_gone"
    NO_CONTROLLER = "no_controller"
    PHANTOM_CONTROLLER = "phantom_controller"
    STUB_DOMAIN = "stub_domain"
    NO_USBBACK = "no_usbback"
    UNFIT_SPEED = "unfit_speed"
    UNFIT_ISOCHRONOUS = "unfit_isochronous"
    NOT_DELIVERED = "not_delivered"
    LOST = "lost"
    REFUSED = "refused"
    STALE_PORT = "stale_port"
    MOVING = "moving"
    TAKEN = "taken"
    USED = "used"
    WAITING_TO_BE_TAKEN = "waiting_to_be_taken"
    FOREIGN = "foreign"
    WITH_CONTROLLER = "with_controller"
    CONTROLLER_MOVING = "controller_moving"
    CONTROLLER_BY_HAND = "controller_by_hand"
    ASKING_XL = "asking_xl"
    SIBLING = "sibling"
    NO_HOST_CONTROLLER = "no_host_controller"
    NO_IOMMU = "no_iommu"
    NO_PCIBACK = "no_pciback"
    NO_PASSTHROUGH = "no_passthrough"
    UNFIT_GUEST = "unfit_guest"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class ClearPort:
    """Empty a guest port whose device is gone, in xenstore (xl cannot: xen-facts 2.6).

    For devicemodel the device object stays in qemu under its old address, `bus` and `number`: DropObject follows.
    """

    guest: str
    guest_port: GuestPort
    type: ControllerType
    busid: BusId
    bus: int
    number: int


@dataclass(frozen=True, slots=True)
class Detach:
    """Detach a device from a guest. `trouble` is set when the reason is that it failed there."""

    guest: str
    guest_port: GuestPort
    device: Device
    trouble: Cause | None = None
    driverless: bool = False
    """Deauthorise its interfaces first, so that no dom0 driver binds when qemu releases them (driver_isolation)."""


@dataclass(frozen=True, slots=True)
class Attach:
    """Attach a device to a guest port named in full (libxl's own choice is broken for HVM and racy for all)."""

    guest: str
    guest_port: GuestPort
    device: Device
    driverless: bool = False
    """Authorise its interfaces without probing first: the planner may have seen them before they were complete."""


@dataclass(frozen=True, slots=True)
class AddController:
    """Make a guest controller. `known` are those the guest was seen to have: if it has others by then, none is made."""

    guest: str
    domid: int
    spec: ControllerSpec
    known: frozenset[tuple[int, int]] = frozenset()
    """devid and number of ports of each."""


@dataclass(frozen=True, slots=True)
class RemoveController:
    """Take a guest controller away that nothing is on."""

    guest: str
    domid: int
    controller: int


def sizes(controllers: Iterable[GuestController]) -> frozenset[tuple[int, int]]:
    """What `AddController.known` holds: devid and number of ports of each controller."""
    return frozenset((c.id, len(c.ports)) for c in controllers)


@dataclass(frozen=True, slots=True)
class Authorize:
    """Write a device's sysfs `authorized`. Belongs to no guest."""

    device: Device
    allowed: bool


@dataclass(frozen=True, slots=True)
class DropObject:
    """Take a device's object out of a qemu whose port was emptied; it bears the address the device had."""

    guest: str
    left: Leftover


@dataclass(frozen=True, slots=True)
class Interfaces:
    """Write `authorized` of each of a device's interfaces. Belongs to no guest."""

    device: Device
    allowed: bool
    probe: bool = False
    """Then let dom0's drivers bind to them."""


Step = ClearPort | DropObject | Detach | Attach | AddController | RemoveController | Authorize | Interfaces | PciStep


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one device stands now."""

    device: Device
    decision: Decision
    state: State
    cause: Cause
    wanted: tuple[str, ...] = ()
    """The guests it belongs to, best first."""
    target: str | None = None
    """The guest it is to go to, or waits for."""
    guest: str | None = None
    """The guest it is with."""
    guest_port: GuestPort | None = None
    used: bool = False
    attempts: int = 0
    next_try: float | None = None
    """Monotonic seconds."""
    text: str | None = None
    """A tool's own words about the failure."""
    by_hand: bool = False
    """A person's order decides, not the rules."""
    via: Via = Via.USB
    """Pci where the device goes, or went, with its whole host controller."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, how all stands, and when to look again at the latest (monotonic; None: at the next event)."""

    steps: tuple[Step, ...]
    verdicts: tuple[Verdict, ...]
    wake: float | None = None
    asked: Mapping[DeviceKey, float] = field(default_factory=dict)
    """For PciLedger.asked."""
    preflights: tuple[Mapping[str, Any], ...] = ()
    """The preflights of whole controllers, as explain shows them."""
