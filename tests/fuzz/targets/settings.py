"""The settings: every text is read, or refused with problems and positions."""

from __future__ import annotations

from collections.abc import Iterable

from xenplug.core.settings import SETTING_READERS, load

TOKENS = [f"{key.rpartition('.')[2]}: ".encode() for key in SETTING_READERS] + [
    b"1e9",
    b"10s",
    b"/run/x",
    b"detach",
    b"-5",
    b"9" * 400,
]


def seeds() -> Iterable[bytes]:
    """Settings with a key in every group."""
    yield b"version: 1\non_stop: detach\nhand_over: plain\ntimes:\n  settle: 1500ms\n  give_up: 3\n"
    yield b"version: 1\ntoolstack: {xl: /usr/sbin/xl}\ncontrol: {socket: /run/a, group: usb}\nhistory: {size: 2M}\n"


def read(data: bytes) -> None:
    """Load them."""
    settings, _origins, problems = load(data, "a.yaml")
    assert settings.times.xl > 0
    for problem in problems:
        assert str(problem).isprintable()
