"""What a policy says, as frozen values. Made by policy/load, read by match, plan and explain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


SIBLINGS = "refuse"
"""What becomes of the other devices of a controller if the policy does not say: they stand in its way."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """When a device that could not be brought to its guest over USB goes there with its whole host controller."""

    when: frozenset[str]
    """Conditions: no_free_port, unfit, not_delivered, refused, no_frontend."""
    siblings: str = SIBLINGS


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `action` is attach, host or block; `guests` is empty unless it is attach."""

    name: str
    where: Where
    conditions: tuple[Condition, ...]
    action: str
    guests: tuple[str, ...] = ()
    move: str | None = None
    """on_start or on_stop: when a device goes to an earlier guest of the list; None: by its kind."""
    idle: str = "host"
    """host or block: who has the device while none of its guests is there."""
    follow: float | None = None
    """Seconds within which what appears where such a device left, and no rule claims, goes along."""
    ambiguous: str | None = None
    """refuse: nothing is given away while two devices fall under this rule, of one tag or of tags that it does not list
    one by one; all or None: each is."""
    via: str = "usb"
    """usb: the device alone; pci: its whole host controller."""
    siblings: str = SIBLINGS
    """With via pci, the other devices of the controller: refuse, same_guest or take."""
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
    when_empty: str = "keep"
    """keep or remove: what becomes of a guest controller that the agent made when nothing is on it any more."""


@dataclass(frozen=True, slots=True)
class Policy:
    """All policy files read as one, rules in the order in which they are tried."""

    rules: tuple[Rule, ...] = ()
    guests: Mapping[str, GuestPolicy] = field(default_factory=lambda: MappingProxyType({}))
    protect: tuple[Protection, ...] = ()
    auto_protect: frozenset[Use] = frozenset({Use.STORAGE, Use.NETWORK})
    default: str = "host"
    """host or block: what happens to a device that no rule matches."""
