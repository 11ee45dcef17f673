"""Strict parsing of YAML: text as typed, positions, and every error message."""

import json
import string

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.mutation import mutated

from xenplug.core.documents import document, fast_check, schema_errors
from xenplug.core.documents.document import parse, plain, read, schema, validate
from xenplug.core.documents.node import Node
from xenplug.core.documents.problems import Position, Problem, dotted, listed, meant, shown


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def loader(request, monkeypatch):
    """Both of PyYAML's parsers."""
    chosen = getattr(yaml, request.param, None)
    if chosen is None:
        pytest.skip("PyYAML without libyaml")
    monkeypatch.setattr(document, "LOADER", chosen)


def messages(text):
    data = text if isinstance(text, bytes) else text.encode()
    return [str(problem) for problem in parse(data, "f")[1]]


@pytest.mark.parametrize(
    "typed",
    [
        "1.10",
        "0123:4567",
        "1050:0407",
        "10:20",
        "on",
        "no",
        "0x1f",
        "007",
        "1e3",
        "2024-01-01",
        "046d:*",
        "1_000",
        "+.inf",
        "nullable",
        "00",
        "3-1.2",
        "super+",
        "ünïcode",
        "a#b",
    ],
)
def test_a_scalar_is_the_text_that_was_typed(loader, typed):
    node, problems = parse(f"key: {typed}\nflow: {{a: {typed}, b: [{typed}]}}\n".encode(), "f")
    assert problems == []
    assert plain(node) == {"key": typed, "flow": {"a": typed, "b": [typed]}}


@pytest.mark.parametrize(
    "typed, read_",
    [("'~'", "~"), ('""', ""), ("'null'", "null"), ('"a\\tb"', "a\tb"), ("|\n    two\n    lines", "two\nlines\n")],
)
def test_quoted_and_block_scalars(loader, typed, read_):
    node, problems = parse(f"key: {typed}\n".encode(), "f")
    assert (plain(node), problems) == ({"key": read_}, [])


def test_every_value_and_key_has_a_position(loader):
    node, _ = parse("# top\nä: {b: [x,  y]}\nc:\n  - d: e\n".encode(), "f")
    assert node.position == (2, 1)
    assert node.key("c") == (3, 1)
    assert node.key("not there") == node.position
    assert node.find(["ä"]).key("b") == (2, 5)
    assert node.find(["ä", "b", 1]).position == (2, 13)
    assert node.find(["c", 0, "d"]).position == (4, 8)


def test_accessors_of_another_kind_of_node_are_empty():
    scalar, items = Node("x", 1, 1), Node([Node("x", 1, 1)], 1, 1)
    assert (scalar.mapping, scalar.items, scalar.text) == ({}, [], "x")
    assert (items.mapping, items.text, items.one_or_more) == ({}, None, items.items)
    assert scalar.one_or_more == [scalar]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "--- # nothing\n", "\ufeff"])
def test_an_empty_document_is_an_empty_mapping(loader, text):
    assert parse(text.encode(), "f") == (Node({}, 1, 1), [])


def test_a_byte_order_mark_is_ignored(loader):
    node, problems = parse(b"\xef\xbb\xbfa: b", "f")
    assert (plain(node), node.key("a"), problems) == ({"a": "b"}, (1, 1), [])


