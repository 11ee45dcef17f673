"""Who asked the agent for something, and what the history keeps of it: orders, their refusals, the policy in force.

Events have the keys of a device's change (core/reporting/changes), null where they say nothing, so that a reader of the
history needs no second format; `event` distinguishes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from xenplug.core.model import Device
from xenplug.core.policy.digest import PolicyIdentity
from xenplug.core.printable import escaped
from xenplug.core.reporting import explain

MAX_WORD, MAX_REASON = 128, 500
"""Characters that are kept of a name or of a word that somebody typed, and of a refusal's reason."""
NO_CHANGE = dict.fromkeys(("port", "address", "path", "device", "serial", "state", "cause", "guest", "rule"))
PERSONAL = ("uid", "user", "pid")
"""The keys that say who asked. Those who may only read do not get them."""


class Way(StrEnum):
    """How the agent was asked."""

    SOCKET = "socket"
    SIGNAL = "signal"
    CONSOLE = "console"
    """By the command that started the agent, and nobody since."""


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks. The user's name is that of the moment; a signal does not say who sent it."""

    way: Way = Way.CONSOLE
    uid: int | None = None
    user: str | None = None
    """None if the host knows no name."""
    pid: int | None = None
    acts: bool = True
    """May do more than read."""

    def view(self) -> dict[str, Any]:
        """As the history keeps it."""
        user = None if self.user is None else shortened(self.user)
        return {"way": str(self.way), "uid": self.uid, "user": user, "pid": self.pid}


def shortened(text: str, most: int = MAX_WORD) -> str:
    """Text from outside, printable and bounded."""
    shown = escaped(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _typed(text: str) -> str:
    """A word that somebody typed, in quotes if it could pass for other words of the line."""
    return shortened(text if re.fullmatch(r"[\w.:@+-]*", text) else repr(text[: MAX_WORD + 1]))


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asked for: its name, the words after it, and the device or controller that they name."""

    name: str
    words: tuple[str, ...] = ()
    device: Device | None = None
    controller: str | None = None
    guest: str | None = None

    def __str__(self) -> str:
        first, *rest = self.words or ("",)
        subject = explain.device_name(self.device) if self.device else _typed(first)
        return " ".join([self.name, *filter(None, [subject]), *(f"to {_typed(word)}" for word in rest)])


def order_event(order: Order, requester: Requester, refused: tuple[str, str] | None = None) -> dict[str, Any]:
    """An order that was taken or, with `refused` (cause and reason), that was not or could not be carried out."""
    device, line = order.device, f"ordered: {order}"
    known = {}
    if device:
        known = {"port": device.port, "address": device.address, "path": device.path, "device": device.tag}
        known["serial"] = device.serial
    elif order.controller:
        known = {"controller": order.controller}
    if refused:
        line = f"refused: {order} ({shortened(refused[1], MAX_REASON)})"
    head = {"event": "refused" if refused else "order", "order": order.name}
    told = {"guest": order.guest and shortened(order.guest), "cause": refused[0] if refused else None, "line": line}
    return NO_CHANGE | head | known | told | requester.view()


def policy_event(
    order: str, before: PolicyIdentity | None, now: PolicyIdentity | None, message: str, requester: Requester
) -> dict[str, Any]:
    """A reading of the policy (`order`: start or reload): which one was in force before and is now, and its result."""
    if now is None:
        words = "none in force"
    else:
        words = f"{now} in force"
        if before is not None:
            words += ", as before" if before == now else f", before: {before}"
    identity, was = now or PolicyIdentity(), before or PolicyIdentity()
    head: Mapping[str, Any] = {"event": "policy", "order": order, "digest": identity.digest, "label": identity.label}
    past = {"digest_before": was.digest, "label_before": was.label}
    return NO_CHANGE | dict(head) | past | {"line": f"{order}: {words}; {message}"} | requester.view()


def without_requester(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event for those who may only read: what was ordered and how, but not by whom."""
    return {key: value for key, value in event.items() if key not in PERSONAL}
