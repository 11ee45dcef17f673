"""What reaches a service manager, on a real datagram socket."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xenplug.adapters import notify
from xenplug.adapters.notify import Notifier


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    address = str(tmp_path / "n") if request.param == "file" else f"@xenplug-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0"))
        listener.settimeout(5)
        yield address, listener


def test_messages(manager: tuple[str, socket.socket]) -> None:
    address, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    for send, expected in (
        (notifier.ready, "READY=1"),
        (notifier.stopping, "STOPPING=1"),
        (notifier.alive, "WATCHDOG=1"),
        (lambda: notifier.status("two lines\nREADY=1 \ud800"), "STATUS=two lines READY=1 ?"),
    ):
        assert send()
        assert listener.recv(1000).decode() == expected
    assert notifier.reloading()
    stamp = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", listener.recv(1000).decode())
    assert stamp is not None
    assert abs(int(stamp[1]) / 1e6 - time.monotonic()) < 5


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "/no"}]
)
def test_nothing_listens(environ: dict[str, str]) -> None:
    assert not Notifier(environ).ready()


def test_a_full_queue_does_not_block(manager: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "SEND_TIME", 0.05)
    notifier = Notifier({"NOTIFY_SOCKET": manager[0]})
    for _ in range(10_000):
        if not notifier.alive():
            return
    raise AssertionError("a queue without end")


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({"WATCHDOG_USEC": str(2**64 - 1)}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier(environ).watchdog_interval == interval
