"""Observes the host for the reconciler: devices, guests, and which guest holds which device, as one snapshot.

The facts come from copies that events keep up to date (mirror, bus) and from /proc. Only `xl list` shows which guests
are paused; it is called in the background, now and then.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from xenplug.core.guests import claims, read_guests
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.model import LIVE_STATES, Guest, GuestState, Snapshot
from xenplug.core.planning.plan_builder import STATES_EVERY
from xenplug.core.usb.hubs import linked_all
from xenplug.engine.context import EngineContext

log = logging.getLogger("xenplug")


class Observer:
    """Makes snapshots."""

    def __init__(self, context: EngineContext) -> None:
        self.context = context
        self.states_due = True
        """Something happened to a guest, so `xl list` must be called again."""
        self._states: dict[int, GuestState] = {}
        self._states_at = 0.0

    def wants_states(self, ledger: Ledger) -> bool:
        """Whether `xl list` should be called now."""
        return self.states_due or self._guest_may_be_paused(ledger)

    def _guest_may_be_paused(self, ledger: Ledger) -> bool:
        """Whether a guest does not take a device: it may be paused, and only `xl list` shows that. Or a guest is paused
        or suspended, and may run again.
        """
        if self.context.clock.now() < self._states_at + STATES_EVERY:
            return False
        if any(state in LIVE_STATES and state is not GuestState.RUNNING for state in self._states.values()):
            return True
        return any(e.ours and e.intent is None and (not e.delivered or e.missing) for e in ledger.entries.values())

    async def ask_for_states(self) -> None:
        """Call `xl list`."""
        self.states_due = False
        self._states_at = self.context.clock.now()
        states = await self.context.xl.list()
        if isinstance(states, dict):
            self._states = states
        else:
            log.warning("xl list: %s", states.text or states.cause)

    def observe(self) -> Snapshot:
        """The state of the host now."""
        mirror, devices = self.context.mirror, linked_all(self.context.bus.devices())
        read = read_guests(mirror.tree(), mirror.introduced, self.context.domains.ready, self._states)
        guests = {name: self._with_device_model(guest) for name, guest in read.items()}
        bus = self.context.bus
        held = self.context.domains.held
        taken = {port: what for guest in guests.values() for port, what in claims(guest, devices, held).items()}
        return Snapshot(devices, guests, taken, bus.controllers(), bus.usbback())

    def _with_device_model(self, guest: Guest) -> Guest:
        if guest.device_model is None or self.context.domains.lives(guest.device_model):
            return guest
        return replace(guest, model_lives=False)
