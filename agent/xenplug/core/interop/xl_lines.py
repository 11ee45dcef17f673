"""The lines of a guest's xl configuration for a policy: `usbctrl=`, `passthrough=`, `pci=`. Pure.

For users who prefer a controller in the guest's configuration to one that the agent passes through; the agent then
leaves that controller alone. Syntax: xl.cfg(5), xl-pci-configuration(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.matching.match import Matcher
from xenplug.core.model import Bdf, BusId, ControllerType, Device, GuestType
from xenplug.core.planning.fit import HVM_DEFAULT, PV_DEFAULT
from xenplug.core.planning.protection import protected_if_controller_leaves
from xenplug.core.policy.patterns import BdfPattern
from xenplug.core.policy.rules import GuestPolicy, Policy, Rule, Via


@dataclass(frozen=True, slots=True)
class XlLines:
    """The lines to write, and notes about them."""

    lines: tuple[str, ...]
    notes: tuple[str, ...]
    refused: tuple[str, ...]
    """Controllers that a rule asks for but that must stay in dom0, each with the reason."""


def xl_lines(policy: Policy, guest: str, type_: GuestType, devices: Mapping[BusId, Device]) -> XlLines:
    """The lines for one guest on a host with these devices."""
    matcher = Matcher(policy)
    kept = protected_if_controller_leaves(matcher, devices, Ledger())
    asked = list(dict.fromkeys(_controllers(matcher, guest, devices)))
    refused, assigned, notes = [], [], []
    for bdf in asked:
        on_it = [device for device in devices.values() if device.controller == bdf]
        words = ", ".join(f"{device.port} {device.tag}" for device in on_it) or "nothing plugged in"
        reasons = [f"{d.port} {d.tag} is protected ({kept[d.port]})" for d in on_it if d.port in kept]
        if reasons:
            refused.append(f"{bdf}: {'; '.join(reasons)}")
        else:
            assigned.append(bdf)
            notes.append(f"devices on {bdf}, which go with it: {words}")
    if assigned and type_ is GuestType.PVH:
        refused += [f"{bdf}: {guest} is a PVH guest, and Xen assigns no PCI devices to those" for bdf in assigned]
        assigned, notes = [], []
    return XlLines((*_usb(policy, guest, type_), *_pci(policy, guest, assigned)), tuple(notes), tuple(refused))


def _controllers(matcher: Matcher, guest: str, devices: Mapping[BusId, Device]) -> Iterable[Bdf]:
    """The controllers that rules with via: pci name, and the controllers of the devices that they match."""
    for rule in matcher.policy.rules:
        if rule.via == Via.PCI and guest in rule.guests:
            yield from _named(rule)
    for device in devices.values():
        found = matcher.decide(device).rule
        if found and found.via == Via.PCI and guest in found.guests and device.controller:
            yield device.controller


def _named(rule: Rule) -> Iterable[Bdf]:
    for condition in rule.conditions:
        if condition.key == "controller":
            yield from (Bdf(p.bdf) for p in condition.patterns if isinstance(p, BdfPattern))


def _usb(policy: Policy, guest: str, type_: GuestType) -> Iterable[str]:
    """The usbctrl= line. A PV guest gets a device model only if its configuration has a controller that QEMU serves."""
    wanted = policy.guests.get(guest, GuestPolicy())
    spec = wanted.controller or (HVM_DEFAULT if type_ is GuestType.HVM else PV_DEFAULT)
    if wanted.controller or spec.type is ControllerType.QUSB:
        yield f'usbctrl = ["type={spec.type},version={spec.version},ports={spec.ports}"]'


def _pci(policy: Policy, guest: str, assigned: list[Bdf]) -> Iterable[str]:
    """The PCI lines. A guest must be created with passthrough= to get PCI devices later."""
    later = any(guest in rule.guests and (rule.via == Via.PCI or rule.fallback) for rule in policy.rules)
    if later or assigned:
        yield 'passthrough = "enabled"'
    if assigned:
        yield "pci = [" + ", ".join(f'"{bdf},seize=1"' for bdf in assigned) + "]"
