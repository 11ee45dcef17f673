"""Updates the ledger from a new snapshot: adds entries for occupied ports, forgets what is gone, notes what others did.

The reconciler calls `update` in every round, between observing and planning. Each field has a function below that says
what is forgotten, what is kept, and which fact of Xen or udev is the reason. Not touched here: pauses and the preferred
guest, which only orders change, and `followed` and `follow_until`, which core/planning/follow updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from xenplug.core.ledger.entries import Wanted, detached_by_others, update_entries
from xenplug.core.ledger.ledger import Ledger, is_coming, retry_given_up
from xenplug.core.ledger.pci import update_pci
from xenplug.core.ledger.records import (
    DOMAIN_END_TIME,
    DeviceRecord,
    DomainRecord,
    Entry,
    Leftover,
    Override,
    was_healthy,
)
from xenplug.core.ledger.troubles import Trouble, TroubleKey
from xenplug.core.model import LIVE_STATES, BusId, Device, DeviceKey, Guest, GuestPort, GuestState, Snapshot

HEALTHY_AFTER = 60.0
"""Seconds for which an attached device must have been healthy for its earlier failures to be forgotten."""

REENUMERATION = 2.0
"""Seconds within which what appears where something left counts as a re-enumeration, not as a person's replug."""


@dataclass(frozen=True, slots=True)
class _Round:
    """The arguments of each field's function."""

    ledger: Ledger
    """As it was after the last round, with what acts and orders have changed since."""
    snapshot: Snapshot
    now: float
    entries: Mapping[GuestPort, Entry]
    """The new ones."""
    present: frozenset[DeviceKey]
    domains: Mapping[int, Guest]


def update(ledger: Ledger, snapshot: Snapshot, now: float, wanted: Wanted, grace: float) -> Ledger:
    """The ledger brought into line with a snapshot.

    `wanted`: by which an attachment that the ledger does not know counts as ours or as foreign.
    `grace`: for so many seconds a guest that ended is expected to return.
    """
    this = _Round(
        ledger,
        snapshot,
        now,
        update_entries(ledger, snapshot, now, wanted),
        frozenset(device.key for device in snapshot.devices.values()),
        {guest.domid: guest for guest in snapshot.guests.values()},
    )
    port_left_at = _port_left_at(this)
    guest_gone_since = _guest_gone_since(this)
    return replace(
        ledger,
        entries=this.entries,
        devices=_devices(this, port_left_at, _guests_to_return_to(this, guest_gone_since, grace)),
        domains={domid: _domain(this, guest) for domid, guest in this.domains.items()},
        orders=replace(ledger.orders, overrides=_overrides(this)),
        troubles=_troubles(this),
        healed_once=frozenset(key for key in ledger.healed_once if _concerns_present(this, key)),
        port_left_at=port_left_at,
        guest_gone_since=guest_gone_since,
        leftovers=_leftovers(this),
        pci=update_pci(ledger.pci, snapshot, now),
        at=now,
    )


# Devices


def _devices(
    this: _Round, port_left_at: Mapping[BusId, float], expected: frozenset[str]
) -> dict[DeviceKey, DeviceRecord]:
    """A record for each device that is plugged in. A replug ends it: the key has the device number, of which the
    kernel assigns a new one at every enumeration. A person who replugs a device wants a fresh start, and another device
    at the same port must not inherit that it was blocked, or used by dom0.
    """
    records = {device.key: _device(this, device, port_left_at, expected) for device in this.snapshot.devices.values()}
    for entry in this.entries.values():
        # A device that is gone may still be on its guest's port, until the plan has cleared that.
        if entry.ours and entry.delivered:
            records[entry.key] = replace(records.get(entry.key, DeviceRecord()), last_guest=entry.guest)
    return records


def _device(
    this: _Round, device: Device, port_left_at: Mapping[BusId, float], expected: frozenset[str]
) -> DeviceRecord:
    known = this.ledger.device(device.key)
    appeared = this.now if device.port in port_left_at else 0.0
    return replace(
        known,
        # The guest it returns to after a reboot. Once that guest is not expected any more, the first of the list gets
        # the device.
        last_guest=known.last_guest if known.last_guest in expected else None,
        # Only what re-enumerates must settle before it is attached: it often does so several times (firmware, mode
        # switch). What a person plugs in is attached without delay.
        reenumerated_at=appeared if known.reenumerated_at is None else known.reenumerated_at,
        # The kernel sets a configuration milliseconds after the device appeared, or was authorised. It sets none if
        # the bus lacks the power, and a udev rule can take it away (39-usbmuxd.rules).
        unconfigured_since=_unconfigured_since(this, device, known),
        reconfigured=known.reconfigured or (known.unconfigured_since is not None and not device.authorized),
        # Only ever added to: a stick that was mounted stays with dom0 after its umount. `release` clears it.
        in_use=known.in_use | device.in_use,
        # `blocked` and `released_to_dom0` change by acts only. Without the first, a device that somebody else
        # deauthorised could not be told from one that the agent did; without the second, interfaces that somebody shut
        # on purpose would be opened again.
    )


def _unconfigured_since(this: _Round, device: Device, known: DeviceRecord) -> float | None:
    if device.configured or not device.authorized:
        return None
    return this.now if known.unconfigured_since is None else known.unconfigured_since


