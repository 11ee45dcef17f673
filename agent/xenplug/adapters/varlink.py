"""Varlink's messages and interface descriptions as values; no socket here.

control.py reads the bytes of a message from its socket, parses them here as a MethodCall, checks the parameters against
the method's description, and writes the reply as encoded by `encode`. The wire format is that of https://varlink.org
(Interface Definition, Method Call): JSON objects, each ended by a NUL byte that this module never sees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "object": (dict,),
}
_COMMENT = re.compile(r"#[^\n]*")
_INTERFACE = re.compile(r"\binterface\s+(\S+)")
_METHOD = re.compile(r"\bmethod\s+(\w+)\s*\(([^()]*)\)\s*->\s*\(([^()]*)\)")


class Malformed(Exception):
    """Not a Varlink message: the only answer is to close the connection."""


class Fault(Exception):
    """An error reply: its full name and parameters."""

    def __init__(self, error: str, parameters: Json) -> None:
        super().__init__(error, parameters)
        self.error = error
        self.parameters = parameters

    def reply(self) -> Json:
        """The reply message."""
        return {"error": self.error, "parameters": self.parameters}


class Refused(Fault):
    """The agent refuses or cannot do it. `cause` is a stable word, `message` the fact and its remedy."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__("org.xenplug.Refused", {"cause": cause, "reason": message})


def service_fault(name: str, **parameters: str) -> Fault:
    """One of the errors that every Varlink service has (org.varlink.service)."""
    return Fault(f"org.varlink.service.{name}", dict(parameters))


@dataclass(frozen=True, slots=True)
class MethodCall:
    """One request. `method` is the full name, "org.xenplug.Status"."""

    method: str
    parameters: object
    """As sent; Method.check validates them."""
    more: bool = False
    oneway: bool = False
    upgrade: bool = False


def parse_call(data: bytes) -> MethodCall:
    """A request from the bytes before its NUL. Keys that Varlink does not know are ignored.

    Raises Malformed.
    """
    message = _load(data)
    method = message.get("method")
    if not isinstance(method, str):
        raise Malformed("no method")
    flags = {name: message.get(name) or False for name in ("more", "oneway", "upgrade")}
    if not all(isinstance(flag, bool) for flag in flags.values()) or (flags["more"] and flags["oneway"]):
        raise Malformed("flags")
    return MethodCall(method, message.get("parameters"), **flags)


def _load(data: bytes) -> Json:
    try:
        message = json.loads(data.decode())
    except (ValueError, RecursionError) as error:  # ValueError: JSON, UTF-8, and integers over Python's digit limit
        raise Malformed("not JSON") from error
    if not isinstance(message, dict):
        raise Malformed("not an object")
    return message


def encode(reply: Json) -> bytes:
    """The bytes of a reply, NUL included. ASCII only, so no string in it can break the framing or the reader."""
    return json.dumps(reply, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\0"


@dataclass(frozen=True, slots=True)
class Method:
    """A method's parameters and reply fields: name -> type as in the description ("?string", "[]object")."""

    parameters: Mapping[str, str]
    reply: Mapping[str, str]

    def check(self, given: object) -> Json:
        """All parameters, absent optional ones as None. Raises Fault for unknown, missing, mistyped ones."""
        given = {} if given is None else given
        if not isinstance(given, dict):
            raise service_fault("InvalidParameter", parameter="parameters")
        for name in given:
            if name not in self.parameters:
                raise service_fault("InvalidParameter", parameter=name)
        checked = {name: given.get(name) for name in self.parameters}
        for name, kind in self.parameters.items():
            if not fits(checked[name], kind):
                raise service_fault("InvalidParameter", parameter=name)
        return checked


def fits(value: object, kind: str) -> bool:
    """Whether a JSON value is of this Varlink type. Texts with NUL or lone surrogates have no valid type: no name
    contains them.
    """
    if kind.startswith("?"):
        return value is None or fits(value, kind[1:])
    if kind.startswith("[]"):
        return isinstance(value, list) and all(fits(item, kind[2:]) for item in value)
    if isinstance(value, str):
        return kind == "string" and "\0" not in value and not re.search("[\ud800-\udfff]", value)
    return type(value) in _TYPES[kind]


@dataclass(frozen=True, slots=True)
class InterfaceDescription:
    """An interface description, parsed as far as a server needs: no named types, no nested structs."""

    name: str
    description: str
    methods: Mapping[str, Method]


def parse_interface(description: str) -> InterfaceDescription:
    """An interface from its description. Raises ValueError for a description this server could not serve."""
    text = _COMMENT.sub("", description)
    name = _INTERFACE.search(text)
    methods = {found[1]: Method(_fields(found[2]), _fields(found[3])) for found in _METHOD.finditer(text)}
    if name is None or len(methods) != len(re.findall(r"\bmethod\s+\w", text)):
        raise ValueError("an interface description that this parser does not support")
    return InterfaceDescription(name[1], description, methods)


def _fields(text: str) -> dict[str, str]:
    pairs = [pair.partition(":") for pair in text.split(",") if pair.strip()]
    fields = {name.strip(): kind.strip() for name, _, kind in pairs}
    for kind in fields.values():
        if kind.lstrip("?[]") not in _TYPES:
            raise ValueError(f"type {kind}: this parser does not support it")
    return fields


def load_interface(name: str) -> InterfaceDescription:
    """The interface shipped next to this module as NAME.varlink."""
    return parse_interface(Path(__file__).with_name(f"{name}.varlink").read_text(encoding="utf-8"))
