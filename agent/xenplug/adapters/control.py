"""The server of the control socket: answers the commands and other programs while the agent does its main work.

daemon.py passes in the handlers. The wire format is in varlink.py, the interface in org.xenplug.varlink, the socket
file and the peers in control_socket.py. Requests of one connection are answered in order, those of different
connections at the same time. Clients are not trusted: their requests are limited in size, time and number, and nothing
that they send, or fail to send, raises in the agent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xenplug import __version__
from xenplug.adapters import varlink
from xenplug.adapters.control_slots import Places, RequestQueue, Seat, Work
from xenplug.adapters.control_socket import (
    AlreadyRunning,
    Peer,
    SocketFile,
    SocketProblem,
    close_listener,
    group_name,
    may_act,
    open_listener,
    peer_of,
)
from xenplug.adapters.host_system import this_host
from xenplug.adapters.kept_folder import KeptFolder
from xenplug.adapters.requesters import UserNames, requested_by
from xenplug.adapters.varlink import Fault, Json, MethodCall, Refused, service_fault
from xenplug.core.reporting.orders import Requester, Way

__all__ = ["AlreadyRunning", "ControlServer", "Handler", "Limits", "Refused", "SocketFile", "SocketProblem"]

Handler = Callable[[Json], Awaitable[Json] | AsyncIterator[Json | None]]
"""Takes the checked parameters (absent optional ones are None). Returns the reply, or yields the replies of a stream,
and None when it has worked for a while without a reply.

May raise Refused. A call that has started is completed even if its client disconnects; a stream is cancelled."""

STREAMS = frozenset({"History", "Monitor"})
READING = frozenset({"Status", "Devices", "Explain"}) | STREAMS
"""Methods that only read, for everyone who can connect; all others change something."""
INTERFACE = "org.xenplug"
SERVICE = "org.varlink.service"
SLICE = 0.002
"""Seconds that a stream may send replies before others get their turn."""
ACCEPTS = 16
"""Connections accepted at a time, before the agent's own work continues."""
ACCEPT_QUEUE = 128
"""Connections that wait in the kernel to be accepted; further ones wait for a place in this queue, in order
(unix(7))."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for clients. Sizes in bytes, times in seconds."""

    message: int = 65536
    connections: int = 64
    """Half of them for peers that may only read. control_slots.py decides which one closes when all are in use."""
    message_time: float = 10.0
    """From the first byte of a request to its end. Between requests a client may be idle for ever."""
    write_time: float = 10.0
    """For the client to receive a reply."""


class _Gone(Exception):
    """The client disconnected, or was disconnected."""


