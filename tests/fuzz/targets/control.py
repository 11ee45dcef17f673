"""The control protocol: every message is a valid call or refused, and replies keep their framing."""

from __future__ import annotations

import json
from collections.abc import Iterable

from xenplug.adapters import varlink

INTERFACES = [varlink.load_interface(name) for name in ("org.xenplug", "org.varlink.service")]
TOKENS = [f"{i.name}.{m}".encode() for i in INTERFACES for m in i.methods]
TOKENS += [b'"parameters"', b'"more"', b'"oneway"', b"true", b"null", b"1e999", b"\\ud800", b"9" * 5000, b"[" * 2000]


def seeds() -> Iterable[bytes]:
    """A call of every method."""
    for interface in INTERFACES:
        for name, method in interface.methods.items():
            parameters = {key: [] if "[]" in kind else "1-4" for key, kind in method.parameters.items()}
            yield json.dumps({"method": f"{interface.name}.{name}", "parameters": parameters, "more": True}).encode()


def read(data: bytes) -> None:
    """Decode a message as the server does, up to a NUL."""
    try:
        call = varlink.parse_call(data)
    except varlink.Malformed:
        return
    for interface in INTERFACES:
        for method in interface.methods.values():
            try:
                checked = method.check(call.parameters)
            except varlink.Fault as fault:
                reply = varlink.encode(fault.reply())
            else:
                assert set(checked) == set(method.parameters)
                reply = varlink.encode({"parameters": checked})
            assert reply.count(b"\0") == 1
            assert reply.isascii()
