"""The decision: which rule applies to a device. Pure: it does not depend on guests' states, history or time.

`Matcher` is an indexed policy (core/matching/index): the cost of a decision does not grow with the number of rules that
name a tag or a place. `decide` makes the decision; explain evaluates the same tables key by key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from xenplug.core.matching.index import Index
from xenplug.core.matching.parts import parts
from xenplug.core.model import Device
from xenplug.core.policy.rules import Action, Condition, Policy, Protection, Rule
from xenplug.core.usb.hubs import removable

Values = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """How a match key reads a device: the device's values, and whether all of them must be admitted or only one."""

    read: Callable[[Device], Values]
    every: bool = False


def _one(value: object | None) -> Values:
    return () if value is None else (str(value),)


KEYS: Mapping[str, Key] = {
    "device": Key(lambda d: (d.tag,)),
    "address": Key(lambda d: (d.address,)),
    "port": Key(lambda d: (d.port,)),
    "path": Key(lambda d: _one(d.path)),
    "controller": Key(lambda d: _one(d.controller)),
    "serial": Key(lambda d: _one(d.serial)),
    "manufacturer": Key(lambda d: _one(d.manufacturer)),
    "product": Key(lambda d: _one(d.product)),
    "class": Key(lambda d: (str(d.device_class),)),
    "interface": Key(lambda d: tuple(str(i) for i in d.interfaces)),
    "interfaces": Key(lambda d: tuple(str(i) for i in d.interfaces), every=True),
    "kind": Key(lambda d: tuple(sorted(d.kinds))),
    "speed": Key(lambda d: _one(d.speed)),
    "revision": Key(lambda d: _one(d.revision)),
    "removable": Key(lambda d: (removable(d),)),
    "descriptors": Key(lambda d: _one(d.fingerprint)),
}
"""Every match key of the policy file. An attribute that the device lacks has no values and never matches."""


class Reading(Enum):
    """How uncertain places are treated: the place of a SuperSpeed device whose port has no known peer, and the report
    `fixed` of a hub that is not fixed itself.

    Such a SuperSpeed device has a `plain_path`, which names one of two sockets.
    """

    ADMIT = "admit"
    """The device has no place: no rule on places matches it."""
    PROTECT = "protect"
    """The device may be at its plain path."""
    DOUBT = "doubt"
    """The device may be anywhere: `not: {path: …}` does not match it either."""


NEGATED = {Reading.ADMIT: Reading.DOUBT, Reading.PROTECT: Reading.ADMIT, Reading.DOUBT: Reading.ADMIT}


def holds(condition: Condition, device: Device, reading: Reading = Reading.ADMIT) -> bool:
    """Whether one match key holds for the device."""
    if condition.groups:
        return _nested(condition, device, reading)
    key = KEYS[condition.key]
    values = key.read(device)
    if condition.key == "path" and reading is not Reading.ADMIT:
        if reading is Reading.DOUBT and not values:
            return True
        # Where the place is known, the plain path is that of another socket: two sockets share the text.
        values = values or _one(device.plain_path)
    if condition.key == "removable" and reading is not Reading.ADMIT:
        values += (device.removable,)
    admitted = (any(p.admits(value) for p in condition.patterns) for value in values)
    if key.every:
        verdicts = list(admitted)
        return bool(verdicts) and all(verdicts)
    return any(admitted)


def _nested(condition: Condition, device: Device, reading: Reading) -> bool:
    if condition.key == "not":
        return not any(matches(group, device, NEGATED[reading]) for group in condition.groups)
    if condition.key == "any":
        return any(matches(group, device, reading) for group in condition.groups)
    return any(matches(group, hub, reading) for group in condition.groups for hub in hubs(device))


def hubs(device: Device) -> Iterator[Device]:
    """The hubs above a device, nearest first."""
    while device.parent:
        device = device.parent
        yield device


def matches(conditions: tuple[Condition, ...], device: Device, reading: Reading = Reading.ADMIT) -> bool:
    """Whether all keys hold for the device."""
    return all(holds(condition, device, reading) for condition in conditions)


def protects(protection: Protection, device: Device) -> bool:
    """Like `matches`, but `path` also holds for the place as udev writes it, to protect a device in doubt."""
    return matches(protection.conditions, device, Reading.PROTECT)


