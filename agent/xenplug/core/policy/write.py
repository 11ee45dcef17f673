"""A policy as YAML text, for the commands that write one: `import` and `init`. The text loads to the same values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from xenplug.core.documents.document import NULLS
from xenplug.core.documents.schema_errors import UNQUOTED


def scalar(value: object) -> str:
    """Text as YAML, in quotes if YAML would otherwise read it differently."""
    text = str(value)
    if UNQUOTED.match(text) and text not in NULLS:
        return text
    # JSON's quoted text is also YAML's, except for DEL and surrogates, which no sanitized text contains.
    return json.dumps(text, ensure_ascii=not text.isprintable())


def flow(value: object) -> str:
    """Any value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def rule(entry: Mapping[str, object], comment: str = "") -> str:
    """One rule, one key per line, with a comment above it."""
    head = f"  # {comment}\n" if comment else ""
    lines = [f"{key}: {flow(value)}" for key, value in entry.items()]
    return head + "  - " + "\n    ".join(lines) + "\n"


def section(name: str, entries: Iterable[str]) -> str:
    """A top-level key with its entries; empty if there are none."""
    text = "".join(entries)
    return f"\n{name}:\n{text}" if text else ""
