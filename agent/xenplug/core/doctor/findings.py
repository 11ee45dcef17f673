"""The result of a check: findings, each a fact with its remedy; none if there is no problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from xenplug.core.doctor.facts import Facts


class Severity(StrEnum):
    """bad: something does not work or will not work. warning: it may not work. unknown: it could not be checked."""

    BAD = "bad"
    WARNING = "warning"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem that a check found."""

    severity: Severity
    fact: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.fact}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a host. `name` is stable; `title` states what is true if the check finds nothing."""

    name: str
    title: str
    look: Callable[[Facts], Iterable[Finding]]
    xen: bool = False
    """The check needs a running Xen."""


def bad(fact: str, remedy: str) -> Finding:
    """A finding about something that does not work."""
    return Finding(Severity.BAD, fact, remedy)


def warning(fact: str, remedy: str) -> Finding:
    """A finding about something that may not work."""
    return Finding(Severity.WARNING, fact, remedy)


def unknown(fact: str, remedy: str) -> Finding:
    """A finding about something that could not be checked."""
    return Finding(Severity.UNKNOWN, fact, remedy)
