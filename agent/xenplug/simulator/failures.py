"""Failures a scenario asks for: the next calls of a command go wrong in one of five ways."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class How(StrEnum):
    """What befalls the call."""

    REFUSED = "refused"
    """xl exits 1 and has done nothing."""
    HANG = "hang"
    """xl does nothing, and does not end by itself."""
    KILLED = "killed"
    """A signal ends xl before it has done anything."""
    SILENT = "silent"
    """xl exits 0. usbdev-attach: the busid is written and nobody takes the device; others: nothing is done."""
    GRAB = "grab"
    """usbdev-attach succeeds, but qemu takes at once what is replugged there while the port is not cleared."""


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