@pytest.mark.parametrize(
    "text, message",
    [
        pytest.param(b"a: b\nc: \xff", "f:2:4: not UTF-8 text; save the file as UTF-8", id="not-utf8"),
        pytest.param("a: b".encode("utf-16"), "f:1:1: not UTF-8 text; save the file as UTF-8", id="utf16"),
        pytest.param(
            b"\x7fELF\x02\x01\x01\0",
            "f:1:1: a control character (U+007F) is not allowed; remove it",
            id="binary",
        ),
        pytest.param("ä\n ä\x1b[0m", "f:2:3: a control character (U+001B) is not allowed; remove it", id="escape"),
        pytest.param(b"#" * (document.MAX_BYTES + 1), "f:1:1: more than 8 MiB; split the file", id="too-big"),
        pytest.param(
            "[" * 500,
            "f:1:33: nested more than 32 levels deep; check the brackets",
            id="deep-list",
        ),
        pytest.param(
            "{a: " * 5000,
            "f:1:129: nested more than 32 levels deep; check the brackets",
            id="deep-mapping",
        ),
        pytest.param(
            "a: [x,]\nb: &a [*a]\n",
            "f:2:4: b: &a is a YAML anchor, which is not supported; repeat the value wherever it is needed",
            id="anchor",
        ),
        pytest.param("a: *b\n", 'f:1:4: a: YAML reads an unquoted *b as an alias; quote it: "*b"', id="alias"),
        pytest.param("a: *:*\n", 'f:1:4: YAML reads an unquoted *:* as an alias; quote it: "*:*"', id="star"),
        pytest.param(
            "{a: [*:*, x]}\n", 'f:1:6: YAML reads an unquoted *:* as an alias; quote it: "*:*"', id="star-in-list"
        ),
        pytest.param("- *\n", 'f:1:3: YAML reads an unquoted * as an alias; quote it: "*"', id="lone-star"),
        pytest.param(
            "*a : b\n", "f:1:1: ['?']: YAML reads an unquoted *a as an alias; quote it: \"*a\"", id="alias-key"
        ),
        pytest.param(
            "!!str a: b\n",
            "f:1:1: a: has the YAML tag '!!str'; remove the tag, every value is read as text",
            id="tagged-key",
        ),
        pytest.param(
            "a: ! b\n", "f:1:4: a: has the YAML tag '!'; remove the tag, every value is read as text", id="bare-tag"
        ),
        pytest.param(
            "a: b\n<<: {c: d}\n", "f:2:1: ['<<']: merge keys are not supported; repeat the keys instead", id="merge"
        ),
        pytest.param('"": b\n', "f:1:1: ['']: a value without a key; write `key: value`", id="empty-key"),
        pytest.param("a: b\n'a': c\n", "f:2:1: a: is set twice, first at line 1; keep one", id="twice"),
        pytest.param(
            "a: b\n...\n---\nc: d\n", "f:3:1: a second document begins here; move it to another file", id="second"
        ),
        pytest.param("\ta: b\n", "f:1:1: a tab; indent with spaces", id="tab"),
        pytest.param("a: |\n\t x\n", "f:2:1: a tab; indent with spaces", id="tab-in-block"),
        pytest.param("a: 'b\n", "f:1:4: the quote opened here is never closed; close it", id="quote"),
    ],
)
def test_refused(loader, text, message):
    assert messages(text)[0] == message


def test_extreme_nesting_is_refused(loader):
    """Newer versions of libyaml refuse it themselves, at a later position."""
    (message,) = messages("[" * 100_000)
    assert message.endswith("nested more than 32 levels deep; check the brackets")


def test_too_many_values(loader, monkeypatch):
    monkeypatch.setattr(document, "MAX_VALUES", 100)
    assert messages("- a\n" * 200) == ["f:100:3: more than 100 values; split the file"]


def test_an_escape_beyond_unicode(loader):
    (message,) = messages('a: "\\UFFFFFFFF"\n')
    assert message.startswith("f:1:")
    assert "escape" in message


def test_problems_before_a_syntax_error_are_reported_too(loader):
    assert len(messages("a: b\na: ~\nc: 'd\n")) == 2


def test_the_first_of_duplicate_keys_counts(loader):
    assert plain(parse(b"a: b\na: c\n", "f")[0]) == {"a": "b"}


@given(st.one_of(st.binary(max_size=200), st.text(string.printable, max_size=200).map(str.encode)))
@settings(max_examples=300, deadline=None)
def test_random_bytes_never_raise(text):
    node, problems = parse(text, "f")
    assert node is not None or problems


