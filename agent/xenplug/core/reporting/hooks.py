"""Hooks: the user's commands, run when a device's state changes. This module has their events and their environment.

The settings name the hooks, adapters/hooks.py runs them. The facts go into the environment, never into the command
line: a device's own texts are values there, and cannot become part of a command.
"""

from __future__ import annotations

from collections.abc import Mapping

from xenplug.core.planning.steps import State
from xenplug.core.reporting.changes import Change
from xenplug.core.reporting.explain import device_name, reason

UNPLUGGED = "unplugged"
EVENTS = (*map(str, State), UNPLUGGED)
"""The events of a hook: a device entered this state, or was unplugged."""


def event_of(change: Change) -> str:
    """The state a change led to."""
    return str(change.verdict.state) if change.verdict else UNPLUGGED


def environment(change: Change) -> Mapping[str, str]:
    """The environment variables of a hook; an unknown or absent value is an empty text."""
    verdict = change.verdict or change.before
    if verdict is None:
        return {}
    device, rule = verdict.device, verdict.decision.rule
    facts = {
        "EVENT": event_of(change),
        "LINE": change.line,
        "PORT": device.port,
        "ADDRESS": device.address,
        "PATH": device.path,
        "DEVICE": device.tag,
        "SERIAL": device.serial,
        "NAME": device_name(device),
        "KINDS": " ".join(sorted(device.kinds)),
        "GUEST": verdict.guest,
        "WANTED": " ".join(verdict.wanted),
        "CAUSE": str(verdict.cause) if change.verdict else UNPLUGGED,
        "REASON": reason(verdict) if change.verdict else "",
        "RULE": rule.name if rule else None,
    }
    return {f"XENPLUG_{key}": value or "" for key, value in facts.items()}
