"""What a policy says, as frozen values. Made by policy/load, read by match, plan and explain."""

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
    """One match key: holds when one of the patterns admits what the device has there (see match.KEYS).

    `not`, `any` and `below` have groups in place of patterns: matches of their own (`not` and `below` one).
    """

    key: str
    patterns: tuple[Pattern, ...]
    groups: tuple[tuple[Condition, ...], ...] = ()


class Action(StrEnum):
    """What a rule does with a device. Of these, `default` and `idle` know host and block."""

    ATTACH = "attach"
    HOST = "host"
    BLOCK = "block"


class Move(StrEnum):
    """When a device moves to an earlier guest of its list: once that starts, or only once its present guest stops."""

    ON_START = "on_start"
    ON_STOP = "on_stop"


class Ambiguous(StrEnum):
    """Which devices are attached while several fit one rule that means one: none of them, or each."""

    REFUSE = "refuse"
    ALL = "all"


class Via(StrEnum):
    """How a device reaches its guest: alone over USB, or with its whole host controller as a PCI device."""

    USB = "usb"
    PCI = "pci"


class Siblings(StrEnum):
    """What becomes of the other devices of a controller that is passed through."""

    REFUSE = "refuse"
    """They stand in its way."""
    SAME_GUEST = "same_guest"
    """Those that belong to the same guest go along."""
    TAKE = "take"


class WhenEmpty(StrEnum):
    """What becomes of a guest controller that the agent made when no device is on it any more."""

    KEEP = "keep"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Fallback:
    """When a device that could not be brought to its guest over USB goes there with its whole host controller."""

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
    """None: by the device's kind."""
    idle: Action = Action.HOST
    """Host or block: who has the device while none of its guests is there."""
    follow: float | None = None
    """Seconds within which what appears where such a device left, and no rule claims, goes along."""
    ambiguous: Ambiguous | None = None
    """None: as all, but `check` warns."""
    via: Via = Via.USB
    siblings: Siblings = Siblings.REFUSE
    """With via pci."""
    fallback: Fallback | None = None


@dataclass(frozen=True, slots=True)
class Protection:
    """One entry of `protect`: what it admits never leaves the host."""

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
    """How a guest takes USB. `controller` None with `own_only` False: the default of its type."""

    controller: ControllerSpec | None = None
    where: Where | None = field(default=None, compare=False, kw_only=True)
    own_only: bool = False
    """`controller: none`: use only what the guest's own config made."""
    max_controllers: int = 1
    """How many guest controllers the agent may make for this guest at most."""
    when_empty: WhenEmpty = WhenEmpty.KEEP


@dataclass(frozen=True, slots=True)
class Policy:
    """All policy files read as one, rules in the order in which they are tried."""

    rules: tuple[Rule, ...] = ()
    guests: Mapping[str, GuestPolicy] = field(default_factory=lambda: MappingProxyType({}))
    protect: tuple[Protection, ...] = ()
    auto_protect: frozenset[Use] = frozenset({Use.STORAGE, Use.NETWORK})
    default: Action = Action.HOST
    """Host or block: what happens to a device that no rule matches."""

    @property
    def closed(self) -> bool:
        """Dom0 gets only what a rule or `protect` names."""
        return self.default == Action.BLOCK

    @property
    def passes_controllers(self) -> bool:
        """Some rule may pass a whole host controller through."""
        return any(rule.via == Via.PCI or rule.fallback for rule in self.rules)