def _port_left_at(this: _Round) -> dict[BusId, float]:
    """Ports that fell empty. A device that re-enumerates leaves its port and appears there again within a second or
    two; udev reports a removal and a new device, as for a replug. Only devices that this agent has seen count: after a
    restart it is unknown when the others left.
    """
    seen = (key for key, record in this.ledger.devices.items() if record.reenumerated_at is not None)
    left = {key.port: this.now for key in seen if key not in this.present}
    recent = {port: at for port, at in this.ledger.port_left_at.items() if this.now - at < REENUMERATION}
    return recent | left


# Guests and domains


def _guest_gone_since(this: _Round) -> dict[str, float]:
    """Guests that have, or had, a device of ours, and do not live now. A reboot makes a new domain of the same name, so
    this goes by the name. A guest that nothing refers to any more is forgotten.
    """
    known = {entry.guest for entry in this.ledger.entries.values()}
    known |= {record.last_guest for record in this.ledger.devices.values() if record.last_guest is not None}
    live = {guest.name for guest in this.domains.values() if guest.state in LIVE_STATES}
    return {name: this.ledger.guest_gone_since.get(name, this.now) for name in known - live}


def _guests_to_return_to(this: _Round, guest_gone_since: Mapping[str, float], grace: float) -> frozenset[str]:
    """Guests that live, that ended a moment ago, or that are being created again, however long that takes."""
    last = {record.last_guest for record in this.ledger.devices.values() if record.last_guest is not None}
    return frozenset(
        name
        for name in last
        if this.now - guest_gone_since.get(name, this.now) < grace or _is_being_created(this, name)
    )


def _is_being_created(this: _Round, name: str) -> bool:
    guest = this.snapshot.guests.get(name)
    return guest is not None and is_coming(this.ledger, guest)


def _domain(this: _Round, guest: Guest) -> DomainRecord:
    """Domids are not reused before all others were, so a record ends with its domain and never meets another."""
    known = this.ledger.domain(guest.domid)
    running = known.first_running
    if running is None and guest.state is not GuestState.STARTING:
        running = this.now
    return replace(
        known,
        # Set once and kept: a domain that ends looks as if it were starting, because libxl removes its userdata first.
        first_running=running,
        # `controllers_made` and `last_made_at` change by acts only. xenstore does not say who made a controller, and
        # only the agent's own count towards max_controllers and are removed when empty.
        empty_since=_empty_since(this, guest, known),
        connected=frozenset(c.id for c in guest.controllers if c.connected),
    )


def _empty_since(this: _Round, guest: Guest, known: DomainRecord) -> dict[int, float]:
    """Counted again from the start whenever a device was on it; it goes with the controller."""
    return {
        controller.id: known.empty_since.get(controller.id, this.now)
        for controller in guest.controllers
        if controller.id in known.controllers_made and not any(controller.ports.values())
    }


# Orders


def _overrides(this: _Round) -> dict[DeviceKey, Override]:
    """A manual override ends when its device is unplugged. A detach that somebody did at the console is added: the
    agent must not undo a person's act.
    """
    kept = {
        key: override
        for key, override in this.ledger.orders.overrides.items()
        if key in this.present and not _was_domain_end(this, override)
    }
    return kept | detached_by_others(this.ledger, this.entries, this.snapshot, this.now)


def _was_domain_end(this: _Round, override: Override) -> bool:
    """Whether a conclusion was wrong: no person detached the device, libxl emptied the ports of a domain that was
    ending.
    """
    if override.domid is None or override.domid in this.domains:
        return False
    return this.now - override.at < DOMAIN_END_TIME


# Failures


def _troubles(this: _Round) -> dict[TroubleKey, Trouble]:
    """Failures end with their device and their domain, and with an attachment that works: what failed once before a
    long success does not count towards giving up. What was given up is tried again when a port came free in its domain
    or a controller connected.
    """
    working = {
        TroubleKey.attach(entry.key, guest_port.domid)
        for guest_port, entry in this.entries.items()
        if entry.waited > HEALTHY_AFTER and not entry.missing
    }
    troubles = retry_given_up(this.ledger, _domains_with_new_ports(this)).troubles
    return {key: t for key, t in troubles.items() if key not in working and _concerns_present(this, key)}


def _concerns_present(this: _Round, key: TroubleKey) -> bool:
    """Domid 0 is dom0, which is no guest and always there."""
    return (key.domid == 0 or key.domid in this.domains) and (key.device is None or key.device in this.present)


def _domains_with_new_ports(this: _Round) -> set[int]:
    """Domains where a controller connected since the last round, or where somebody else freed a port. In a domain that
    was not seen before, nothing is new.
    """
    connected = set()
    for domid, guest in this.domains.items():
        before = this.ledger.domain(domid).connected
        if before is not None and any(c.connected and c.id not in before for c in guest.controllers):
            connected.add(domid)
    freed = {port.domid for port, e in this.ledger.entries.items() if port not in this.entries and was_healthy(e)}
    return connected | freed


# qemu


def _leftovers(this: _Round) -> frozenset[Leftover]:
    """They end with the domain, whose qemu ends with it."""
    return frozenset(leftover for leftover in this.ledger.leftovers if leftover.domid in this.domains)
