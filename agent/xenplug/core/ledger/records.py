"""The records of the ledger: of an occupied guest port, a device, a domain, and of what a person ordered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from xenplug.core.model import BusId, DeviceKey, Tag, Use

DOMAIN_END_TIME = 30.0
"""A domain that ends within so many seconds after its ports fell empty, or after it lost a host controller, emptied
them itself: libxl detaches every device before it destroys the domain (xen-facts 2.7)."""

CONCLUSION_DELAY = 5.0
"""Seconds within which a domain that is being shut down is gone after its ports fell empty (up to four in the lab). If
it still exists then, a person detached the device."""

SET_UP_WITHIN = 15.0
"""Seconds of a running guest after which a device that it has not configured is taken to be left alone by it."""

DRIVER_START_TIME = 3.0
"""Seconds after its configuration for which a guest's drivers still ask the device for descriptors and settings."""

UNHELD_GRACE = 1.0
"""Seconds for which an attached device may be unclaimed before it counts as lost: a guest that resets a device releases
it for a moment (xen-facts 3.2)."""


def no_items() -> Mapping[Any, Any]:
    """The default of the ledger's maps."""
    return MappingProxyType({})


class Intent(StrEnum):
    """What is being done with a guest port: noted before the act begins, removed when its result is known."""

    ATTACH = "attach"
    DETACH = "detach"
    INTERRUPTED = "interrupted"
    """The agent ended during the act. The next snapshot shows how far it got."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One occupied guest port, whoever attached the device."""

    guest: str
    busid: BusId
    bus: int
    number: int
    tag: Tag
    ours: bool
    intent: Intent | None = None
    waited: float = 0.0
    """Seconds for which the running guest could have taken the device; does not count while the guest is paused."""
    delivered: bool = False
    """The guest's device model claimed the device at some time since it was attached."""
    was_used: bool = False
    """The guest configured it at some time since it was attached."""
    used_for: float = 0.0
    """Seconds of the running guest since it configured the device for the first time."""
    missing: float = 0.0
    """Seconds since it was last claimed (or used) as it had been before."""

    @property
    def key(self) -> DeviceKey:
        """The device that was attached, even if another is plugged in there by now."""
        return DeviceKey(self.busid, self.number)


def lost(entry: Entry) -> bool:
    """A delivered device has been unclaimed for longer than a reset takes (law 3, docs/dev/architecture.md)."""
    return entry.missing > UNHELD_GRACE


def set_up_in(entry: Entry) -> float:
    """Seconds of the running guest until it has set the device up, or will not; 0 if so.

    While a guest enumerates a device, and while its drivers start, it sends control requests. If the device has been
    detached by then, qemu's qusb backend aborts, and all devices of the guest are lost (xen-facts, lab 17).
    """
    left = DRIVER_START_TIME - entry.used_for if entry.was_used else SET_UP_WITHIN - entry.waited
    return max(0.0, left)


def was_healthy(entry: Entry) -> bool:
    """The device worked on its port, as far as is known."""
    return (entry.delivered or not entry.ours) and not lost(entry)


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """What is remembered of one device until it is unplugged."""

    last_guest: str | None = None
    """The guest it was last with; forgotten when that guest has been gone for longer than a reboot takes."""
    reenumerated_at: float | None = None
    """When it appeared where something had just left (a re-enumeration); 0 if it appeared otherwise. None: this agent
    has not seen it yet."""
    in_use: frozenset[Use] = frozenset()
    """What dom0 used it for at some time since it was plugged in: it stays protected, so that a stick does not move to
    a guest when it is unmounted."""
    blocked: bool = False
    """The agent deauthorised it."""
    released_to_dom0: bool = False
    """The agent opened its interfaces for dom0's drivers, and has not deauthorised them since."""
    unconfigured_since: float | None = None
    """When it was first seen authorised but without a configuration; None: it has one."""
    reconfigured: bool = False
    """It was deauthorised when it had no configuration, so that the kernel chooses one when it is authorised again."""


@dataclass(frozen=True, slots=True)
class DomainRecord:
    """What is remembered of one domain until it ends."""

    first_running: float | None = None
    """When it was first seen running."""
    controllers_made: frozenset[int] = frozenset()
    """The guest controllers, by id, that the agent made for it."""
    last_made_at: float | None = None
    """When the agent last made one."""
    empty_since: Mapping[int, float] = field(default_factory=no_items)
    """Of those, by id, the ones with no device on them, and since when."""
    connected: frozenset[int] | None = None
    """The guest controllers whose frontend was connected in the last snapshot. None: this agent has not seen it yet."""


class OrderAction(StrEnum):
    """What a person can order for a device."""

    ATTACH = "attach"
    DETACH = "detach"


@dataclass(frozen=True, slots=True)
class Override:
    """A manual override for one device; it ends when the device is unplugged, or with `release`."""

    action: OrderAction
    guest: str | None = None
    domid: int | None = None
    """Set if no person ordered it: it was concluded from this domain's port, which was found empty at the time `at`."""
    at: float = 0.0
    back: str | None = None
    """The guest it was with when it was ordered to another: it returns there if that one fails to take it."""

    def in_doubt(self, now: float) -> float:
        """Seconds until a conclusion counts; 0 if it does."""
        return 0.0 if self.domid is None else max(0.0, self.at + CONCLUSION_DELAY - now)


class PauseScope(StrEnum):
    """What a pause is of."""

    ALL = "all"
    GUEST = "guest"
    PORT = "port"


class Pause(NamedTuple):
    """Something that the agent leaves alone."""

    scope: PauseScope
    name: str
    """The guest's name, the port's path, or "all"."""


PAUSE_ALL = Pause(PauseScope.ALL, "all")


@dataclass(frozen=True, slots=True)
class Orders:
    """What people ordered: kept until they take it back, or dom0 reboots."""

    overrides: Mapping[DeviceKey, Override] = field(default_factory=no_items)
    paused: frozenset[Pause] = frozenset()
    preferred: str | None = None
    """The guest that comes first in every list that names it."""


@dataclass(frozen=True, slots=True, order=True)
class Leftover:
    """A device object in a domain's qemu, named by the address the device had when it was attached."""

    domid: int
    bus: int
    number: int
