"""A document as a tree in which every value and every key knows its line and column.

document.parse makes it from YAML; every scalar is the text that was typed. The readers of policies, settings and
scenarios walk the tree and can report the position of each problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from xenplug.core.documents.problems import Path, Position

NO_KEYS: Mapping[str, Position] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Node:
    """A scalar (its text), a mapping or a list; line and column count from 1."""

    value: str | dict[str, Node] | list[Node]
    line: int
    column: int
    keys: Mapping[str, Position] = field(default_factory=lambda: NO_KEYS)
    """The position of each key of a mapping."""

    @property
    def position(self) -> Position:
        """The position where the value begins."""
        return Position(self.line, self.column)

    @property
    def text(self) -> str | None:
        """The text of a scalar; None for mappings and lists."""
        return self.value if isinstance(self.value, str) else None

    @property
    def mapping(self) -> Mapping[str, Node]:
        """The entries of a mapping; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> Sequence[Node]:
        """The entries of a list; none for anything else."""
        return self.value if isinstance(self.value, list) else []

    @property
    def one_or_more(self) -> Sequence[Node]:
        """The entries of a list, or the scalar itself where one value may replace a list of one."""
        return [self] if isinstance(self.value, str) else self.items

    def key(self, name: str) -> Position:
        """The position of a key; the start of the mapping if it has no such key."""
        return self.keys.get(name, self.position)

    def find(self, path: Path) -> Node:
        """The node at a path below this one; the path must exist."""
        node = self
        for step in path:
            node = node.items[step] if isinstance(step, int) else node.mapping[step]
        return node


def plain(node: Node) -> Any:
    """The tree as nested dicts, lists and strings."""
    value = node.value
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    return [plain(child) for child in value]


Member = TypeVar("Member", bound=StrEnum)


def choice(node: Node | None, words: type[Member]) -> Member | None:
    """The member that a scalar names; None if the node is absent or names no member (the schema reports that)."""
    return next((word for word in words if node is not None and word == node.text), None)
