"""Who may have a device: only the host, because it is protected, or the guests that the policy names.

The reconciler computes this for every snapshot, and again just before each step.
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
"""Kinds whose keyboard interface only reports their own buttons."""


def protect_all(matcher: Matcher, devices: Mapping[BusId, Device], ledger: Ledger) -> dict[BusId, Cause]:
    """The devices that never leave the host, and why: hubs, `protect`, and those that dom0 uses or used since they were
    plugged in.
    """
    found = {}
    for port, device in devices.items():
        cause = protection(matcher, device, devices, ledger)
        if cause:
            found[port] = cause
    return found


def protection(matcher: Matcher, device: Device, devices: Mapping[BusId, Device], ledger: Ledger) -> Cause | None:
    """Why the device must stay with the host; None if it need not. `devices`: all present ones."""
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
    """Whether no other keyboard would be left in dom0. Unlike the other uses this ends when another keyboard is plugged
    in.

    Any device can claim to be a keyboard. So a device counts, as the last keyboard or as one that remains, only if the
    policy lets dom0 have it: this rule keeps keyboards from guests, and never admits one. A device that is on a guest
    port, or leaves with its controller, or is on its way there, no longer counts as dom0's. Mice and gamepads that also
    claim to be keyboards do not count as a remaining one.
    """
    attached = {entry.key: entry for entry in ledger.entries.values()}
    entry = attached.get(device.key)
    if (entry and entry.intent is not Intent.ATTACH) or not _types_in_dom0(matcher, device, devices, ledger):
        return False
    others = (other for other in devices.values() if other.port != device.port and other.key not in attached)
    stay = (other for other in others if other.controller not in ledger.pci.passed)
    keyboards = (other for other in stay if not other.kinds & POINTING)
    return not any(_types_in_dom0(matcher, other, devices, ledger) for other in keyboards)


def _types_in_dom0(matcher: Matcher, device: Device, devices: Mapping[BusId, Device], ledger: Ledger) -> bool:
    """Whether it is a keyboard of dom0's console that the policy lets dom0 have."""
    if Use.KEYBOARD not in device.in_use:
        return False
    here = linked(device, devices)
    decision = _decision(matcher, here, ledger)
    protected = matcher.protection(here) is not None and not decision.over_protect
    return protected or decision.admits(matcher.policy)


def _decision(matcher: Matcher, device: Device, ledger: Ledger) -> Decision:
    """The policy's decision on the device, or the one inherited from the device that it followed
    (core/planning/follow).
    """
    decision = matcher.decide(device)
    if decision.rule is None and (name := ledger.followed.get(device.key)):
        heir = next((rule for rule in matcher.policy.rules if rule.follow and rule.name == name), None)
        return Decision(heir.action, heir, inherited=True) if heir else decision
    return decision


def pci_outlook(matcher: Matcher, snapshot: Snapshot, ledger: Ledger) -> PciOutlook:
    """The policy's decisions on devices that would leave with their controller, or have left with it."""
    devices, passed = snapshot.devices, ledger.pci.passed
    decisions = {bdf: {d.port: matcher.decide(d) for d in entry.devices} for bdf, entry in passed.items()}
    barred = frozenset(bdf for bdf, entry in passed.items() if any(matcher.protection(d) for d in entry.devices))
    return PciOutlook(protected_if_controller_leaves(matcher, devices, ledger), decisions, barred)


def protected_if_controller_leaves(
    matcher: Matcher, devices: Mapping[BusId, Device], ledger: Ledger
) -> dict[BusId, Cause]:
    """The devices that must stay if all devices on their controller were to leave: of two keyboards on it, each is the
    last.

    Being a hub is no reason to stay, because hubs go along. But a hub that dom0 uses, or that `protect` names, stays.
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
    """Like `protection`, if everything else on the device's controller were to leave with it."""
    rest = {p: d for p, d in devices.items() if d.controller != device.controller or p == device.port}
    return protection(matcher, replace(linked(device, devices), hub=False), rest, ledger)


def wanted_guests(matcher: Matcher, ledger: Ledger) -> Wanted:
    """A function: the guests a device belongs to, by manual override or policy. `update` uses it for unknown
    attachments.
    """

    def wanted(device: Device) -> tuple[str, ...]:
        order = ledger.orders.overrides.get(device.key)
        if order:
            return (order.guest,) if order.guest else ()
        return _decision(matcher, device, ledger).guests

    return wanted
