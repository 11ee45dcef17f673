"""A finding of jsonschema -> Problems at their line and column, with readable messages.

document.validate calls this for each error. jsonschema's own messages print whole Python values; these quote the text
of the document, list the allowed values and show the examples of the schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from xenplug.core.documents.node import Node
from xenplug.core.documents.problems import Problem, dotted, listed, meant, shown

MAX_EXAMPLE = 90
UNQUOTED = re.compile(r"[A-Za-z0-9/](?:[A-Za-z0-9_./*+-]|:(?! ))*(?: [A-Za-z0-9_./*+-]+)*\Z")
TYPE_WORDS: Mapping[str, str] = {"object": "a mapping", "array": "a list"}

Message = tuple[str | None, str]
"""The key concerned (None: the value itself), and the message."""


class SchemaFinding(Protocol):
    """The attributes of jsonschema.ValidationError that are used here (the same in 4.10 and 4.26)."""

    validator: Any
    validator_value: Any
    instance: Any
    schema: Any
    parent: Any
    context: Any

    @property
    def absolute_path(self) -> Any:
        """Keys and indexes from the top of the document."""

    @property
    def absolute_schema_path(self) -> Any:
        """Keywords from the top of the schema."""

    @property
    def relative_path(self) -> Any:
        """Keys and indexes from the value of the parent finding."""

    @property
    def relative_schema_path(self) -> Any:
        """Keywords from the parent finding; the first is the number of the alternative."""


def about(finding: SchemaFinding, node: Node, file: str) -> Iterator[Problem]:
    """The problems of one finding: several if several keys are unknown or missing. `node` is the whole document."""
    for leaf in _leaves(finding):
        path = list(leaf.absolute_path)
        value = node.find(path)
        for key, message in _messages(leaf):
            position = value.position if key is None else value.key(key)
            where = dotted(path if key is None else [*path, key])
            yield Problem(file, *position, where, message if where else f"the document {message}")


def _leaves(finding: SchemaFinding) -> Iterator[SchemaFinding]:
    """The finding itself, or the findings of the alternative that was most likely meant."""
    branch = _meant_branch(finding) if finding.validator in ("anyOf", "oneOf") else []
    if not branch:
        yield finding
    for inner in branch:
        yield from _leaves(inner)


def _meant_branch(finding: SchemaFinding) -> Sequence[SchemaFinding]:
    """Of the alternatives for the type of the value (list, mapping, text), the findings of the one with the fewest."""
    branches: dict[int, list[SchemaFinding]] = {}
    for inner in finding.context:
        branches.setdefault(inner.relative_schema_path[0], []).append(inner)
    if _choice(finding.validator_value):
        return []
    fitting = [faults for faults in branches.values() if not any(_other_kind(fault) for fault in faults)]
    return min(fitting, key=len, default=[])


def _other_kind(finding: SchemaFinding) -> bool:
    """The value itself has the wrong type (list, mapping, text) for this alternative."""
    if finding.relative_path:
        return False
    return finding.validator == "type" or (finding.validator == "enum" and not isinstance(finding.instance, str))


def _choice(branches: Any) -> list[str]:
    """The keys of a `oneOf` that only asks for exactly one of several keys."""
    if all(branch.keys() == {"required"} for branch in branches):
        return [branch["required"][0] for branch in branches]
    return []


def _messages(finding: SchemaFinding) -> Sequence[Message]:
    if "propertyNames" in finding.absolute_schema_path:
        return [(finding.instance, f"{shown(finding.instance)} cannot be a key here{_like(finding)}")]
    return MESSAGES.get(str(finding.validator), _unnamed)(finding)


def _unknown(finding: SchemaFinding) -> Sequence[Message]:
    known = list(finding.schema.get("properties", {}))
    return [(key, f"unknown key; {_known(key, known)}") for key in finding.instance if key not in known]


def _known(key: str, known: Sequence[str]) -> str:
    guess = meant(key, known)
    if guess:
        return f"did you mean '{guess}'?"
    return f"the keys here are {listed(known, 'and')}" if known else "no keys are allowed here"


def _missing(finding: SchemaFinding) -> Sequence[Message]:
    parts = finding.schema.get("properties", {})
    return [
        (key, f"is missing; add it{_example(parts.get(key, {}), f', like `{key}: ', '`', 1)}")
        for key in finding.validator_value
        if key not in finding.instance
    ]


def _needs(finding: SchemaFinding) -> Sequence[Message]:
    needs = {key: needed for key, needed in finding.validator_value.items() if key in finding.instance}
    missing = {key: [repr(n) for n in needed if n not in finding.instance] for key, needed in needs.items()}
    return [
        (key, f"has no effect without {listed(names, 'and')}; add {listed(names, 'and')}, or remove '{key}'")
        for key, names in missing.items()
        if names
    ]


def _type(finding: SchemaFinding) -> Sequence[Message]:
    return [(None, f"is {_kind(finding.instance)}, but must be {_kinds(_names(finding))}{_like(finding)}")]


def _names(finding: SchemaFinding) -> Sequence[str]:
    """The types a `type` or an `enum` takes."""
    types = finding.validator_value if finding.validator == "type" else "string"
    return [types] if isinstance(types, str) else list(types)


def _kinds(names: Sequence[str]) -> str:
    return listed(list(dict.fromkeys(TYPE_WORDS.get(name, "a single value") for name in names)))


def _kind(value: object) -> str:
    if isinstance(value, str):
        return f"the single value {shown(value)}"
    return "a mapping" if isinstance(value, dict) else "a list"


def _enum(finding: SchemaFinding) -> Sequence[Message]:
    words = list(dict.fromkeys(str(word) for word in finding.validator_value))
    if not isinstance(finding.instance, str):
        return [(None, f"is {_kind(finding.instance)}; write {listed(words)}")]
    fact = f"{shown(finding.instance)} is not known here"
    if len(words) == 1:
        return [(None, f"{fact}{_like(finding) if finding.parent else f'; write {words[0]}'}")]
    guess = meant(finding.instance, words)
    return [(None, f"{fact}; " + (f"did you mean '{guess}'?" if guess else f"write {listed(words)}"))]


def _pattern(finding: SchemaFinding) -> Sequence[Message]:
    return [(None, f"{shown(finding.instance)} is not valid{_like(finding)}")]


def _few(finding: SchemaFinding) -> Sequence[Message]:
    if not finding.instance:
        return [(None, f"is empty{_like(finding)}")]
    return [(None, f"has too few entries ({len(finding.instance)}); write at least {finding.validator_value}")]


def _many(finding: SchemaFinding) -> Sequence[Message]:
    key = list(finding.instance)[finding.validator_value] if isinstance(finding.instance, dict) else None
    fact = "is one entry too many" if key else f"has too many entries ({len(finding.instance)})"
    return [(key, f"{fact}; write at most {finding.validator_value}")]


def _alternatives(finding: SchemaFinding) -> Sequence[Message]:
    keys = _choice(finding.validator_value)
    used = [key for key in finding.instance if key in keys] if isinstance(finding.instance, dict) else []
    if len(used) > 1:
        return [(used[1], f"'{used[1]}' and '{used[0]}' exclude each other; keep one of them")]
    if keys:
        return [(None, f"lacks {listed([repr(key) for key in keys])}; write one of them")]
    names = [name for fault in finding.context if _other_kind(fault) for name in _names(fault)]
    if names:
        return [(None, f"is {_kind(finding.instance)}, but must be {_kinds(names)}{_like(finding)}")]
    return _unnamed(finding)


def _unnamed(finding: SchemaFinding) -> Sequence[Message]:
    """The message for a keyword without its own: the schema's description of the value."""
    purpose = finding.schema.get("description", "") if isinstance(finding.schema, dict) else ""
    return [(None, f"is not valid{f' ({purpose})' if purpose else ''}{_like(finding)}")]


