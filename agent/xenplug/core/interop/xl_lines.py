"""The lines of a guest's xl configuration that fit the policy: `usbctrl=`, `passthrough=`, `pci=`. Pure.

For people who would rather have a controller in the guest's configuration than handed over by the agent, which then
sees it taken and leaves it alone. Syntax: xl.cfg(5), xl-pci-configuration(5).
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
    """What to write, and what to know of it."""

    lines: tuple[str, ...]
    notes: tuple[str, ...]
    refused: tuple[str, ...]
    """Controllers a rule asks for that must not leave, and why."""


def xl_lines(policy: Policy, guest: str, type_: GuestType, devices: Mapping[BusId, Device]) -> XlLines:
    """The lines for one guest on a host with these devices."""
    matcher = Matcher(policy)
    kept = protected_if_controller_leaves(matcher, devices, Ledger())
    asked = list(dict.fromkeys(_controllers(matcher, guest, devices)))
    refused, given, notes = [], [], []
    for bdf in asked:
        mine = [device for device in devices.values() if device.controller == bdf]
        words = ", ".join(f"{device.port} {device.tag}" for device in mine) or "nothing plugged in"
        why = [f"{d.port} {d.tag} is protected ({kept[d.port]})" for d in mine if d.port in kept]
        if why:
            refused.append(f"{bdf}: {'; '.join(why)}")
        else:
            given.append(bdf)
            notes.append(f"{bdf} takes along: {words}")
    if given and type_ is GuestType.PVH:
        refused += [f"{bdf}: {guest} is a PVH guest, and Xen gives those no PCI devices" for bdf in given]
        given, notes = [], []
    return XlLines((*_usb(policy, guest, type_), *_pci(policy, guest, given)), tuple(notes), tuple(refused))


def _controllers(matcher: Matcher, guest: str, devices: Mapping[BusId, Device]) -> Iterable[Bdf]:
    """Those that rules with via: pci name, and those their devices are plugged into."""
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
    """Without a qemu-served controller in its configuration a PV guest has no device model, and can never have one."""
    told = policy.guests.get(guest, GuestPolicy())
    spec = told.controller or (HVM_DEFAULT if type_ is GuestType.HVM else PV_DEFAULT)
    if told.controller or spec.type is ControllerType.QUSB:
        yield f'usbctrl = ["type={spec.type},version={spec.version},ports={spec.ports}"]'


def _pci(policy: Policy, guest: str, given: list[Bdf]) -> Iterable[str]:
    """A guest that is to have PCI devices later must be made for it."""
    later = any(guest in rule.guests and (rule.via == Via.PCI or rule.fallback) for rule in policy.rules)
    if later or given:
        yield 'passthrough = "enabled"'
    if given:
        yield "pci = [" + ", ".join(f'"{bdf},seize=1"' for bdf in given) + "]"
