"""`xenplug run --toolstack simulated` as a separate process, on a recording, with all its files in one folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RECORDINGS = Path(__file__).parent / "data/umockdev"
DESK = RECORDINGS / "desk.umockdev"
SOON = 30.0
"""Seconds that a test waits at most. Usually less than one is needed, unless the machine is busy."""


class LiveAgent:
    """The process, and what it reports to the service manager."""

    def __init__(self, folder: Path, host: Path = DESK) -> None:
        self.folder = folder
        self.host = host
        self.policy = folder / "policy.yaml"
        self.settings = folder / "xenplug.yaml"
        self.socket = folder / "c.sock"
        text = f"version: 1\nstate: {folder}/state\ncontrol: {{socket: {self.socket}}}\nhistory: {{file: {folder}/h}}\n"
        self.settings.write_text(text)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.settimeout(SOON)
        self._notify.bind(str(folder / "notify"))
        self.process: subprocess.Popen[str] | None = None
        self.log = ""

    def argv(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "xenplug", "run", "--toolstack", "simulated", "--host", str(self.host),
                "--policy", str(self.policy), "--settings", str(self.settings), *more]  # fmt: skip

    def start(self, *more: str) -> LiveAgent:
        environment = os.environ | {"NOTIFY_SOCKET": str(self.folder / "notify"), "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(self.argv(*more), env=environment, stderr=subprocess.PIPE, text=True)
        self.hear("READY=1")
        return self

    def hear(self, wanted: str) -> list[str]:
        """What the service manager receives, up to the wanted line."""
        received: list[str] = []
        while wanted not in received:
            received += self._notify.recv(4096).decode().splitlines()
        return received

    def send(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; the exit code. Its log is then in `log`."""
        assert self.process
        self.process.send_signal(number)
        self.log = self.process.communicate(timeout=SOON)[1]
        code, self.process = self.process.returncode, None
        return code

    def close(self) -> None:
        if self.process:
            self.end(signal.SIGKILL)
        self._notify.close()


@contextmanager
def agent(folder: Path, policy: str, host: Path = DESK) -> Iterator[LiveAgent]:
    """An agent that is ready."""
    live = LiveAgent(folder, host)
    live.policy.write_text(policy)
    try:
        yield live.start()
    finally:
        live.close()
