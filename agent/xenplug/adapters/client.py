"""The client of the control socket, for the commands: one blocking call at a time, and quick to import (no asyncio).

Each call has a connection of its own. The wire format is Varlink's (varlink.py has the other side); methods of
org.xenplug are named without their interface. Every error is a ClientError whose text is the fact and the remedy.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xenplug.adapters.host_system import this_host

SOCKET = Path("/run/xenplug/control.sock")
MAX_REPLY_BYTES = 64 * 2**20
"""Maximum bytes of a reply; no agent sends more."""


class ClientError(Exception):
    """The agent cannot be reached, or it refused."""


class NoAgent(ClientError):
    """No agent answers at the socket."""


class NotPermitted(ClientError):
    """The socket or the agent does not admit this user."""


class NoAnswer(ClientError):
    """An agent is there, but sent no reply or an invalid one."""


class RemoteError(ClientError):
    """The agent's error reply: its name and parameters. The text is its reason."""

    def __init__(self, error: str, parameters: dict[str, Any]) -> None:
        self.error = error
        self.parameters = parameters
        self.cause: str | None = parameters.get("cause")
        detail = ", ".join(str(value) for value in parameters.values())
        unknown = f"the agent answered {error} ({detail}); are agent and command of the same version?"
        super().__init__(str(parameters.get("reason", unknown)))


class Client:
    """Calls the agent at `path`. `timeout`: seconds for an answer (an attach waits for xl and for delivery)."""

    def __init__(self, path: Path = SOCKET, timeout: float = 90.0) -> None:
        self._path = path
        self._timeout = timeout

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The reply of one method. Raises ClientError."""
        with self._connected() as line:
            line.sendall(_request(method, parameters, more=False))
            for message in _messages(line):
                return _parameters(message)
        raise self._silent()

    def stream(self, method: str, **parameters: Any) -> Generator[dict[str, Any], None, None]:
        """The replies of a method that sends several, until its end or close(). May wait for ever. Raises
        ClientError.
        """
        with self._connected() as line:
            line.sendall(_request(method, parameters, more=True))
            line.settimeout(None)
            for message in _messages(line):
                reply = _parameters(message)
                if reply:
                    yield reply
                if not message.get("continues"):
                    return
        raise self._silent()

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            try:
                self._connect(line)
            except PermissionError:
                raise NotPermitted(self._not_permitted()) from None
            except BlockingIOError:
                raise NoAnswer(self._busy()) from None
            except OSError as error:
                raise NoAgent(self._no_agent(error)) from None
            try:
                yield line
            except TimeoutError:
                text = f"the agent at {self._path} did not answer within {self._timeout:g} s; see {this_host().log()}"
                raise NoAnswer(text) from None
            except OSError as error:
                raise self._silent() from error

    def _connect(self, line: socket.socket) -> None:
        """Connect. The kernel serves processes that wait in connect(2) for a place in the agent's queue in order; with
        Python's timeout there would be no waiting (unix(7): EAGAIN). Raises OSError; BlockingIOError if no place came
        free in time.
        """
        seconds, rest = divmod(self._timeout, 1)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), max(1, int(rest * 1e6))))
        line.connect(os.fspath(self._path))
        line.settimeout(self._timeout)

    def _busy(self) -> str:
        return (
            f"the agent at {self._path} is busy: too many connections wait for it ({self._timeout:g} s);"
            " try again, and see who connects with: ss -xp"
        )

    def _no_agent(self, error: OSError) -> str:
        known = isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError)
        why = "" if known else f" ({error.strerror or error})"
        return f"no agent answers at {self._path}{why}; {this_host().start_it()} (or xenplug run)"

    def _not_permitted(self) -> str:
        group = self._group()
        who = f"root and group {group}" if group else "root"
        join = f", or join the group: {this_host().join_group(group)}" if group else ""
        return f"the agent at {self._path} answers only {who}; use sudo{join}"

    def _group(self) -> str | None:
        import grp  # only this error needs it

        try:
            gid = self._path.stat().st_gid
            return grp.getgrgid(gid).gr_name if gid else None
        except (OSError, KeyError):
            return None

    def _silent(self) -> NoAnswer:
        text = f"the agent at {self._path} closed the connection without an answer; see {this_host().log()}"
        return NoAnswer(text)


def _request(method: str, parameters: dict[str, Any], *, more: bool) -> bytes:
    name = method if "." in method else f"org.xenplug.{method}"
    message: dict[str, Any] = {"method": name, "parameters": parameters}
    if more:
        message["more"] = True
    return json.dumps(message).encode("ascii") + b"\0"


def _messages(line: socket.socket) -> Iterator[dict[str, Any]]:
    """The replies, until the agent closes the connection. Raises OSError, NoAnswer."""
    held = bytearray()
    while data := line.recv(65536):
        start = len(held)
        held += data
        while (end := held.find(b"\0", start)) >= 0:
            yield _message(bytes(held[:end]))
            del held[: end + 1]
            start = 0
        if len(held) > MAX_REPLY_BYTES:
            raise NoAnswer(
                f"a reply of more than {MAX_REPLY_BYTES} bytes; no agent sends this: see what listens at the socket"
            )


def _message(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or not isinstance(message.get("parameters") or {}, dict):
        raise NoAnswer("the answer is not valid Varlink; see what listens at the socket")
    return message


def _parameters(message: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a reply. Raises RemoteError, NotPermitted."""
    parameters: dict[str, Any] = message.get("parameters") or {}
    error = message.get("error")
    if error is None:
        return parameters
    if parameters.get("cause") == "not_permitted":
        raise NotPermitted(str(parameters.get("reason")))
    raise RemoteError(str(error), parameters)
