"""Where the readers of a document note what is wrong with its meaning, while they go on reading."""

from __future__ import annotations

from dataclasses import dataclass, field

from xenplug.core.documents.problems import Path, Position, Problem, dotted


@dataclass(frozen=True, slots=True)
class Report:
    """The problems found in one file so far."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def tell(self, position: Position, path: Path, message: str) -> None:
        """Note one problem; `message` is fact and remedy."""
        self.problems.append(Problem(self.file, *position, dotted(path), message))
