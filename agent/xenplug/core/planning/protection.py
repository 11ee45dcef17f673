"""Whose a device is before any plan is made: the host's because it is protected, or the guests' that may have it.

The reconciler asks here for every snapshot, and once more at the moment of each act.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from xenplug.core.ledger.entries import Wanted
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.records import Intent
from xenplug.core.matching.match import Decision, Matcher
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
    here = linked(device, devices)
    named = matcher.protection(here) is not None
    if named and not matcher.decide(here).over_protect:
        return Cause.PROTECT
    uses = device.in_use | ledger.device(device.key).in_use
    if uses & matcher.policy.auto_protect - {Use.KEYBOARD}:
        return Cause.IN_USE
    if Use.KEYBOARD in matcher.policy.auto_protect and _last_keyboard(matcher, device, devices, ledger):
        return Cause.LAST_KEYBOARD
    return Cause.PROTECT if named else None


def _last_keyboard(matcher: Matcher, device: Device, devices: Mapping[BusId, Device], ledger: Ledger) -> bool:
    """Nobody could type in dom0 without it. Unlike the other uses it ends when another keyboard is plugged in.

    Any device can say that it is a keyboard. So only one that dom0 has by policy can be the last, or one that remains:
    this keeps a keyboard from guests, and lets none in. What stands on a guest port or goes with its controller, or is
    on its way there, is not dom0's any more. Mice and gamepads that call themselves keyboards too do not count as one
    that remains.
    """
    passed = {entry.key: entry for entry in ledger.entries.values()}
    mine = passed.get(device.key)
    if (mine and mine.intent is not Intent.ATTACH) or not _types_in_dom0(matcher, device, devices, ledger):
        return False
    others = (other for other in devices.values() if other.port != device.port and other.key not in passed)
    stay = (other for other in others if other.controller not in ledger.pci.passed)
    keyboards = (other for other in stay if not other.kinds & POINTING)
    return not any(_types_in_dom0(matcher, other, devices, ledger) for other in keyboards)


def _types_in_dom0(matcher: Matcher, device: Device, devices: Mapping[BusId, Device], ledger: Ledger) -> bool:
    """It is a keyboard of dom0's console, and the policy lets dom0 have it."""
    if Use.KEYBOARD not in device.in_use:
        return False
    here = linked(device, devices)
    decision = _decision(matcher, here, ledger)
    protected = matcher.protection(here) is not None and not decision.over_protect
    return protected or decision.admits(matcher.policy)


def _decision(matcher: Matcher, device: Device, ledger: Ledger) -> Decision:
    """What the policy says of the device, or what it inherits from the one it followed (core/planning/follow)."""
    decision = matcher.decide(device)
    if decision.rule is None and (name := ledger.followed.get(device.key)):
        heir = next((rule for rule in matcher.policy.rules if rule.follow and rule.name == name), None)
        return Decision(heir.action, heir, inherited=True) if heir else decision
    return decision


def pci_outlook(matcher: Matcher, snapshot: Snapshot, ledger: Ledger) -> PciOutlook:
    """What the policy says of devices that would leave with their whole controller, or have left with it."""
    devices, passed = snapshot.devices, ledger.pci.passed
    decisions = {bdf: {d.port: matcher.decide(d) for d in entry.devices} for bdf, entry in passed.items()}
    barred = frozenset(bdf for bdf, entry in passed.items() if any(matcher.protection(d) for d in entry.devices))
    return PciOutlook(protected_if_controller_leaves(matcher, devices, ledger), decisions, barred)


def protected_if_controller_leaves(
    matcher: Matcher, devices: Mapping[BusId, Device], ledger: Ledger
) -> dict[BusId, Cause]:
    """Which devices must stay if all on their controller were to leave: of two keyboards on it, both are the last.

    That a device is a hub is no reason: hubs go along. That dom0 uses it, or `protect` names it, is one all the same.
    """
    if not matcher.policy.passes_controllers:
        return {}
    found = {}
    for port, device in devices.items():
        if cause := protected_if_moved_together(matcher, device, devices, ledger):
            found[port] = cause
    return found


def protected_if_moved_together(
    matcher: Matcher, device: Device, devices: Mapping[BusId, Device], ledger: Ledger
) -> Cause | None:
    """As `protection`, if all else on the device's controller were to leave with it."""
    rest = {p: d for p, d in devices.items() if d.controller != device.controller or p == device.port}
    return protection(matcher, replace(linked(device, devices), hub=False), rest, ledger)


def wanted_guests(matcher: Matcher, ledger: Ledger) -> Wanted:
    """The guests a device belongs to, by hand or by policy: what `update` asks for unknown attachments."""

    def wanted(device: Device) -> tuple[str, ...]:
        order = ledger.orders.overrides.get(device.key)
        if order:
            return (order.guest,) if order.guest else ()
        return _decision(matcher, device, ledger).guests

    return wanted
