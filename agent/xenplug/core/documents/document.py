"""Strict YAML text -> a tree with positions, or Problems; and JSON Schema's verdict on such a tree.

The only importer of yaml and jsonschema, used for policies, settings and scenarios. It reads YAML's events, not its
values: nothing is resolved, every scalar is the text that was typed. Constructs with surprising effects (anchors, tags,
merge keys, duplicate keys) are refused. jsonschema is slow to import and checks only the documents that
core/documents/fast_check does not pass.
"""

from __future__ import annotations

import functools
import json
import pkgutil
import re
from collections.abc import Mapping
from typing import Any

import yaml

from xenplug.core.documents import fast_check, schema_errors, syntax
from xenplug.core.documents.node import Node, plain
from xenplug.core.documents.problems import Path, Position, Problem, dotted, merge, shown

__all__ = ["MAX_BYTES", "Node", "Problem", "parse", "plain", "read", "schema", "validate"]

MAX_BYTES = 8 * 1024 * 1024
MAX_VALUES = 250_000
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class _Refused(Exception):
    """Stops the reading before the end of the document."""


def read(text: bytes, file: str, schema_: Mapping[str, Any]) -> tuple[Node | None, list[Problem]]:
    """Parse and validate: the tree, and all problems by position. The Node is None if the text is not YAML at all."""
    node, problems = parse(text, file)
    return node, problems if node is None else merge(problems, validate(node, schema_, file))


def parse(text: bytes, file: str) -> tuple[Node | None, list[Problem]]:
    """The document as a tree, and its YAML problems. Never raises.

    The tree is None if the text cannot be read at all (not UTF-8, too big, too deep, bad syntax). An empty document is
    an empty mapping: the schema reports its missing keys.
    """
    problem, decoded = _decode(text)
    if problem:
        position, message = problem
        return None, [Problem(file, *position, "", message)]
    builder = _Builder(file)
    node = builder.run(decoded)
    return node, merge(builder.problems)


def _decode(text: bytes) -> tuple[tuple[Position, str] | None, str]:
    if len(text) > MAX_BYTES:
        return (Position(1, 1), f"more than {MAX_BYTES >> 20} MiB; split the file"), ""
    try:
        decoded = text.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        return (_after(text[: error.start].decode()), "not UTF-8 text; save the file as UTF-8"), ""
    odd = UNPRINTABLE.search(decoded)
    if odd:
        message = f"a control character (U+{ord(odd[0]):04X}) is not allowed; remove it"
        return (_after(decoded[: odd.start()]), message), ""
    return None, decoded


def _after(text: str) -> Position:
    return Position(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)


