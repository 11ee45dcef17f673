"""Notifies the service manager: sd_notify(3) without libsystemd.

The daemon reports ready, reloading, stopping, its one-line status, and that it is alive. Without $NOTIFY_SOCKET (not
started by systemd) nothing is sent. The address is a Unix datagram socket, abstract if it begins with "@".
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

SEND_TIME = 1.0
"""Seconds to wait for a service manager that does not receive messages: it must not delay the agent."""


class Notifier:
    """The connection to the service manager named in the environment."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = address if address[:1] in ("/", "@") else ""
        self.watchdog_interval = _watchdog_interval(environ)
        """Seconds between alive() calls: half of what the service manager allows; None without a watchdog."""

    def ready(self) -> bool:
        """The start, or a reload, is complete."""
        return self.send("READY=1")

    def reloading(self) -> bool:
        """A reload starts; ready() must follow. Type=notify-reload matches the time to its SIGHUP."""
        return self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> bool:
        """The agent is about to end."""
        return self.send("STOPPING=1")

    def status(self, text: str) -> bool:
        """The status line of `systemctl status`."""
        return self.send("STATUS=" + " ".join(text.split()))

    def alive(self) -> bool:
        """Notify the watchdog that the agent is alive."""
        return self.send("WATCHDOG=1")

    def send(self, *lines: str) -> bool:
        """Send assignments. False if no service manager listens; never raises."""
        if not self._address:
            return False
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.settimeout(SEND_TIME)
                line.sendto("\n".join(lines).encode("utf-8", "replace"), address)
        except OSError:
            return False
        return True


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """From $WATCHDOG_USEC, unless $WATCHDOG_PID says it is meant for another process (sd_watchdog_enabled(3))."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdecimal() and 0 < int(microseconds[:20]) < 2**64 - 1):
        return None
    return int(microseconds) / 2_000_000
