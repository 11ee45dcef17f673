"""The parser of recordings: every text is read, or refused with its line and a remedy."""

from __future__ import annotations

from collections.abc import Iterable

from tests.recordings import MOUSE

from xenplug.adapters import recording
from xenplug.core.usb.device import describe

TOKENS = [
    b"P: /devices/",
    b"A: ",
    b"E: ",
    b"H: ",
    b"L: ",
    b"=",
    b"\\377",
    b"\\",
    b"descriptors",
    b"/usb1/1-4",
    b"1-4:1.0",
    b"/../",
]


def seeds() -> Iterable[bytes]:
    """The shipped recordings."""
    yield from (file.read_bytes() for file in sorted(MOUSE.parent.glob("*.umockdev")))


def read(data: bytes) -> None:
    """Parse it, and describe the devices in it."""
    try:
        blocks = recording.parse(data.decode("utf-8", "surrogateescape"), "a.umockdev")
    except ValueError as problem:
        assert str(problem).startswith("a.umockdev:"), problem
        return
    for raw in recording.recorded_devices(blocks):
        describe(raw)
    recording.recorded_controllers(blocks)