class _Line:
    """One connection: whole messages in, whole replies out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> None:
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._socket: socket.socket = writer.get_extra_info("socket")
        # drain() then waits until everything is sent: for a client that does not read, only one reply is in memory.
        writer.transport.set_write_buffer_limits(high=0)

    def peer(self) -> Peer:
        """The client's credentials. Raises OSError."""
        return peer_of(self._socket)

    async def message(self) -> bytes:
        """The next request without its NUL. Raises _Gone at the end, and for a request that is too long or too slow."""
        try:
            first = await self._reader.readexactly(1)
            if first == b"\0":
                return b""
            async with asyncio.timeout(self._limits.message_time):
                rest = await self._reader.readuntil(b"\0")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError) as error:
            raise _Gone(type(error).__name__) from error
        return first + rest[:-1]

    async def reply(self, call: MethodCall, reply: Json) -> None:
        """Send a reply, unless the call wants none. Raises _Gone."""
        if call.oneway:
            return
        self._writer.write(varlink.encode(reply))
        try:
            async with asyncio.timeout(self._limits.write_time):
                await self._writer.drain()
        except (TimeoutError, OSError) as error:
            raise _Gone(type(error).__name__) from error

    @contextmanager
    def cancelled_by_hang_up(self) -> Iterator[None]:
        """Cancel this task when the client closes: a stream without events would not notice, and keep its slot for
        ever.

        An epoll registration without events reports a hang-up only; a client that has only stopped sending stays
        connected. It watches a duplicate of the socket, which stays open if asyncio closes its own first.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if self._writer.is_closing():
            raise _Gone("closed")
        with self._socket.dup() as copy, select.epoll() as watch:
            watch.register(copy.fileno(), 0)

            def hung_up() -> None:
                loop.remove_reader(watch.fileno())
                if task:
                    task.cancel()

            loop.add_reader(watch.fileno(), hung_up)
            try:
                yield
            finally:
                loop.remove_reader(watch.fileno())

    def close(self) -> None:
        """Close now."""
        self._writer.transport.abort()


class ControlServer:
    """Serves the socket at `place` from start() to stop()."""

    def __init__(self, handlers: Mapping[str, Handler], place: SocketFile, limits: Limits | None = None) -> None:
        self._place = place
        self._limits = limits or Limits()
        self._interfaces = {name: varlink.load_interface(name) for name in (SERVICE, INTERFACE)}
        self._handlers: dict[str, Handler] = {f"{INTERFACE}.{name}": handler for name, handler in handlers.items()}
        self._handlers[f"{SERVICE}.GetInfo"] = self._get_info
        self._handlers[f"{SERVICE}.GetInterfaceDescription"] = self._get_description
        self._names = UserNames()
        self._connections: set[asyncio.Task[None]] = set()
        self._places, self._turns = Places(self._limits.connections), RequestQueue()
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._inode = self._gid = 0
        self._folder = KeptFolder(place.path.parent)
        self._restoring = self._failing = False

    async def start(self) -> None:
        """Create the socket and listen. Raises SocketProblem (AlreadyRunning)."""
        self._listener = open_listener(self._place)
        self._folder.ensure()
        made = self._place.path.stat()
        self._inode, self._gid = made.st_ino, made.st_gid
        self._server = await asyncio.start_unix_server(
            self._connected, sock=self._listener, limit=self._limits.message, backlog=ACCEPTS
        )
        self._listener.listen(ACCEPT_QUEUE)  # asyncio has one number for both

    async def restore(self) -> None:
        """Make the socket again if it was removed or replaced; connections stay. A failure is logged once."""
        if self._server is None or self._listener is None or self._restoring or self._is_there():
            return
        self._restoring = True
        try:
            self._folder.ensure()
            server, listener = self._server, self._listener
            await self.start()
            asyncio.get_running_loop().remove_reader(listener.fileno())
            await _run_loop_iterations()
            server.close()
            log.warning("%s: the control socket was removed while the agent ran; it was made again", self._place.path)
            self._failing = False
        except (OSError, SocketProblem) as problem:
            if not self._failing:
                log.error("the control socket was removed, and cannot be made again: %s", problem)
            self._failing = True
        finally:
            self._restoring = False

    def _is_there(self) -> bool:
        try:
            return os.lstat(self._place.path).st_ino == self._inode
        except OSError:
            return False

    async def stop(self) -> None:
        """Close every connection and remove the socket."""
        if self._server is None or self._listener is None:
            return
        # Let accepted connections get their tasks first: asyncio fails on a connection whose server is closed by then.
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        await _run_loop_iterations()
        self._server.close()
        close_listener(self._listener, self._place.path, self._inode)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await _run_loop_iterations()  # asyncio closes a socket one iteration later
        self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = _Line(reader, writer, self._limits)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (asyncio runs this in a task)
        self._connections.add(task)
        try:
            await self._serve(line, task.cancel)
        except (_Gone, varlink.Malformed, OSError) as error:
            log.debug("control connection closed: %s", error)
        except asyncio.CancelledError:
            log.debug("control connection ended")
        finally:
            self._connections.discard(task)
            line.close()

    async def _serve(self, line: _Line, leave: Callable[[], object]) -> None:
        peer = line.peer()
        # If another file is there, its owner and group say nothing about who may act.
        acts = may_act(peer, self._place.path) if self._is_there() else peer.uid == 0
        seat = Seat(peer, acts, leave)
        if not self._places.admit(seat):
            raise _Gone("too many connections")
        try:
            while True:
                data = await line.message()
                self._places.used(seat)
                with seat.at(Work.CALL):
                    await self._turns.wait(seat)
                    await self._answer(line, data, seat)
        finally:
            self._places.free(seat)

    async def _answer(self, line: _Line, data: bytes, seat: Seat) -> None:
        """Answer one request."""
        call = MethodCall("", {})
        try:
            call = varlink.parse_call(data)
            await self._run(line, call, seat)
        except Fault as fault:
            await line.reply(call, fault.reply())
        except (_Gone, varlink.Malformed):
            raise
        except Exception:  # the boundary to clients: a bug in a handler must not end the agent
            log.exception("bug in the control method %.60r", call.method)
            reason = f"the agent failed on this request because of a bug; see {this_host().log()}"
            await line.reply(call, Fault(f"{INTERFACE}.InternalError", {"reason": reason}).reply())

    async def _run(self, line: _Line, call: MethodCall, seat: Seat) -> None:
        interface, method = self._find(call.method)
        parameters = interface.methods[method].check(call.parameters)
        handler = self._handlers.get(call.method)
        if handler is None or call.upgrade:
            raise service_fault("MethodNotImplemented", method=call.method)
        own = interface.name == INTERFACE
        acts = own and method not in READING
        if acts:
            self._admit(method, seat)
        with requested_by(await self._requester(seat, named=acts)):
            if own and method in STREAMS:
                with seat.at(Work.STREAM):
                    await self._stream(line, call, handler(parameters), seat)
                return
            answer: Any = handler(parameters)
            await line.reply(call, {"parameters": await answer})

    async def _requester(self, seat: Seat, *, named: bool) -> Requester:
        """The client; only an act is worth a look-up of the user's name."""
        peer = seat.peer
        name = await self._names.of(peer.uid) if named else None
        return Requester(Way.SOCKET, peer.uid, name, peer.pid, seat.acts)

    def _find(self, full_name: str) -> tuple[varlink.InterfaceDescription, str]:
        name, _, method = full_name.rpartition(".")
        interface = self._interfaces.get(name)
        if interface is None:
            raise service_fault("InterfaceNotFound", interface=name)
        if method not in interface.methods:
            raise service_fault("MethodNotFound", method=full_name)
        return interface, method

    def _admit(self, method: str, seat: Seat) -> None:
        if not seat.acts:
            group = group_name(self._gid)
            raise Refused(
                "not_permitted",
                f"{method} is for root and members of group {group}; use sudo, or join the group: "
                f"{this_host().join_group(group)}",
            )
        log.info("%s requested by process %d of user %d", method, seat.peer.pid, seat.peer.uid)

    async def _stream(self, line: _Line, call: MethodCall, replies: Any, seat: Seat) -> None:
        """Send each reply as it comes; after each SLICE others get their turn. The last message of a stream must not
        say `continues`, so it is an empty one.
        """
        now = asyncio.get_running_loop().time
        if not call.more:
            raise service_fault("ExpectedMore")
        with line.cancelled_by_hang_up():
            try:
                until = now() + SLICE
                async for reply in replies:
                    if now() > until:
                        await self._turns.wait(seat)
                        until = now() + SLICE
                    if reply is not None:
                        await line.reply(call, {"parameters": reply, "continues": True})
            finally:
                if hasattr(replies, "aclose"):
                    await replies.aclose()
        await line.reply(call, {"parameters": {}})

    async def _get_info(self, _parameters: Json) -> Json:
        return {
            "vendor": "xenplug",
            "product": "xenplug",
            "version": __version__,
            "url": "",
            "interfaces": list(self._interfaces),
        }

    async def _get_description(self, parameters: Json) -> Json:
        interface = self._interfaces.get(parameters["interface"])
        if interface is None:
            raise service_fault("InterfaceNotFound", interface=parameters["interface"])
        return {"description": interface.description}


async def _run_loop_iterations() -> None:
    for _ in range(6):  # accept, transport, connection_made, task
        await asyncio.sleep(0)
