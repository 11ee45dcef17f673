"""The parts of a plan: steps (things to do, in order for each guest) and verdicts (the state of each device, and
why).
"""

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
    """The state of a device, as status shows it."""

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
    """Why a device is in its state: stable words for programs; core/reporting/explain has the sentences for people."""

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
    GUEST_SUSPENDED = "guest_suspended"
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
    BEING_SET_UP = "being_set_up"
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
    """Create a guest controller. `known`: the guest's controllers when it was planned; if they changed, none is
    created.
    """

    guest: str
    domid: int
    spec: ControllerSpec
    known: frozenset[tuple[int, int]] = frozenset()
    """devid and number of ports of each."""


@dataclass(frozen=True, slots=True)
class RemoveController:
    """Remove an empty guest controller."""

    guest: str
    domid: int
    controller: int


def sizes(controllers: Iterable[GuestController]) -> frozenset[tuple[int, int]]:
    """What `AddController.known` holds: devid and number of ports of each controller."""
    return frozenset((c.id, len(c.ports)) for c in controllers)


@dataclass(frozen=True, slots=True)
class Authorize:
    """Write a device's sysfs `authorized`. A step of no guest."""

    device: Device
    allowed: bool


@dataclass(frozen=True, slots=True)
class DropObject:
    """Remove a device's object from a qemu whose port was cleared; its name holds the address that the device had."""

    guest: str
    left: Leftover


@dataclass(frozen=True, slots=True)
class Interfaces:
    """Write `authorized` of each of a device's interfaces. A step of no guest."""

    device: Device
    allowed: bool
    probe: bool = False
    """Then let dom0's drivers bind to them."""


Step = ClearPort | DropObject | Detach | Attach | AddController | RemoveController | Authorize | Interfaces | PciStep


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of one device now, and why."""

    device: Device
    decision: Decision
    state: State
    cause: Cause
    wanted: tuple[str, ...] = ()
    """The guests it belongs to, best first."""
    target: str | None = None
    """The guest that it will go to, or waits for."""
    guest: str | None = None
    """The guest it is with."""
    guest_port: GuestPort | None = None
    used: bool = False
    attempts: int = 0
    next_try: float | None = None
    """Monotonic seconds."""
    text: str | None = None
    """The tool's error message."""
    by_hand: bool = False
    """A manual override decides, not the rules."""
    via: Via = Via.USB
    """PCI if the device goes, or went, with its whole host controller."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps to do now, the verdict of every device, and the latest time of the next round (monotonic seconds; None:
    at the next event).
    """

    steps: tuple[Step, ...]
    verdicts: tuple[Verdict, ...]
    wake: float | None = None
    asked: Mapping[DeviceKey, float] = field(default_factory=dict)
    """The new PciLedger.asked."""
    preflights: tuple[Mapping[str, Any], ...] = ()
    """The preflights of whole controllers, as explain shows them."""
