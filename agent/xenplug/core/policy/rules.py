"""A policy as frozen values. policy/load makes them; match, plan and explain use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from xenplug.core.model import ControllerType, Use
from xenplug.core.policy.patterns import Pattern


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a policy file; line and column count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Condition:
    """One match key: holds if one of the patterns admits a value of the device for the key (see match.KEYS).

    `not`, `any` and `below` have groups instead of patterns: nested matches (`not` and `below` have one).
    """

    key: str
    patterns: tuple[Pattern, ...]
    groups: tuple[tuple[Condition, ...], ...] = ()


class Action(StrEnum):
    """The action of a rule. `default` and `idle` can be host or block."""

    ATTACH = "attach"
    HOST = "host"
    BLOCK = "block"


class Move(StrEnum):
    """When a device moves to an earlier guest of its list: when that starts, or only when its present guest stops."""

    ON_START = "on_start"
    ON_STOP = "on_stop"


class Ambiguous(StrEnum):
    """Which devices are attached if several match a rule for one device: none of them, or all."""

    REFUSE = "refuse"
    ALL = "all"


class Via(StrEnum):
    """How a device is attached to its guest: alone over USB, or with its whole host controller as a PCI device."""

    USB = "usb"
    PCI = "pci"


class Siblings(StrEnum):
    """How the other devices of a controller that is passed through are treated."""

    REFUSE = "refuse"
    """They prevent the passthrough."""
    SAME_GUEST = "same_guest"
    """Devices for the same guest go with the controller; others prevent the passthrough."""
    TAKE = "take"
    """They go with the controller."""


class WhenEmpty(StrEnum):
    """What happens to a guest controller that the agent made when it becomes empty."""

    KEEP = "keep"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Fallback:
    """When a device that cannot be attached to its guest over USB is passed with its whole host controller."""

    when: frozenset[str]
    """Conditions: no_free_port, unfit, not_delivered, refused, no_frontend."""
    siblings: Siblings = Siblings.REFUSE


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `guests` is empty unless the action is attach."""

    name: str
    where: Where
    conditions: tuple[Condition, ...]
    action: Action
    guests: tuple[str, ...] = ()
    move: Move | None = None
    """None: the device's kind decides."""
    idle: Action = Action.HOST
    """Host or block: what happens to the device while none of its guests can have it."""
    follow: float | None = None
    """Seconds. A device that no rule matches and that appears within this time where such a device left, follows it."""
    ambiguous: Ambiguous | None = None
    """None: same as all, but `check` warns."""
    via: Via = Via.USB
    siblings: Siblings = Siblings.REFUSE
    """Used with via pci."""
    fallback: Fallback | None = None


@dataclass(frozen=True, slots=True)
class Protection:
    """One entry of `protect`: devices that match it never leave the host."""

    where: Where
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class ControllerSpec:
    """The guest controller the agent may make for a guest."""

    type: ControllerType
    version: int
    ports: int


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """How a guest takes USB devices. `controller` None and `own_only` False: the default of its type."""

    controller: ControllerSpec | None = None
    where: Where | None = field(default=None, compare=False, kw_only=True)
    own_only: bool = False
    """`controller: none`: use only the controllers of the guest's own configuration."""
    max_controllers: int = 1
    """The maximum number of guest controllers that the agent makes for this guest."""
    when_empty: WhenEmpty = WhenEmpty.KEEP


@dataclass(frozen=True, slots=True)
class Policy:
    """All policy files combined, rules in the order in which they are tried."""

    rules: tuple[Rule, ...] = ()
    guests: Mapping[str, GuestPolicy] = field(default_factory=lambda: MappingProxyType({}))
    protect: tuple[Protection, ...] = ()
    auto_protect: frozenset[Use] = frozenset({Use.STORAGE, Use.NETWORK})
    default: Action = Action.HOST
    """Host or block: what happens to a device that no rule matches."""
    label: str | None = None
    """The policy's own word for itself, 1 to 64 printable characters."""

    @property
    def closed(self) -> bool:
        """dom0 gets only devices that a rule or `protect` names."""
        return self.default == Action.BLOCK

    @property
    def passes_controllers(self) -> bool:
        """Some rule may pass a whole host controller through."""
        return any(rule.via == Via.PCI or rule.fallback for rule in self.rules)
