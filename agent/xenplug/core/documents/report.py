"""Collects the problems that the reader of a document finds in its meaning, while the reading goes on."""

from __future__ import annotations

from dataclasses import dataclass, field

from xenplug.core.documents.problems import Path, Position, Problem, dotted


@dataclass(frozen=True, slots=True)
class Report:
    """The problems found in one file so far."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def add(self, position: Position, path: Path, message: str) -> None:
        """Add one problem; `message` is fact and remedy."""
        self.problems.append(Problem(self.file, *position, dotted(path), message))
