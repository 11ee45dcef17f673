"""`xenplug run` as its own process on the bench: real libudev, real xl, real xenstored, all on the testbed's sysfs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xenplug.adapters.client import Client, ClientError

from .toolstack import BenchToolstack
from .usb import Testbed
from .wait import until

AGENT = Path(__file__).resolve().parents[2] / "agent"


class AgentProcess:
    """One agent. `settings` are those of the settings file, besides what the bench needs."""

    def __init__(self, toolstack: BenchToolstack, testbed: Testbed, policy: str, times: str = "{}") -> None:
        self._toolstack, self._testbed = toolstack, testbed
        self.folder = toolstack.scratch / "xenplug"
        self.folder.mkdir(exist_ok=True)
        self.policy = self.folder / "policy.yaml"
        self.policy.write_text(policy)
        self.socket = self.folder / "control.sock"
        self.log = self.folder / "log"
        self.xl_path = toolstack.xl_path
        self._settings = self.folder / "settings.yaml"
        self._times = times
        self.more: dict[str, object] = {}
        """Further settings, by group."""
        self._process: subprocess.Popen[bytes] | None = None

    def _settings_text(self, times: str) -> str:
        return json.dumps(
            {
                "version": "1",
                "state": str(self.folder / "state"),
                "toolstack": {"xl": str(self.xl_path)},
                "control": {"socket": str(self.socket)},
                "history": {"file": str(self.folder / "history.jsonl")},
                "paths": {"dev": str(self._testbed.dev_folder), "xen_lib": str(self._toolstack.xen_lib)},
                "times": json.loads(times),
                **self.more,
            }
        )

    def argv(self, *words: str) -> list[str]:
        """A command line of xenplug with the bench's settings."""
        return [sys.executable, "-m", "xenplug", *words, "--settings", str(self._settings)]

    def environment(self) -> Mapping[str, str]:
        """The environment in which the agent's process uses the bench as its host."""
        path = {"PYTHONPATH": str(AGENT)}
        return os.environ | path | self._testbed.environment() | self._toolstack.environment()

    def start(self, *words: str) -> None:
        """Start and wait until it answers."""
        self.launch(*words)
        until(self._answers, 20, "the agent's answer")

    def launch(self, *words: str) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        self._settings.write_text(self._settings_text(self._times))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv("run", "--policy", str(self.policy), *words),
                env=self.environment(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        return self._process

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"the agent ended: {self.log.read_text()}")
        try:
            self.status()
        except ClientError:
            return False
        return True

    @property
    def pid(self) -> int:
        """The process id of the running agent."""
        if self._process is None:
            raise AssertionError("no agent was started")
        return self._process.pid

    @property
    def client(self) -> Client:
        """A client of its socket."""
        return Client(self.socket)

    def status(self) -> dict[str, Any]:
        """`status --json`."""
        status: dict[str, Any] = self.client.call("Status")["status"]
        return status

    def device(self, port: str) -> dict[str, Any]:
        """One device of the status; {"state": "absent"} if it is not plugged in."""
        return next((d for d in self.status()["devices"] if d["port"] == port), {"state": "absent"})

    def wait_for(self, port: str, seconds: float = 8.0, **expected: object) -> dict[str, Any]:
        """Wait until the device is in this state; AssertionError with its actual state and the log."""

        def stands() -> bool:
            found = self.device(port)
            return all(found.get(key) == value for key, value in expected.items())

        try:
            until(stands, seconds)
        except AssertionError as error:
            found = {key: self.device(port).get(key) for key in (*expected, "state", "cause", "reason", "guest")}
            raise AssertionError(f"{port}: expected {expected}, is {found}\n{self.log.read_text()}") from error
        return self.device(port)

    def _deaf(self, how: signal.Signals) -> bool:
        """The signal waits for ever: umockdev blocks all signals in its calls, and keeps the mask to go back to
        in one place for all threads (umockdev-preload.c: TRAP_PATH_LOCK), so that two of them may leave one blocked.
        """
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        blocked = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:"))
        return bool(blocked >> (how - 1) & 1)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal; its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(how)
        try:
            code = self._process.wait(20)
        except subprocess.TimeoutExpired:
            if not self._deaf(how):
                raise
            self._process.kill()
            code = self._process.wait(20)
        self._process = None
        return code