class _Builder:
    """Builds the tree of one document by recursive descent over YAML's events."""

    def __init__(self, file: str) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._path: list[str | int] = []
        self._anchors: set[str] = set()
        self._count = 0
        self._next: Any = None

    def run(self, text: str) -> Node | None:
        loader = LOADER(text)
        self._next = loader.get_event
        try:
            return self._document()
        except _Refused:
            return None
        except yaml.MarkedYAMLError as error:
            self._syntax(error, text)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # ValueError, OverflowError: the Python parser on escapes beyond Unicode, "\UFFFFFFFF".
            self._add_problem(
                Position(1, 1), f"YAML cannot read this ({str(error).splitlines()[0]}); check its escapes", []
            )
        finally:
            loader.dispose()
        return None

    def _document(self) -> Node:
        self._next()
        if isinstance(self._next(), yaml.StreamEndEvent):
            return Node({}, 1, 1)
        event = self._next()
        if isinstance(event, yaml.ScalarEvent) and not event.value and event.implicit[0]:
            node = Node({}, 1, 1)
        else:
            node = self._node(event)
        self._next()
        more = self._next()
        if not isinstance(more, yaml.StreamEndEvent):
            self._add_problem(_position(more.start_mark), "a second document begins here; move it to another file", [])
        return node

    def _node(self, event: Any, key: Position | None = None) -> Node:
        """The value that begins with this event; `key` is the position of its key, if it has one."""
        self._count += 1
        if self._count > MAX_VALUES:
            self._refuse(event, f"more than {MAX_VALUES} values; split the file")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, key)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._bare(event)
        if len(self._path) >= syntax.MAX_DEPTH:
            self._refuse(event, syntax.TOO_DEEP)
        return self._mapping(event) if isinstance(event, yaml.MappingStartEvent) else self._list(event)

    def _scalar(self, event: Any, key: Position | None) -> Node:
        mark = event.start_mark
        if event.anchor or event.tag:
            self._bare(event)
        elif event.implicit[0] and event.value in NULLS:
            position = key or _position(mark)
            typed = f" (YAML reads {event.value} as empty)" if event.value else ""
            self._add_problem(position, f"has no value{typed}; write one, or remove it")
            return Node("", *position)
        return Node(event.value, mark.line + 1, mark.column + 1)

    def _alias(self, event: Any) -> Node:
        if event.anchor in self._anchors:
            message = f"*{event.anchor} is a YAML alias, which is not supported; repeat the value instead"
        else:
            message = syntax.alias_help(f"*{event.anchor}")
        position = _position(event.start_mark)
        self._add_problem(position, message)
        return Node("", *position)

    def _bare(self, event: Any) -> None:
        """Refuse anchors and tags."""
        if event.anchor:
            self._anchors.add(event.anchor)
            self._add_problem(
                _position(event.start_mark),
                f"&{event.anchor} is a YAML anchor, which is not supported; repeat the value wherever it is needed",
            )
        elif event.tag:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._add_problem(
                _position(event.start_mark),
                f"has the YAML tag {shown(tag)}; remove the tag, every value is read as text",
            )

    def _list(self, event: Any) -> Node:
        items: list[Node] = []
        self._path.append(0)
        while not isinstance(entry := self._next(), yaml.SequenceEndEvent):
            self._path[-1] = len(items)
            items.append(self._node(entry))
        self._path.pop()
        return Node(items, *_position(event.start_mark))

    def _mapping(self, event: Any) -> Node:
        values: dict[str, Node] = {}
        keys: dict[str, Position] = {}
        self._path.append("")
        while not isinstance(entry := self._next(), yaml.MappingEndEvent):
            position = _position(entry.start_mark)
            name = self._key(entry, position)
            first = keys.get(name) if name is not None else None
            if first:
                self._add_problem(position, f"is set twice, first at line {first.line}; keep one")
            value = self._node(self._next(), position)
            if name is not None and not first:
                values[name] = value
                keys[name] = position
        self._path.pop()
        return Node(values, *_position(event.start_mark), keys)

    def _key(self, event: Any, position: Position) -> str | None:
        """The key's text; None, and a problem, if it is not valid as a key."""
        if not isinstance(event, yaml.ScalarEvent):
            self._path[-1] = "?"
            if not isinstance(event, yaml.AliasEvent):
                self._add_problem(position, "a key must be plain text; quote it if it begins with a bracket or a brace")
            self._node(event)
            return None
        self._path[-1] = event.value
        if event.anchor or event.tag:
            self._bare(event)
        elif event.implicit[0] and event.value == "<<":
            self._add_problem(position, "merge keys are not supported; repeat the keys instead")
            return None
        elif not event.value:
            self._add_problem(position, "a value without a key; write `key: value`")
            return None
        return str(event.value)

    def _refuse(self, event: Any, message: str) -> None:
        self._add_problem(_position(event.start_mark), message, [])
        raise _Refused

    def _add_problem(self, position: Position, message: str, path: Path | None = None) -> None:
        self.problems.append(Problem(self._file, *position, dotted(self._path if path is None else path), message))

    def _syntax(self, error: yaml.MarkedYAMLError, text: str) -> None:
        at = _position(error.problem_mark) if error.problem_mark else Position(1, 1)
        begun = _position(error.context_mark) if error.context_mark else None
        complaint = syntax.Complaint(error.context or "", begun, error.problem or "", at)
        self._add_problem(*syntax.explain(complaint, text), [])


def validate(node: Node, schema_: Mapping[str, Any], file: str) -> list[Problem]:
    """The violations of a JSON Schema (draft 2020-12), by position, with readable messages."""
    value = plain(node)
    if fast_check.passes(schema_, value):
        return []
    from jsonschema import Draft202012Validator  # here, since the import alone takes a tenth of a second

    errors = Draft202012Validator(dict(schema_)).iter_errors(value)
    return merge(problem for error in errors for problem in schema_errors.about(error, node, file))


@functools.cache
def schema(name: str) -> Mapping[str, Any]:
    """The shipped JSON Schema of that name: policy, settings or scenario."""
    # pkgutil rather than importlib.resources, whose import costs as much as all the reading of a policy.
    loaded: Mapping[str, Any] = json.loads(pkgutil.get_data("xenplug.core", f"schemas/{name}.json") or b"{}")
    return loaded
