"""What failed: the failures in a row of one act, the key that names the act, and when it is tried again.

Values only; core/ledger/ledger has the functions that note and forget them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from xenplug.core.model import Bdf, Device, DeviceKey


class Act(StrEnum):
    """The kinds of steps that can fail, each with its own backoff."""

    ATTACH = "attach"
    DETACH = "detach"
    AUTHORIZE = "authorize"
    """Write a device's sysfs `authorized`."""
    INTERFACES = "interfaces"
    """Write `authorized` of a device's interfaces."""
    ADD_CONTROLLER = "add_controller"
    REMOVE_CONTROLLER = "remove_controller"
    PCI = "pci"
    """Pass a whole host controller to a domain; with domid 0: return it to dom0."""


class TroubleKey(NamedTuple):
    """What failed: which act, for which domain, and what it was done to. Acts on dom0's own devices have domid 0.

    Made by the class methods below, one for each Act, so that each key has exactly the fields its act needs.
    """

    act: Act
    domid: int
    device: DeviceKey | None = None
    controller: int | None = None
    """The id of a guest controller."""
    bdf: Bdf | None = None

    @classmethod
    def attach(cls, device: DeviceKey, domid: int) -> Self:
        """To attach a device to a domain, and to have it delivered there."""
        return cls(Act.ATTACH, domid, device)

    @classmethod
    def detach(cls, device: DeviceKey, domid: int) -> Self:
        """To detach a device from a domain."""
        return cls(Act.DETACH, domid, device)

    @classmethod
    def authorize(cls, device: DeviceKey) -> Self:
        """To write the device's `authorized`."""
        return cls(Act.AUTHORIZE, 0, device)

    @classmethod
    def interfaces(cls, device: DeviceKey) -> Self:
        """To write `authorized` of the device's interfaces."""
        return cls(Act.INTERFACES, 0, device)

    @classmethod
    def add_controller(cls, domid: int) -> Self:
        """To make a guest controller. Without its id, which is known only once it is made."""
        return cls(Act.ADD_CONTROLLER, domid)

    @classmethod
    def remove_controller(cls, domid: int, controller: int) -> Self:
        """To remove an empty guest controller."""
        return cls(Act.REMOVE_CONTROLLER, domid, controller=controller)

    @classmethod
    def pass_pci(cls, bdf: Bdf, domid: int) -> Self:
        """To pass a whole host controller to a domain."""
        return cls(Act.PCI, domid, bdf=bdf)

    @classmethod
    def return_pci(cls, bdf: Bdf) -> Self:
        """To return a whole host controller to dom0: to detach it from its guest, and to bind dom0's driver."""
        return cls(Act.PCI, 0, bdf=bdf)

    def concerns(self, device: Device) -> bool:
        """Whether it is about this device, or about the host controller it is plugged into."""
        return self.device == device.key or (self.bdf is not None and self.bdf == device.controller)


@dataclass(frozen=True, slots=True)
class Trouble:
    """The failures in a row of one act."""

    count: int
    cause: str
    """A Cause of core/planning/steps."""
    text: str
    """The tool's own words."""
    next_try: float
    """Monotonic seconds."""
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Backoff:
    """When to try again: after 1, 2, 4 … at most `most` seconds, `tries` times in all."""

    first: float = 1.0
    most: float = 60.0
    tries: int = 8

    def after(self, count: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.first * 2.0 ** (count - 1), self.most)
