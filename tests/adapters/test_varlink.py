"""The shipped interface descriptions, and the parser that reads them."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplug.adapters import control, varlink
from xenplug.adapters.varlink import Malformed, fits, load_interface, parse_call, parse_interface


def test_our_interface() -> None:
    methods = load_interface("org.xenplug").methods
    assert {name: dict(method.parameters) for name, method in methods.items()} == {
        "Status": {},
        "Devices": {},
        "Explain": {"device": "string"},
        "Attach": {"device": "string", "guest": "string"},
        "Detach": {"device": "string"},
        "Release": {"device": "string"},
        "Reload": {},
        "Pause": {"scope": "string"},
        "Resume": {"scope": "string"},
        "Prefer": {"guest": "?string"},
        "History": {"device": "?string", "follow": "?bool"},
        "Monitor": {},
    }
    assert dict(methods["Reload"].reply) == {"message": "string", "problems": "[]object"}
    assert set(methods) >= control.READING
    # A stream ends with an empty reply, which the description must allow.
    assert all(kind.startswith("?") for name in control.STREAMS for kind in methods[name].reply.values())


def test_the_errors_that_are_sent_are_described() -> None:
    ours, service = (load_interface(name).description for name in ("org.xenplug", "org.varlink.service"))
    for name in ("Refused", "InternalError"):
        assert f"\nerror {name} " in ours
    for name in ("InterfaceNotFound", "MethodNotFound", "MethodNotImplemented", "InvalidParameter", "ExpectedMore"):
        assert f"\nerror {name} " in service


@pytest.mark.parametrize(
    "text",
    [
        "",
        "method X() -> ()",
        "interface a.b\nmethod X(a: (b: int)) -> ()",
        "interface a.b\nmethod X(a: Thing) -> ()",
        "interface a.b\nmethod X(a) -> ()",
        "interface a.b\nmethod X()",
    ],
)
def test_unsupported_descriptions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not support"):
        parse_interface(text)


def test_comments_are_no_methods() -> None:
    assert not parse_interface("# method Y() -> ()\ninterface a.b # method X() -> ()\n").methods


@pytest.mark.parametrize(
    ("value", "kind", "holds"),
    [
        ("x", "string", True),
        (1, "string", False),
        (None, "string", False),
        (None, "?string", True),
        ("x", "?string", True),
        (True, "bool", True),
        (1, "bool", False),
        (True, "int", False),
        (1, "int", True),
        (1.5, "int", False),
        (1, "float", True),
        ({}, "object", True),
        ([], "object", False),
        ([{}], "[]object", True),
        ([1], "[]object", False),
        ("x", "[]string", False),
        ("x", "object", False),
        ("\ud800", "string", False),
    ],
)
def test_fits(value: object, kind: str, holds: bool) -> None:
    assert fits(value, kind) is holds


def test_null_flags_and_unknown_keys_are_passed_over() -> None:
    call = parse_call(b'{"method":"a.B","more":null,"parameters":null,"fds":3}')
    assert call == varlink.MethodCall("a.B", None)


@given(st.binary())
def test_any_bytes_are_a_call_or_malformed(data: bytes) -> None:
    with suppress(Malformed):
        parse_call(data)


@given(st.text())
def test_replies_keep_their_text_and_their_frame(text: str) -> None:
    data = varlink.encode({"parameters": {"x": text}})
    assert data.count(b"\0") == 1
    assert data.isascii()
    assert json.loads(data[:-1]) == {"parameters": {"x": text}}
