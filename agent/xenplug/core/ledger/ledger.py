"""What the agent must remember because no tool can report it: a frozen value, kept on disk by adapters/ledger.

The ledger never says what is attached (xenstore does). It says who attached it, which act is under way, which address
a port's device had, and what failed how often. core/ledger/update brings it into line with each new snapshot before
anything is planned; the functions here are the changes that acts and orders make. Each returns a new ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from xenplug.core.ledger.pci import PciLedger
from xenplug.core.ledger.records import DeviceRecord, DomainRecord, Entry, Leftover, Orders, no_items, was_healthy
from xenplug.core.ledger.troubles import Backoff, Trouble, TroubleKey
from xenplug.core.model import BusId, Device, DeviceKey, Guest, GuestPort, GuestState

_NEW_DEVICE, _NEW_DOMAIN = DeviceRecord(), DomainRecord()


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything remembered. All times are monotonic seconds."""

    entries: Mapping[GuestPort, Entry] = field(default_factory=no_items)
    devices: Mapping[DeviceKey, DeviceRecord] = field(default_factory=no_items)
    domains: Mapping[int, DomainRecord] = field(default_factory=no_items)
    orders: Orders = field(default_factory=Orders)
    troubles: Mapping[TroubleKey, Trouble] = field(default_factory=no_items)
    healed_once: frozenset[TroubleKey] = frozenset()
    """Attachments that were lost and have been attached again once."""
    port_left_at: Mapping[BusId, float] = field(default_factory=no_items)
    """When a port fell empty, for as long as what appears there may be the same device."""
    guest_gone_since: Mapping[str, float] = field(default_factory=no_items)
    """Guests that had a device and ended, and when, until they run again."""
    followed: Mapping[DeviceKey, str] = field(default_factory=no_items)
    """The rule, by name, of each device that others may inherit from (`follow`). Not in DeviceRecord: `update` forgets
    the records of devices that are gone, and core/planning/follow, which comes after it, must still see which of those
    were followed."""
    follow_ends: Mapping[DeviceKey, float] = field(default_factory=no_items)
    """Of the devices that inherited themselves: until when another may follow them."""
    follow_until: Mapping[BusId, tuple[str, float]] = field(default_factory=no_items)
    """The ports that such devices left: the rule, and until when what appears there inherits from it."""
    leftovers: frozenset[Leftover] = frozenset()
    """Device objects that stay in a qemu after their port was emptied, until device_del removes them (T21)."""
    pci: PciLedger = field(default_factory=PciLedger)
    """Whole host controllers."""
    at: float = 0.0
    """The time of the last `update`."""

    def device(self, key: DeviceKey) -> DeviceRecord:
        """What is remembered of a device; an empty record if nothing is."""
        return self.devices.get(key, _NEW_DEVICE)

    def domain(self, domid: int) -> DomainRecord:
        """What is remembered of a domain; an empty record if nothing is."""
        return self.domains.get(domid, _NEW_DOMAIN)


def with_device(ledger: Ledger, key: DeviceKey, **changes: Any) -> Ledger:
    """Change fields of a device's record."""
    return replace(ledger, devices={**ledger.devices, key: replace(ledger.device(key), **changes)})


def with_domain(ledger: Ledger, domid: int, **changes: Any) -> Ledger:
    """Change fields of a domain's record."""
    return replace(ledger, domains={**ledger.domains, domid: replace(ledger.domain(domid), **changes)})


def note_kept_out(ledger: Ledger, devices: Iterable[Device]) -> Ledger:
    """Under `default: block` the root hubs let no device in, by the agent's doing: note those as blocked by it. Else a
    policy that admits them later would take that for somebody else's decision, and leave them out for good.
    """
    out = [device.key for device in devices if not device.authorized and not ledger.device(device.key).blocked]
    for key in out:
        ledger = with_device(ledger, key, blocked=True)
    return ledger


def is_coming(ledger: Ledger, guest: Guest) -> bool:
    """The guest is being created. A domain that has run and seems to be starting is ending: libxl removes its userdata
    before it destroys the domain.
    """
    return guest.state is GuestState.STARTING and ledger.domain(guest.domid).first_running is None


# Acts on guest ports


def begin(ledger: Ledger, guest_port: GuestPort, entry: Entry) -> Ledger:
    """Note the intent of an act on a guest port, before it is done."""
    return replace(ledger, entries={**ledger.entries, guest_port: entry})


def settle(ledger: Ledger, guest_port: GuestPort) -> Ledger:
    """Note that the act on a guest port ended; xenstore shows its result."""
    entry = ledger.entries.get(guest_port)
    if entry is None:
        return ledger
    return replace(ledger, entries={**ledger.entries, guest_port: replace(entry, intent=None)})


def forget(ledger: Ledger, guest_port: GuestPort) -> Ledger:
    """Remove the entry of a guest port: it was cleared, or its attach did not happen."""
    return replace(ledger, entries={s: e for s, e in ledger.entries.items() if s != guest_port})


def free_port(ledger: Ledger, guest_port: GuestPort) -> Ledger:
    """Remove the entry of a guest port that came free. Devices given up for its domain are tried again, unless this one
    failed there itself: two devices that fail would restart each other for ever.
    """
    entry = ledger.entries.get(guest_port)
    freed = forget(ledger, guest_port)
    return retry_given_up(freed, {guest_port.domid}) if entry and was_healthy(entry) else freed


# Failures


def fail(ledger: Ledger, key: TroubleKey, why: tuple[str, str], now: float, backoff: Backoff) -> Ledger:
    """Note one more failure of an act; `why` is its cause and the tool's own words."""
    count = ledger.troubles[key].count + 1 if key in ledger.troubles else 1
    trouble = Trouble(count, why[0], why[1], now + backoff.after(count), given_up=count >= backoff.tries)
    return replace(ledger, troubles={**ledger.troubles, key: trouble})


def clear_trouble(ledger: Ledger, key: TroubleKey) -> Ledger:
    """Forget the failures of one act: it succeeded."""
    return clear_troubles(ledger, lambda other: other == key)


def clear_troubles(ledger: Ledger, which: Callable[[TroubleKey], bool]) -> Ledger:
    """Forget the failures of all acts for which `which` is true."""
    return replace(ledger, troubles={k: t for k, t in ledger.troubles.items() if not which(k)})


def retry_given_up(ledger: Ledger, domids: Set[int]) -> Ledger:
    """Forget what was given up in these domains: a port came free or a controller connected, so it may work now."""
    troubles = {k: t for k, t in ledger.troubles.items() if not (t.given_up and k.domid in domids)}
    return replace(ledger, troubles=troubles)
