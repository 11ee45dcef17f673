"""Whose a device is before any plan is made: the host's because it is protected, or the guests' that may have it.

The reconciler asks here for every snapshot, and once more at the moment of each act.
"""

from __future__ import annotations

from collections.abc import Mapping

from xenplug.core.ledger.entries import Wanted
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.records import Intent
from xenplug.core.matching.match import Matcher
from xenplug.core.model import BusId, Device, Snapshot, Use
from xenplug.core.planning.pci_preflight import PciOutlook
from xenplug.core.planning.steps import Cause
from xenplug.core.usb.hubs import linked

POINTING = frozenset({"mouse", "gamepad"})
"""Kinds whose keyboard interface is for their own buttons."""


def protect_all(matcher: Matcher, devices: Mapping[BusId, Device], ledger: Ledger) -> dict[BusId, Cause]:
    """Which devices never leave the host, and why: hubs, `protect`, and what dom0 uses or used since it was plugged."""
    found = {}
    for port, device in devices.items():
        cause = protection(matcher, device, devices, ledger)
        if cause:
            found[port] = cause
    return found


def protection(matcher: Matcher, device: Device, devices: Mapping[BusId, Device], ledger: Ledger) -> Cause | None:
    """Why the device must stay with the host; None if nothing says so. `devices`: all that are present."""
    if device.hub:
        return Cause.HUB
    if matcher.protection(linked(device, devices)):
        return Cause.PROTECT
    uses = device.in_use | ledger.device(device.key).in_use
    if uses & matcher.policy.auto_protect - {Use.KEYBOARD}:
        return Cause.IN_USE
    if Use.KEYBOARD in device.in_use & matcher.policy.auto_protect and _last_keyboard(device, devices, ledger):
        return Cause.LAST_KEYBOARD
    return None


def _last_keyboard(device: Device, devices: Mapping[BusId, Device], ledger: Ledger) -> bool:
    """Nobody could type in dom0 without it. Unlike the other uses it ends when another keyboard is plugged in.

    What stands on a guest port or goes with its controller, or is on its way there, is not dom0's any more. Mice and
    gamepads that call themselves keyboards too do not count as one that remains.
    """
    passed = {entry.key: entry for entry in ledger.entries.values()}
    mine = passed.get(device.key)
    if mine and mine.intent is not Intent.ATTACH:
        return False
    others = (other for other in devices.values() if other.port != device.port and other.key not in passed)
    stay = (other for other in others if other.controller not in ledger.pci.passed)
    return not any(Use.KEYBOARD in other.in_use and not other.kinds & POINTING for other in stay)


def pci_outlook(matcher: Matcher, snapshot: Snapshot, ledger: Ledger) -> PciOutlook:
    """What the policy says of devices that would leave with their whole controller, or have left with it."""
    devices, passed = snapshot.devices, ledger.pci.passed
    decisions = {bdf: {d.port: matcher.decide(d) for d in entry.devices} for bdf, entry in passed.items()}
    barred = frozenset(bdf for bdf, entry in passed.items() if any(matcher.protection(d) for d in entry.devices))
    return PciOutlook(protected_if_controller_leaves(matcher, devices, ledger), decisions, barred)


def protected_if_controller_leaves(
    matcher: Matcher, devices: Mapping[BusId, Device], ledger: Ledger
) -> dict[BusId, Cause]:
    """Which devices must stay if all on their controller were to leave: of two keyboards on it, both are the last."""
    if not matcher.policy.passes_controllers:
        return {}
    found = {}
    for port, device in devices.items():
        cause = None if device.hub else protected_if_moved_together(matcher, device, devices, ledger)
        if cause:
            found[port] = cause
    return found


def protected_if_moved_together(
    matcher: Matcher, device: Device, devices: Mapping[BusId, Device], ledger: Ledger
) -> Cause | None:
    """As `protection`, if all else on the device's controller were to leave with it."""
    rest = {p: d for p, d in devices.items() if d.controller != device.controller or p == device.port}
    return protection(matcher, linked(device, devices), rest, ledger)


def wanted_guests(matcher: Matcher, ledger: Ledger) -> Wanted:
    """The guests a device belongs to, by hand or by policy: what `update` asks for unknown attachments."""

    by_name = {rule.name: rule for rule in matcher.policy.rules if rule.follow}

    def wanted(device: Device) -> tuple[str, ...]:
        order = ledger.orders.overrides.get(device.key)
        if order:
            return (order.guest,) if order.guest else ()
        decision = matcher.decide(device)
        heir = by_name.get(ledger.followed.get(device.key, "")) if decision.rule is None else None
        return heir.guests if heir else decision.guests

    return wanted
