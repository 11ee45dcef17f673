"""The decision: which rule a device falls under. Pure; knows no guest's state, no history, no clock.

`Matcher` is a policy compiled for looking up: rules that name tags or vendors are found by dictionary, so the cost of a
decision does not grow with their number. `decide` is the whole of it; explain asks the same tables key by key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge

from xenplug.core.model import Device
from xenplug.core.patterns import TagPattern
from xenplug.core.policy.rules import Condition, Policy, Protection, Rule

Values = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """How a match key reads a device: its values there, and whether all of them must be admitted or just one."""

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
    "removable": Key(lambda d: (d.removable,)),
}
"""Every match key of the policy file. An attribute the device does not have gives no values, and never matches."""


def holds(condition: Condition, device: Device) -> bool:
    """Whether one match key fits the device."""
    key = KEYS[condition.key]
    admitted = (any(p.admits(value) for p in condition.patterns) for value in key.read(device))
    if key.every:
        verdicts = list(admitted)
        return bool(verdicts) and all(verdicts)
    return any(admitted)


def matches(conditions: tuple[Condition, ...], device: Device) -> bool:
    """Whether all given keys hold."""
    return all(holds(condition, device) for condition in conditions)


def protects(protection: Protection, device: Device) -> bool:
    """As `matches`, but `path` also holds for the place as udev itself writes it: protection errs on the safe side."""
    return all(
        holds(c, device) or (c.key == "path" and any(p.admits(device.plain_path or "") for p in c.patterns))
        for c in protection.conditions
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy wants for a device. `rule` is None where the policy's default decided."""

    action: str
    """attach, host or block."""
    rule: Rule | None = None

    @property
    def guests(self) -> tuple[str, ...]:
        """The guests that may have it, best first."""
        return self.rule.guests if self.rule else ()


class Matcher:
    """A policy, indexed by tag."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._tags: dict[str, list[int]] = {}
        self._rest: list[int] = []
        for index, rule in enumerate(policy.rules):
            self._file(index, rule)

    def _file(self, index: int, rule: Rule) -> None:
        names = _tag_names(rule)
        if names is None:
            self._rest.append(index)
            return
        for name in names:
            self._tags.setdefault(name, []).append(index)

    def _candidates(self, device: Device) -> Iterator[int]:
        vendor = device.tag.partition(":")[0]
        return merge(self._tags.get(device.tag, ()), self._tags.get(f"{vendor}:*", ()), self._rest)

    def decide(self, device: Device) -> Decision:
        """The first rule that matches, else the default."""
        rules = self.policy.rules
        for index in self._candidates(device):
            if matches(rules[index].conditions, device):
                return Decision(rules[index].action, rules[index])
        return Decision(self.policy.default)

    def protection(self, device: Device) -> Protection | None:
        """The first entry of `protect` that takes in the device."""
        return next((p for p in self.policy.protect if protects(p, device)), None)


def _tag_names(rule: Rule) -> set[str] | None:
    """The index entries a rule belongs under: all its tags, none of them open; None if it must always be tried."""
    for condition in rule.conditions:
        if condition.key != "device":
            continue
        tags = [p for p in condition.patterns if isinstance(p, TagPattern)]
        if all(tag.vendor for tag in tags):
            return {str(tag) for tag in tags}
    return None
