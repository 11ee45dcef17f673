"""What a check says: findings, each a fact with its remedy, or nothing if all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from xenplug.core.doctor.facts import Facts


class Severity(StrEnum):
    """bad: something does not or will not work. warning: it may not. unknown: it could not be looked at."""

    BAD = "bad"
    WARNING = "warning"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found."""

    severity: Severity
    fact: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.fact}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Check:
    """One question to a host. `name` is stable, `title` is what holds where nothing is found."""

    name: str
    title: str
    look: Callable[[Facts], Iterable[Finding]]
    xen: bool = False
    """It is only worth asking on a running Xen."""


def bad(fact: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(Severity.BAD, fact, remedy)


def warning(fact: str, remedy: str) -> Finding:
    """It may not work."""
    return Finding(Severity.WARNING, fact, remedy)


def unknown(fact: str, remedy: str) -> Finding:
    """It could not be looked at."""
    return Finding(Severity.UNKNOWN, fact, remedy)
