"""What the simulated xl's commands share: the host, how they find a domain, the running calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from xenplug.core.model import ControllerType
from xenplug.simulator.answers import XlRefusal, no_qmp
from xenplug.simulator.domain import SimGuest
from xenplug.simulator.emulated import QemuMonitor
from xenplug.simulator.guests import Guests

FIXED_FOR_QEMU_9_2 = {(4, 19): 5, (4, 20): 3, (4, 21): 1}
"""From these releases on xl sends integers to qemu in device_add (xen-facts T23); 4.22 and later always do."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The properties of the host."""

    iommu: bool = True
    xen: str = "4.17.7"
    qemu: str = "7.2.22"


@dataclass(slots=True, eq=False)
class XlCall:
    """One call of a program. Times are the loop's."""

    argv: tuple[str, ...]
    start: float
    by: str = "agent"
    """`agent`, or `console` for a person's."""
    how: str = ""
    """The failure planned for it."""
    end: float | None = None
    """None while it runs."""
    code: int | None = None

    @property
    def command(self) -> str:
        """xl's subcommand; of other programs the last part of their path."""
        words = [word for word in self.argv[1:] if not word.startswith("-")]
        return words[0] if self.argv[0].endswith("xl") and words else self.argv[0].rpartition("/")[2]


@dataclass(slots=True, eq=False)
class Attaching:
    """A running usbdev-attach; `node` is set once it has written its port."""

    domid: int
    node: str | None = None
    met: list[Attaching] = field(default_factory=list)
    """The calls for the same guest that ran when this one started; they end before it."""


@dataclass(slots=True, eq=False)
class SimulatedToolstack:
    """The host as xl sees it."""

    guests: Guests
    facts: HostFacts = field(default_factory=HostFacts)
    attaching: list[Attaching] = field(default_factory=list)

    async def turn(self) -> None:
        """Wait for the duration of every call; its effect follows."""
        await asyncio.sleep(self.guests.times.call)

    def find(self, text: str) -> int:
        """The domid. Digits are taken as a domid even if no such domain exists (xen-facts T26, T27)."""
        if text.isascii() and text.isdigit():
            return int(text)
        for domid, name in self.names().items():
            if name == text:
                return domid
        raise XlRefusal(f"{text} is an invalid domain identifier (rc=-6)\n")

    def names(self) -> dict[int, str]:
        """The name of every domain, by domid."""
        return {0: "Domain-0"} | {guest.domid or 0: guest.name for guest in self.guests.domains()}

    def monitor(self, domid: int) -> QemuMonitor:
        """The QMP connection to the domain's device model."""
        guest = self.guests.of(domid)
        if guest is None or guest.monitor is None or not guest.serving:
            raise XlRefusal(no_qmp(domid))
        return guest.monitor

    def lacks_model(self, guest: SimGuest, type_: ControllerType) -> bool:
        """Whether libxl finds no device model. A dead one it does find: its nodes still exist (lab 5)."""
        return type_ is ControllerType.QUSB and guest.model is None

    @property
    def sends_integers(self) -> bool:
        """Whether this xl's device_add works with this qemu (xen-facts T23)."""
        xen, qemu = _version(self.facts.xen), _version(self.facts.qemu)
        fixed = FIXED_FOR_QEMU_9_2.get((xen[0], xen[1]))
        return qemu < (9, 2) or xen >= (4, 22) or (fixed is not None and xen[2] >= fixed)


def _version(text: str) -> tuple[int, int, int]:
    numbers = [int(part) for part in text.split(".") if part.isdigit()]
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return major, minor, patch