MESSAGES: Mapping[str, Callable[[SchemaFinding], Sequence[Message]]] = {
    "additionalProperties": _unknown,
    "required": _missing,
    "dependentRequired": _needs,
    "type": _type,
    "enum": _enum,
    "const": lambda finding: [(None, f"must be {finding.validator_value}")],
    "pattern": _pattern,
    "minItems": _few,
    "minProperties": _few,
    "maxItems": _many,
    "maxProperties": _many,
    "uniqueItems": lambda finding: [(None, "contains the same entry twice; keep one")],
    "anyOf": _alternatives,
    "oneOf": _alternatives,
}


def _like(finding: SchemaFinding) -> str:
    """`; write it like …`, with the nearest examples: those of the failing schema, else those of the enclosing ones."""
    level: SchemaFinding | None = finding
    while level is not None:
        found = _example(level.schema, "; write it like ", "") if isinstance(level.schema, dict) else ""
        if found:
            return found
        # The schema of a list or a mapping describes the whole, not one entry.
        level = level.parent if not level.relative_path else None
    return ""


def _example(schema: Mapping[str, Any], before: str, after: str, most: int = 3) -> str:
    examples = [text for text in map(flow, schema.get("examples", [])) if len(text) <= MAX_EXAMPLE]
    if not examples:
        return ""
    few = examples[:most] if sum(map(len, examples[:most])) <= MAX_EXAMPLE else examples[:1]
    return f"{before}{listed(few)}{after}"


def flow(value: object) -> str:
    """An example as it is written on one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if UNQUOTED.match(text) else f'"{text}"'
