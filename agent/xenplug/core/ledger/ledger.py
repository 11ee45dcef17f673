"""What the agent must remember because no tool can tell it: a frozen value, kept on disk by adapters/ledger.

The ledger never says what is attached (xenstore does); it says who did it, what was under way, which address a port's
device had, and what failed how often. core/ledger/update brings it into line with a new snapshot before
anything is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from xenplug.core.ledger.pci import PciLedger
from xenplug.core.model import Bdf, BusId, Device, Guest, GuestPort, GuestState, Tag, Use

LIVE_STATES = (GuestState.RUNNING, GuestState.PAUSED)
"""States in which a guest can have devices."""

INTERRUPTED = "interrupted"
"""The intent of an act that the agent did not live to see the end of."""

Place = str
"""A device's place and enumeration as one word, "1-4@6": what a replug ends."""


def place(device: Device) -> Place:
    """The word for this one enumeration of a device."""
    return f"{device.port}@{device.number}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One occupied guest port, foreign ones too."""

    guest: str
    busid: BusId
    bus: int
    number: int
    tag: Tag
    ours: bool
    intent: str | None = None
    """attach or detach while such an act is under way: begun, its result not yet recorded (or INTERRUPTED)."""
    waited: float = 0.0
    """Seconds the running guest had the chance to take the device; stands still while the guest is paused."""
    delivered: bool = False
    """The device was taken at some time since it was attached."""
    was_used: bool = False
    """The guest had configured it at some time since it was attached."""
    missing: float = 0.0
    """Seconds for which it has not been as it was (taken, or used) since."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Failures in a row of one act: its subject is a device in its place for one domain, or a domain's controller."""

    count: int
    cause: str
    text: str
    next_try: float
    given_up: bool = False


CONCLUSION_DELAY = 5.0
"""Seconds that a domain whose ports fell empty has to go down: libxl empties them first (xen-facts 2.7; up to four
seconds in the lab). If it stays, somebody detached the device."""


@dataclass(frozen=True, slots=True)
class Override:
    """What a person ordered for a device by hand; until it is unplugged, or `release`."""

    action: str
    """attach or detach."""
    guest: str | None = None
    domid: int | None = None
    """Not ordered but concluded: this domain's port was found empty, at the time `at`."""
    at: float = 0.0
    back: str | None = None
    """The guest it was with when it was given to another: it goes back there if that one fails to take it."""

    def in_doubt(self, now: float) -> float:
        """Seconds until a conclusion counts; 0 if it does."""
        return 0.0 if self.domid is None else max(0.0, self.at + CONCLUSION_DELAY - now)


@dataclass(frozen=True, slots=True, order=True)
class Leftover:
    """A device object in a domain's qemu, named by the address the device had when it was attached."""

    domid: int
    bus: int
    number: int


def _empty() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything remembered. `at` is the monotonic time of the last absorb."""

    entries: Mapping[GuestPort, Entry] = field(default_factory=_empty)
    overrides: Mapping[Place, Override] = field(default_factory=_empty)
    last_guest: Mapping[Place, str] = field(default_factory=_empty)
    """The guest each device was last with, until that has been gone for longer than a reboot takes."""
    reenumerated_at: Mapping[Place, float] = field(default_factory=_empty)
    """When each device came, counted only for one that came back where something had just left (a re-enumeration);
    0 for all others."""
    port_left_at: Mapping[BusId, float] = field(default_factory=_empty)
    """When a place fell empty, for as long as what comes there may be the same device come back."""
    guest_gone_since: Mapping[str, float] = field(default_factory=_empty)
    """Guests that went away, and when, until they run again."""
    first_running: Mapping[int, float] = field(default_factory=_empty)
    """When each domain was first seen running."""
    controllers_made: Mapping[int, frozenset[int]] = field(default_factory=_empty)
    """The guest controllers, by id, that the agent made for each domain."""
    empty_since: Mapping[tuple[int, int], float] = field(default_factory=_empty)
    """Since when nothing is on those, by domain and id."""
    last_made_at: Mapping[int, float] = field(default_factory=_empty)
    """When the agent last made one for it."""
    troubles: Mapping[str, Trouble] = field(default_factory=_empty)
    in_use: Mapping[Place, frozenset[Use]] = field(default_factory=_empty)
    """What dom0 used devices for at some time since they were plugged: they are protected until unplug, so that a
    stick does not jump to a guest at umount."""
    blocked: frozenset[Place] = frozenset()
    """Devices the agent deauthorised."""
    released_to_dom0: frozenset[Place] = frozenset()
    """Devices whose interfaces the agent opened for dom0's drivers, and has not shut since."""
    followed: Mapping[Place, str] = field(default_factory=_empty)
    """The rule, by name, of each device that others may inherit from (`follow`)."""
    follow_ends: Mapping[Place, float] = field(default_factory=_empty)
    """Until when something may follow each device that inherited itself."""
    follow_until: Mapping[BusId, tuple[str, float]] = field(default_factory=_empty)
    """Where such a device left: the rule, and until when what appears there inherits."""
    healed_once: frozenset[str] = frozenset()
    """Attachments (subject) already healed once after they fell out of use."""
    paused: frozenset[tuple[str, str]] = frozenset()
    """What is left alone: ("all", "all"), ("guest", its name), ("port", its path)."""
    preferred: str | None = None
    """The guest that stands first in all lists that name it, by a person's wish."""
    connected: Mapping[int, frozenset[int]] = field(default_factory=_empty)
    """The guest controllers of each domain whose driver was connected at the last look."""
    leftovers: frozenset[Leftover] = frozenset()
    """Device objects that stay in a qemu though their port was emptied, until device_del takes them (xen-facts T21)."""
    pci: PciLedger = field(default_factory=PciLedger)
    """Whole host controllers."""
    at: float = 0.0


