"""Whose a device is before any plan is made: the host's because it is protected, or the guests' that may have it.

The reconciler asks here for every snapshot, and once more at the moment of each act.
"""

from __future__ import annotations

from collections.abc import Mapping

from xenplug.core.absorb import Wanted
from xenplug.core.ledger import Ledger, place
from xenplug.core.match import Matcher
from xenplug.core.model import BusId, Device
from xenplug.core.steps import Cause


def protect_all(matcher: Matcher, devices: Mapping[BusId, Device], ledger: Ledger) -> dict[BusId, Cause]:
    """Which devices never leave the host, and why: hubs, `protect`, and what dom0 uses or used since it was plugged."""
    found = {}
    for port, device in devices.items():
        cause = protection(matcher, device, ledger)
        if cause:
            found[port] = cause
    return found


def protection(matcher: Matcher, device: Device, ledger: Ledger) -> Cause | None:
    """Why the device must stay with the host; None if nothing says so."""
    if device.hub:
        return Cause.HUB
    if matcher.protection(device):
        return Cause.PROTECT
    uses = device.in_use | ledger.in_use.get(place(device), frozenset())
    if uses & matcher.policy.auto_protect:
        return Cause.IN_USE
    return None


def wanted_by(matcher: Matcher, ledger: Ledger) -> Wanted:
    """The guests a device belongs to, by hand or by policy: what `absorb` asks for unknown attachments."""

    def wanted(device: Device) -> tuple[str, ...]:
        order = ledger.overrides.get(place(device))
        if order:
            return (order.guest,) if order.guest else ()
        return matcher.decide(device).guests

    return wanted
