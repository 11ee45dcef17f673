"""QEMU's monitor over its socket, one short connection per command: the emulated machine's own, which is how USB
devices are plugged and pulled, and how the machine is saved."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.config import LabError


class QmpError(LabError):
    """QEMU refused a command."""


def execute(path: Path, command: str, arguments: Mapping[str, Any], timeout: float = 60) -> Any:
    """Runs one QMP command on the monitor socket `path`; QmpError with QEMU's own words when it refuses."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(timeout)
        link.connect(str(path))
        with link.makefile("rw") as stream:
            answer(stream)  # the greeting
            for name, values in (("qmp_capabilities", {}), (command, arguments)):
                stream.write(json.dumps({"execute": name, "arguments": dict(values)}) + "\n")
                stream.flush()
                reply = answer(stream)
                if "error" in reply:
                    raise QmpError(f"{name} {values}: {reply['error']['desc']}")
    return reply["return"]


def answer(stream: Any) -> dict[str, Any]:
    """The next message that is not an event."""
    while line := stream.readline():
        message: dict[str, Any] = json.loads(line)
        if "event" not in message:
            return message
    raise QmpError("the emulator closed its monitor")


def human(path: Path, text: str, timeout: float = 60) -> str:
    """A human monitor command and what it printed (errors are text as well)."""
    return str(execute(path, "human-monitor-command", {"command-line": text}, timeout))