def subject(device: Device, domid: int) -> str:
    """The key of a device's troubles with one domain."""
    return f"{place(device)}>{domid}"


def detach_subject(device: Device, domid: int) -> str:
    """The key of the troubles with taking a device off a domain."""
    return f"-{place(device)}>{domid}"


def authorize_subject(device: Device) -> str:
    """The key of the tries to write a device's `authorized`; dom0's own matter."""
    return f"={place(device)}>0"


def open_subject(device: Device) -> str:
    """The key of the tries to write `authorized` of a device's interfaces."""
    return f"+{place(device)}>0"


def about(key: str) -> str:
    """What a key of troubles is about: a device's place, or `controller`."""
    return key.partition(">")[0].lstrip("-=+")


def controller_subject(domid: int) -> str:
    """The key of a domain's troubles with making a controller."""
    return f"controller>{domid}"


def removal_subject(domid: int, controller: int) -> str:
    """The key of the troubles with taking an empty guest controller away."""
    return f"controller {controller}>{domid}"


def pci_subject(bdf: Bdf, domid: int) -> str:
    """The key of the troubles with giving a whole controller to a domain; 0: with giving it back to dom0."""
    return f"pci {bdf}>{domid}"


def is_coming(ledger: Ledger, guest: Guest) -> bool:
    """The guest is being created. A domain that has run and seems to be starting is on its way out: libxl's userdata
    goes before the domain does.
    """
    return guest.state is GuestState.STARTING and guest.domid not in ledger.first_running


UNHELD_GRACE = 1.0
"""Seconds for which an attached device may be out of its guest's hands before it counts as lost: a guest that resets
the device lets go of it for a moment (xen-facts 3.2)."""


def lost(entry: Entry) -> bool:
    """A delivered device is out of its guest's hands for longer than a reset takes (design law 3)."""
    return entry.missing > UNHELD_GRACE


def begin(ledger: Ledger, guest_port: GuestPort, entry: Entry) -> Ledger:
    """Note the intent of an act on a guest port, before it is done."""
    return replace(ledger, entries={**ledger.entries, guest_port: entry})


def forget(ledger: Ledger, guest_port: GuestPort) -> Ledger:
    """Drop what is known of a guest port: it was cleared, or its attach did not happen."""
    return replace(ledger, entries={s: e for s, e in ledger.entries.items() if s != guest_port})


def free_port(ledger: Ledger, guest_port: GuestPort) -> Ledger:
    """Forget a guest port that came free. That is news to devices given up for its domain, unless this one failed there
    itself: two that fail would set each other going for ever.
    """
    entry = ledger.entries.get(guest_port)
    freed = forget(ledger, guest_port)
    return retry_given_up(freed, {guest_port.domid}) if entry and was_healthy(entry) else freed


def was_healthy(entry: Entry) -> bool:
    """The device was in good hands on its port."""
    return (entry.delivered or not entry.ours) and not lost(entry)


def retry_given_up(ledger: Ledger, domids: Set[int]) -> Ledger:
    """Something came free or connected in these domains: what was given up there is worth new tries."""
    troubles = {k: t for k, t in ledger.troubles.items() if not (t.given_up and int(k.partition(">")[2]) in domids)}
    return replace(ledger, troubles=troubles)


def settle(ledger: Ledger, guest_port: GuestPort) -> Ledger:
    """Note that the act on a guest port ended; what came of it shows in xenstore."""
    entry = ledger.entries.get(guest_port)
    if entry is None:
        return ledger
    return replace(ledger, entries={**ledger.entries, guest_port: replace(entry, intent=None)})


@dataclass(frozen=True, slots=True)
class Backoff:
    """When to try again: 1, 2, 4 … `most` seconds, `tries` in all."""

    first: float = 1.0
    most: float = 60.0
    tries: int = 8


def fail(ledger: Ledger, key: str, why: tuple[str, str], now: float, backoff: Backoff) -> Ledger:
    """Note one more failure of an act; `why` is its cause and the tool's own words."""
    count = ledger.troubles[key].count + 1 if key in ledger.troubles else 1
    delay = min(backoff.first * 2 ** (count - 1), backoff.most)
    trouble = Trouble(count, why[0], why[1], now + delay, given_up=count >= backoff.tries)
    return replace(ledger, troubles={**ledger.troubles, key: trouble})


def clear_troubles(ledger: Ledger, which: Callable[[str], bool]) -> Ledger:
    """Forget the failures of the subjects `which` says yes to."""
    return replace(ledger, troubles={k: t for k, t in ledger.troubles.items() if not which(k)})