@given(mutated())
@settings(max_examples=200, deadline=None)
def test_mutated_policies_never_raise_and_problems_have_positions(text):
    node, problems = read(text, "f", schema("policy"))
    lines = text.count(b"\n") + 2
    assert node is not None or problems
    assert all(1 <= problem.line <= lines and problem.column >= 1 for problem in problems)
    assert all("\n" not in str(problem) for problem in problems)


# The result of jsonschema, and the fast check that must agree with it.

values = st.recursive(
    st.sampled_from(["1", "2", "a", "on", "046d:c016", "none", "qusb", "host", "win11", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["version", "rules", "match", "attach", "action", "device", "a", "b", "controller", "type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(values, st.sampled_from(["policy", "settings"]))
@settings(max_examples=100, deadline=None)
def test_the_fast_check_agrees_with_jsonschema(value, name):
    from jsonschema import Draft202012Validator

    for part in ({}, *({"$ref": f"#/$defs/{key}"} for key in schema(name).get("$defs", {}))):
        whole = {**schema(name), **part} if not part else {"$defs": schema(name)["$defs"], **part}
        assert fast_check.passes(whole, value) == Draft202012Validator(whole).is_valid(value)


@pytest.mark.parametrize(
    "keyword",
    [
        {"type": "object"},
        {"type": ["array", "null"]},
        {"enum": ["a", 1, ["a"]]},
        {"const": "a"},
        {"pattern": "a"},
        {"properties": {"a": {"const": "a"}}},
        {"required": ["a"]},
        {"dependentRequired": {"a": ["b"]}},
        {"additionalProperties": {"const": "a"}},
        {"propertyNames": {"const": "a"}},
        {"items": {"const": "a"}},
        {"minItems": 1},
        {"minProperties": 1},
        {"maxProperties": 1},
        {"minimum": 1},
        {"oneOf": [True, {"const": "a"}]},
        {"anyOf": [False, {"const": "a"}]},
        {"allOf": [True, {"const": "a"}]},
        {"uniqueItems": True, "description": ""},
        {"$ref": "#/$defs/a", "$defs": {"a": {"const": "a"}}},
    ],
    ids=lambda keyword: next(iter(keyword)),
)
@pytest.mark.parametrize(
    "value", ["a", "b", [], ["a"], ["b", "a"], {}, {"a": "a"}, {"b": "a"}, {"b": "b", "a": "a"}], ids=str
)
def test_the_fast_check_passes_only_what_jsonschema_passes(keyword, value):
    from jsonschema import Draft202012Validator

    verdict = Draft202012Validator(keyword).is_valid(value)
    passed = fast_check.passes(keyword, value)
    assert verdict or not passed
    known = "uniqueItems" not in keyword and not (value == ["a"] and "enum" in keyword)
    assert passed == verdict or not known


TREE = {
    "$defs": {
        "tree": {
            "type": "object",
            "propertyNames": {"pattern": "^[a-z]$"},
            "additionalProperties": {"anyOf": [{"$ref": "#/$defs/tree"}, {"const": "leaf"}]},
        }
    },
    "$ref": "#/$defs/tree",
}


@pytest.mark.parametrize(
    "schema_, value, message",
    [
        ({"allOf": [{"minProperties": 1}, {"maxProperties": 1}]}, {"a": "b"}, None),
        (
            {"allOf": [{"minProperties": 1}, {"maxProperties": 1}]},
            {"a": "b", "c": "d"},
            "c: is one entry too many; write at most 1",
        ),
        ({"maxItems": 1}, ["a", "b"], "the document has too many entries (2); write at most 1"),
        ({"minItems": 2}, ["a"], "the document has too few entries (1); write at least 2"),
        ({"properties": {"a": True, "b": False}}, {"a": "x"}, None),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": ["x", "y"]}, None),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": ["x", "x"]}, "a: contains the same entry twice; keep one"),
        ({"properties": {"a": {"const": "x"}}}, {"a": "y"}, "a: must be x"),
        (
            {"properties": {"a": {"description": "a colour", "not": {"const": "x"}}}},
            {"a": "x"},
            "a: is not valid (a colour)",
        ),
        ({"additionalProperties": False}, {"a": "x"}, "a: unknown key; no keys are allowed here"),
        ({"required": ["a"]}, {}, "a: is missing; add it"),
        ({"properties": {"a": {"oneOf": [{"const": "x"}, {"pattern": "x"}]}}}, {"a": "x"}, "a: is not valid"),
        (
            {"properties": {"a": {"anyOf": [{"required": ["x"]}, {"required": ["y"]}]}}},
            {"a": {}},
            "a: lacks 'x' or 'y'; write one of them",
        ),
        (TREE, {"a": {"b": {"c": "leaf"}}}, None),
        (TREE, {"a": {"B": "leaf"}}, "a.B: 'B' cannot be a key here"),
        (
            {"properties": {"a": {"enum": ["on", True], "examples": [True, "a b", "a: b"]}}},
            {"a": ["on"]},
            "a: is a list; write on or True",
        ),
        (
            {"properties": {"a": {"pattern": "x", "examples": [True, "a b", "a: b"]}}},
            {"a": "no"},
            "a: 'no' is not valid; write it like true, a b or \"a: b\"",
        ),
        ({"properties": {"a": {"pattern": "x", "examples": ["y" * 99]}}}, {"a": "no"}, "a: 'no' is not valid"),
        (
            {"properties": {"a": {"pattern": "x", "examples": ["y" * 50, "z" * 50]}}},
            {"a": "no"},
            f"a: 'no' is not valid; write it like {'y' * 50}",
        ),
    ],
)
def test_messages_of_schema_errors(schema_, value, message):
    node, _ = parse(json.dumps(value).encode(), "f")
    problems = [str(problem).split(": ", 1)[1] for problem in validate(node, schema_, "f")]
    assert problems == ([message] if message else [])


@pytest.mark.parametrize("name", ["policy", "settings"])
def test_schemas_are_valid_and_describe_every_property(name):
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema(name))
    assert schema(name) is schema(name)

    def properties(part):
        for key, inner in part.get("properties", {}).items():
            yield key, inner
            yield from properties(inner)

    parts = [schema(name), *schema(name).get("$defs", {}).values()]
    described = [(key, inner) for part in parts for key, inner in properties(part)]
    assert described
    assert [key for key, inner in described if not inner.get("description") or not inner.get("examples")] == []
    # Entries of lists have examples in $defs, so an error at an entry can show them.
    defs = schema(name).get("$defs", {})
    assert [key for key, inner in defs.items() if not inner.get("examples") and "enum" not in inner] == []
    for _, inner in described:
        whole = {"$defs": schema(name).get("$defs", {}), **inner}
        for example in inner["examples"]:
            Draft202012Validator(whole).validate(example)


@pytest.mark.parametrize("value", [1, "1"])
def test_schemas_accept_the_types_that_editors_see(value):
    from jsonschema import Draft202012Validator

    rule = {"name": 7, "match": {"address": 1.1, "class": 3, "serial": True}, "attach": "win11"}
    document_ = {"version": value, "rules": [rule], "guests": {"a": {"controller": {"type": "qusb", "ports": 4}}}}
    Draft202012Validator(schema("policy")).validate(document_)


def test_a_problem_shows_its_position():
    assert str(Problem("a.yaml", 3, 7, "rules[2].match", "fact; remedy")) == "a.yaml:3:7: rules[2].match: fact; remedy"
    assert str(Problem("a.yaml", 1, 1, "", "fact; remedy")) == "a.yaml:1:1: fact; remedy"
    assert dotted(["guests", "my vm", "x", 0]) == "guests['my vm'].x[0]"
    assert shown("a" * 100) == "'" + "a" * 59 + "…'"
    assert (listed(["a"]), listed(["a", "b", "c"], "and")) == ("a", "a, b and c")
    assert (meant("Devcie", ["device", "kind"]), meant("via", ["device", "any"])) == ("device", None)
    assert Position(2, 3).column == 3
    assert schema_errors.flow({"a": [1, {"b": "046d:*"}], "c": "*:*"}) == '{a: [1, {b: 046d:*}], c: "*:*"}'
