"""Looks at the world for the reconciler: devices, guests, and which guest has which device in hand, as one snapshot.

All is read from what is kept up to date by events (mirror, bus) and from /proc; only `xl list` tells who is paused, and
it is asked beside the loop, now and then.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from xenplug.core.guests import claims, read_guests
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.model import Guest, GuestState, Snapshot
from xenplug.core.usb.hubs import linked_all
from xenplug.engine.context import EngineContext

log = logging.getLogger("xenplug")

STATES_EVERY = 2.0
"""Seconds between two calls of `xl list` at least, while a guest lets a device wait."""


class Observer:
    """Makes snapshots."""

    def __init__(self, context: EngineContext) -> None:
        self.context = context
        self.states_due = True
        """Something happened to a guest: `xl list` has news."""
        self._states: dict[int, GuestState] = {}
        self._states_at = 0.0

    def wants_states(self, ledger: Ledger) -> bool:
        """Whether `xl list` should be asked now."""
        return self.states_due or self._worried(ledger)

    def _worried(self, ledger: Ledger) -> bool:
        """A guest lets a device wait: it may be paused, of which nothing but `xl list` tells."""
        if self.context.clock.now() < self._states_at + STATES_EVERY:
            return False
        return any(e.ours and e.intent is None and (not e.delivered or e.missing) for e in ledger.entries.values())

    async def ask_for_states(self) -> None:
        """Ask `xl list`."""
        self.states_due = False
        self._states_at = self.context.clock.now()
        states = await self.context.xl.list()
        if isinstance(states, dict):
            self._states = states
        else:
            log.warning("xl list: %s", states.text or states.cause)

    def observe(self) -> Snapshot:
        """How all stands now."""
        mirror, devices = self.context.mirror, linked_all(self.context.bus.devices())
        read = read_guests(mirror.tree(), mirror.introduced, self.context.domains.ready, self._states)
        guests = {name: self._served(guest) for name, guest in read.items()}
        bus = self.context.bus
        held = self.context.domains.held
        taken = {port: what for guest in guests.values() for port, what in claims(guest, devices, held).items()}
        return Snapshot(devices, guests, taken, bus.controllers(), bus.usbback())

    def _served(self, guest: Guest) -> Guest:
        if guest.device_model is None or self.context.domains.lives(guest.device_model):
            return guest
        return replace(guest, model_lives=False)
