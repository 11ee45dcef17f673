"""`expect`: compares an agent's status with what a scenario expects."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xenplug.core.documents.problems import meant

SELECTORS = ("port", "device", "address")
ABSENT = {"state": "absent"}
"""The `state` if no such device is plugged in, or no such guest is known."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What can be observed on a floor at one instant."""

    status: Mapping[str, Any]
    stale_ports: int = 0
    calls: Mapping[str, int] | None = None
    """How often each xl command was called; None if that is not counted."""
    log: tuple[str, ...] = ()
    past: tuple[Mapping[str, Any], ...] = ()
    """Every status so far."""


def mismatches(expected: Mapping[str, Any], observation: Observation) -> list[str]:
    """The expectations that are not true, with expected and actual values; empty if all are."""
    rest = {key: value for key, value in expected.items() if key != "within"}
    found = _specials(rest, observation)
    if any(key in rest for key in SELECTORS):
        found += _device(rest, observation.status)
    elif "guest" in rest:
        found += _guest(rest, observation.status)
    elif rest:
        found.append(f"unknown: {', '.join(map(str, rest))}; name a port, device, address or guest")
    return found


def _specials(rest: dict[str, Any], observation: Observation) -> list[str]:
    found = []
    if "stale_ports" in rest:
        found += _differ("stale_ports", rest.pop("stale_ports"), observation.stale_ports)
    for command, times in rest.pop("calls", {}).items():
        if observation.calls is not None:
            found += _differ(f"calls {command}", times, observation.calls.get(command, 0))
    if "log" in rest:
        glob = rest.pop("log")
        if not any(fnmatch.fnmatchcase(line, glob) for line in observation.log):
            found.append(f"log: expected a line like {glob!r}, found none in {len(observation.log)} lines")
    if "never" in rest:
        found += _never(rest.pop("never"), observation.past)
    return found


def _never(what: Mapping[str, Any], past: Iterable[Mapping[str, Any]]) -> list[str]:
    for status in past:
        if not mismatches(what, Observation(status)):
            return [f"never {_words(what)}: it was true"]
    return []


def _device(rest: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    selector = {key: rest[key] for key in SELECTORS if key in rest}
    wanted = {key: value for key, value in rest.items() if key not in selector}
    fitting = [d for d in status["devices"] if not _compare(selector, d)] or [ABSENT]
    return min((_compare(wanted, device) for device in fitting), key=len)


def _guest(rest: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    wanted = {key: value for key, value in rest.items() if key != "guest"}
    found = next((g for g in status["guests"] if g["name"] == rest["guest"]), ABSENT)
    return _compare(wanted, found)


def _compare(wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    return [line for key, value in wanted.items() for line in _key(key, value, actual)]


def _key(key: str, wanted: Any, actual: Mapping[str, Any]) -> list[str]:
    if key not in actual and actual is not ABSENT:
        near = meant(key, list(actual))
        return [f"{key}: no such key; " + (f"did you mean {near!r}?" if near else f"there are {', '.join(actual)}")]
    return _differ(key, wanted, actual.get(key))


def _differ(key: str, wanted: Any, actual: Any) -> list[str]:
    if as_text(wanted) == as_text(actual):
        return []
    return [f"{key}: expected {_words(wanted)}, is {_words(as_text(actual))}"]


def as_text(value: Any) -> Any:
    """A JSON value as a scenario would write it: `none` for null, `yes` for true."""
    if isinstance(value, Mapping):
        return {str(k): as_text(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_text(v) for v in value]
    if value is None:
        return "none"
    if value is True or value == "true":
        return "yes"
    return "no" if value is False or value == "false" else str(value)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_words(v)}" for k, v in value.items()) + "}"
    return "[" + ", ".join(map(_words, value)) + "]" if isinstance(value, list) else str(value)
