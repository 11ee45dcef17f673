"""A fast check that a document is valid under its JSON Schema, without importing jsonschema.

Compiles a schema into nested functions. The check fails on a keyword that it does not know. document.validate then uses
jsonschema, which decides and reports the details: this module only saves time. Documents consist of strings, lists and
mappings, so the check handles only these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

NodeTest = Callable[[Any], bool]

ANNOTATIONS = frozenset(
    {"$schema", "$id", "$defs", "$comment", "title", "description", "examples", "default", "deprecated"}
)
OF_NUMBERS = frozenset({"minimum", "maximum"})
"""Keywords that hold for every string, list and mapping."""
TYPES: Mapping[str, type] = {"object": dict, "array": list, "string": str}


def passes(schema: Mapping[str, Any], value: object) -> bool:
    """True: the value is valid. False: it is not, or this module cannot decide."""
    return _Compiler(schema).test(schema)(value)


class _Compiler:
    """Compiles the tests of one schema document; each `$ref` is compiled once and may be recursive."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._refs: dict[str, NodeTest] = {}
        self._keywords: dict[str, Callable[[Any, Mapping[str, Any]], NodeTest]] = {
            "$ref": self._ref,
            "type": _type,
            "enum": _enum,
            "const": lambda word, _: lambda value: value == word,
            "pattern": _pattern,
            "properties": self._properties,
            "propertyNames": lambda names, _: _names(self.test(names)),
            "required": lambda names, _: lambda value: not isinstance(value, dict) or value.keys() >= set(names),
            "dependentRequired": _dependent,
            "additionalProperties": self._additional,
            "items": self._items,
            "minItems": lambda least, _: lambda value: not isinstance(value, list) or len(value) >= least,
            "minProperties": lambda least, _: lambda value: not isinstance(value, dict) or len(value) >= least,
            "maxProperties": lambda most, _: lambda value: not isinstance(value, dict) or len(value) <= most,
            "oneOf": lambda branches, _: self._count(branches, lambda fitting: fitting == 1),
            "anyOf": lambda branches, _: self._count(branches, bool),
            "allOf": lambda branches, _: _all([self.test(branch) for branch in branches]),
        }

    def test(self, schema: Any) -> NodeTest:
        """The schema as a function: whether a value is valid."""
        if isinstance(schema, bool):
            return lambda value: schema
        unknown = schema.keys() - self._keywords.keys() - ANNOTATIONS - OF_NUMBERS
        if unknown:
            return lambda value: False
        return _all([self._keywords[key](given, schema) for key, given in schema.items() if key in self._keywords])

    def _ref(self, name: str, _: Mapping[str, Any]) -> NodeTest:
        if name not in self._refs:
            # A recursive schema refers to itself before its test exists: it gets a placeholder that looks it up later.
            self._refs[name] = lambda value: self._refs[name](value)
            target: Any = self._root
            for part in name.removeprefix("#").split("/")[1:]:
                target = target[part]
            self._refs[name] = self.test(target)
        return self._refs[name]

    def _properties(self, given: Mapping[str, Any], _: Mapping[str, Any]) -> NodeTest:
        tests: dict[str, NodeTest] = {}  # compiled on first use: most documents use few of the keys

        def fits(key: str, value: Any) -> bool:
            if key not in tests:
                tests[key] = self.test(given[key])
            return tests[key](value)

        def holds(value: Any) -> bool:
            if not isinstance(value, dict):
                return True
            return all(fits(key, entry) for key, entry in value.items() if key in given)

        return holds

    def _additional(self, given: Any, schema: Mapping[str, Any]) -> NodeTest:
        test, known = self.test(given), schema.get("properties", {}).keys()

        def holds(value: Any) -> bool:
            if not isinstance(value, dict) or value.keys() <= known:
                return True
            return all(test(entry) for key, entry in value.items() if key not in known)

        return holds

    def _items(self, given: Any, _: Mapping[str, Any]) -> NodeTest:
        test = self.test(given)
        return lambda value: not isinstance(value, list) or all(map(test, value))

    def _count(self, branches: Sequence[Any], enough: Callable[[int], bool]) -> NodeTest:
        tests = [self.test(branch) for branch in branches]
        return lambda value: enough(sum(test(value) for test in tests))


def _all(tests: Sequence[NodeTest]) -> NodeTest:
    if len(tests) == 1:
        return tests[0]

    def holds(value: Any) -> bool:
        return all(test(value) for test in tests)

    return holds


def _type(given: str | Sequence[str], _: Mapping[str, Any]) -> NodeTest:
    names = [given] if isinstance(given, str) else given
    types = tuple(TYPES[name] for name in names if name in TYPES)
    return lambda value: isinstance(value, types)


def _enum(given: Sequence[Any], _: Mapping[str, Any]) -> NodeTest:
    words = {word for word in given if isinstance(word, str)}
    return lambda value: isinstance(value, str) and value in words


def _names(test: NodeTest) -> NodeTest:
    return lambda value: not isinstance(value, dict) or all(map(test, value))


def _pattern(given: str, _: Mapping[str, Any]) -> NodeTest:
    search = re.compile(given).search
    return lambda value: not isinstance(value, str) or search(value) is not None


def _dependent(given: Mapping[str, Sequence[str]], _: Mapping[str, Any]) -> NodeTest:
    def holds(value: Any) -> bool:
        if not isinstance(value, dict):
            return True
        return all(value.keys() >= set(needed) for key, needed in given.items() if key in value)

    return holds
