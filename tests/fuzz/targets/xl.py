"""The output of xl: every text is parsed or reported as not understood, and unprintable text is never passed on."""

from __future__ import annotations

from collections.abc import Iterable

from tests.data.xl import recorded

from xenplug.adapters.xl import XlOutcome, parse_info, parse_list, parse_passthrough, read_monitor, read_outcome
from xenplug.core.model import GuestState
from xenplug.core.protocols import Result

TOKENS = [
    b"libxl: error: ",
    b"Domain 5:",
    b"r-----",
    b"--p---",
    b"---sr-",
    b"Name ID",
    b"Error: ",
    b"99999999999",
    b"\x1b[31m",
]


def seeds() -> Iterable[bytes]:
    """The output of real commands, each stream separately."""
    for version in recorded.versions():
        for name in recorded.names(version):
            result = recorded.result(version, name)
            yield from (text.encode() for text in (result.stdout, result.stderr) if text)


def read(data: bytes) -> None:
    """Read it as stdout and as stderr of any command."""
    text = data.decode("utf-8", "replace")
    for result in (Result(("xl",), 1, "", text), Result(("xl",), 0, text, ""), Result(("xl",), 139, text, text)):
        _printable(read_outcome(result))
        _printable(read_monitor(result))
    states = parse_list(text)
    if isinstance(states, XlOutcome):
        _printable(states)
    else:
        assert all(isinstance(state, GuestState) and domid >= 0 for domid, state in states.items())
    assert parse_passthrough(text) in (None, True, False)
    info = parse_info(text)
    assert isinstance(info, XlOutcome) or info


def _printable(outcome: XlOutcome) -> None:
    assert outcome.text.isprintable(), outcome.text
