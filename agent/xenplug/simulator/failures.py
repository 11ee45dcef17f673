"""Failures that a scenario requests: the next calls of a command fail in one of five ways."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class How(StrEnum):
    """How the call fails."""

    REFUSED = "refused"
    """xl exits 1 without any effect."""
    HANG = "hang"
    """xl does nothing, and does not end by itself."""
    KILLED = "killed"
    """A signal kills xl before it has any effect."""
    SILENT = "silent"
    """xl exits 0. usbdev-attach: the busid is written, but no device model opens the device; others: no effect."""
    GRAB = "grab"
    """usbdev-attach succeeds, but qemu opens a device replugged there at once if the port is not cleared."""


@dataclass(slots=True)
class _Planned:
    command: str
    times: int
    how: How


class Failures:
    """The failures still to come."""

    def __init__(self) -> None:
        self._planned: list[_Planned] = []

    def plan(self, command: str, times: int, how: How | str) -> None:
        """The next `times` calls of this command fail; ValueError if `how` is none of the five."""
        self._planned.append(_Planned(command, times, How(how)))

    def next(self, command: str) -> How | None:
        """The failure of the call made now."""
        for planned in self._planned:
            if planned.command == command and planned.times > 0:
                planned.times -= 1
                return planned.how
        return None