PLACE_KEYS = frozenset({"path", "port", "controller"})
"""Not `address`: a device can be enumerated again until it has the number."""
PINS = PLACE_KEYS | {"descriptors", "interfaces"}
"""Keys that a device cannot satisfy just by claiming to be another device."""


def pinned(conditions: tuple[Condition, ...], device: Device, keys: frozenset[str] = PINS) -> bool:
    """Whether a match that the device fits also pins its place, or everything that it claims to be."""
    return any(condition.key in keys or _pins(condition, device, keys) for condition in conditions)


def _pins(condition: Condition, device: Device, keys: frozenset[str]) -> bool:
    # Of the hub above, only the place says anything about the device.
    where = {"any": ([device], keys), "below": (hubs(device), keys & PLACE_KEYS)}
    here, keys = where.get(condition.key, ((), keys))
    return any(
        matches(group, one, Reading.PROTECT) and pinned(group, one, keys) for one in here for group in condition.groups
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision of the policy for a device. `rule` is None if the policy's default decided."""

    action: Action
    rule: Rule | None = None
    inherited: bool = False
    """The rule does not match the device itself, but a device that it followed (core/planning/follow)."""

    over_protect: bool = False
    """The decision holds although `protect` matches the device: a block rule matches another function of the device, or
    it is uncertain whether the device is in the protected place (Matcher).
    """

    @property
    def withheld(self) -> bool:
        """The device is blocked, always or while no guest has it."""
        return self.action == Action.BLOCK or (self.rule is not None and self.rule.idle == Action.BLOCK)

    def admits(self, policy: Policy) -> bool:
        """Whether dom0 may use the device while no guest has it. Under `default: block` this needs a rule for dom0: a
        rule that attaches the device, by its own claims, does not make it safe for dom0.
        """
        return not self.withheld and (self.action == Action.HOST or not policy.closed)

    @property
    def guests(self) -> tuple[str, ...]:
        """The guests that may have the device, in order of preference."""
        return self.rule.guests if self.rule else ()


def _fits_all(rule: Rule, found: tuple[Device, ...]) -> bool:
    return all(matches(rule.conditions, part) for part in found)


class Matcher:
    """An indexed policy."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._index = Index([rule.conditions for rule in policy.rules])
        self._blocks = any(rule.action == Action.BLOCK for rule in policy.rules)

    def decide(self, device: Device) -> Decision:
        """The first rule that matches, else the default."""
        decision = self._first(device)
        entries = [entry for entry in self.policy.protect if protects(entry, device)]
        if not entries:
            return decision
        sure = [entry for entry in entries if matches(entry.conditions, device)]
        if not sure:
            # It may be in a protected place: this is enough to keep it from guests, but not to admit it to dom0.
            rule = decision.rule if decision.action == Action.BLOCK else None
            return decision if decision.admits(self.policy) else Decision(Action.BLOCK, rule, over_protect=True)
        held = self._blocks and not any(pinned(entry.conditions, device) for entry in sure)
        rule = self._against_words(device) if held else None
        return Decision(Action.BLOCK, rule, over_protect=True) if rule else decision

    def _against_words(self, device: Device) -> Rule | None:
        """The block rule that overrides `protect`, or None. An entry that identifies a device only by its own claims
        admits any device with the same claims. Therefore a rule that blocks a part of the device still applies.
        """
        found = parts(device)
        deciding = (self._deciding(seen, found) for seen in (device, *found))
        return next((rule for rule in deciding if rule and rule.action == Action.BLOCK), None)

    def _deciding(self, seen: Device, found: tuple[Device, ...]) -> Rule | None:
        """The first rule that matches, without block rules that match every part: `protect` overrides those, and they
        must not hide later rules.
        """
        rules = (self.policy.rules[number] for number in self._index.candidates(seen))
        fitting = (rule for rule in rules if matches(rule.conditions, seen))
        return next((r for r in fitting if r.action != Action.BLOCK or not _fits_all(r, found)), None)

    def _first(self, device: Device) -> Decision:
        rules = self.policy.rules
        for number in self._index.candidates(device):
            if matches(rules[number].conditions, device):
                return Decision(rules[number].action, rules[number])
        return Decision(self.policy.default)

    def protection(self, device: Device) -> Protection | None:
        """The first entry of `protect` that matches the device."""
        return next((p for p in self.policy.protect if protects(p, device)), None)
