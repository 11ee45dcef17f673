"""A live control server in a thread of its own, for tests that talk to it over its real socket."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xenplug.adapters.control import ControlServer, Limits, Refused, SocketFile

STATUS = b'{"method":"org.xenplug.Status"}\0'
MONITOR = b'{"method":"org.xenplug.Monitor","more":true}\0'


class Agent:
    """Plain answers of an agent. `ended` counts the monitor streams that were closed."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.attaching = threading.Event()
        self.attached = threading.Event()
        self.monitoring = threading.Event()
        self.ended = threading.Event()
        self.long, self.told, self.unread = 3, 0, 0
        """How many events there are; how many were read; how many of other devices come before each."""

    def handlers(self) -> dict[str, Any]:
        return {
            "Status": self.status,
            "Devices": self.devices,
            "Explain": self.explain,
            "Attach": self.attach,
            "Prefer": self.prefer,
            "Reload": self.reload,
            "History": self.history,
            "Monitor": self.monitor,
        }

    async def status(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return {"status": {"version": "1", "devices": []}}

    async def devices(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return {"devices": [{"port": "1-4", "padding": "x" * 500_000}]}

    async def explain(self, parameters: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError("a bug")

    async def attach(self, parameters: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(("Attach", parameters))
        if parameters["device"] == "1-9":
            raise Refused("protected", "1-9 is protected: it holds /; nothing gives it away")
        self.attaching.set()
        await asyncio.sleep(0.05)
        self.attached.set()
        return {"message": f"{parameters['device']} is in {parameters['guest']}"}

    async def prefer(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return {"message": str(parameters["guest"])}

    async def reload(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return {"message": "bad", "problems": [float("nan")]}  # cannot be JSON: a handler's bug too

    async def history(self, parameters: dict[str, Any]) -> AsyncIterator[dict[str, Any] | None]:
        for number in range(self.long):
            for _ in range(self.unread):
                json.loads(json.dumps({"event": list(range(50))}))
                yield None
            self.told += 1
            yield {"event": {"n": number, "device": parameters["device"]}}

    async def monitor(self, parameters: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        try:
            yield {"status": {"n": 1}}
            self.monitoring.set()
            await asyncio.sleep(3600)
        finally:
            self.ended.set()


class Live:
    """Where the server is, and plain ways to talk to it."""

    def __init__(self, path: Path, agent: Agent, stopped: threading.Event) -> None:
        self.path = path
        self.agent = agent
        self.stopped = stopped

    def connect(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(10)
        line.connect(str(self.path))
        return line

    def ask(self, data: bytes) -> list[dict[str, Any]]:
        """Send, end sending, and give all replies until the server closes."""
        with self.connect() as line:
            try:
                line.sendall(data)
                line.shutdown(socket.SHUT_WR)
            except OSError:
                return []
            return replies(line)

    def works(self) -> bool:
        [reply] = self.ask(STATUS)
        return reply == {"parameters": {"status": {"version": "1", "devices": []}}}


def replies(line: socket.socket) -> list[dict[str, Any]]:
    """Everything until the end of the connection."""
    data = b""
    with suppress(ConnectionResetError):  # closed with our bytes unread
        while more := line.recv(65536):
            data += more
    assert data.endswith(b"\0") or not data
    return [json.loads(part) for part in data.split(b"\0")[:-1]]


def one(line: socket.socket) -> dict[str, Any]:
    """The next reply."""
    data = b""
    while not data.endswith(b"\0"):
        more = line.recv(1)
        assert more, "closed"
        data += more
    result = json.loads(data[:-1])
    assert isinstance(result, dict)
    return result


@contextmanager
def live(place: SocketFile, limits: Limits | None = None) -> Iterator[Live]:
    """A server at `place` until the end of the block; errors in its loop fail the test."""
    agent, started, done, schema_errors = Agent(), threading.Event(), asyncio.Event(), []
    loops: list[asyncio.AbstractEventLoop] = []
    stopped = threading.Event()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: schema_errors.append(context))
        loops.append(loop)
        server = ControlServer(agent.handlers(), place, limits)
        await server.start()
        started.set()
        await done.wait()
        await server.stop()
        stopped.set()

    def run() -> None:
        try:
            asyncio.run(serve())
        except Exception as error:
            schema_errors.append({"exception": error})
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    assert not schema_errors, schema_errors
    try:
        yield Live(place.path, agent, stopped)
    finally:
        loops[0].call_soon_threadsafe(done.set)
        thread.join(10)
    assert stopped.is_set()
    assert not schema_errors
