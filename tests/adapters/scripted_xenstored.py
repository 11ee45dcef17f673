"""A scripted xenstored, for behaviour that a real one never shows."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from xenplug.adapters import xenstore as xs
from xenplug.adapters.xenstore import Xenstore

HEADER = struct.Struct("=IIII")
Message = tuple[int, int, int, bytes]
Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The other end of one connection: receives requests and sends whatever the script says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> Message:
        kind, number, transaction, length = HEADER.unpack(await self.reader.readexactly(HEADER.size))
        return kind, number, transaction, await self.reader.readexactly(length)

    async def send(self, kind: int, number: int, payload: bytes, length: int | None = None) -> None:
        size = len(payload) if length is None else length
        self.writer.write(HEADER.pack(kind, number, 0, size) + payload)
        await self.writer.drain()

    async def grant(self, kind: int, number: int) -> None:
        """Answer a request of a transaction as xenstored does when all goes well; every node holds "old"."""
        await self.send(kind, number, {xs.START: b"5\0", xs.READ: b"old"}.get(kind, b"OK\0"))

    async def answer(self, payload: bytes, kind: int | None = None) -> Message:
        message = await self.request()
        await self.send(message[0] if kind is None else kind, message[1], payload)
        return message


def against(tmp_path: Path, script: Script, client: Callable[[Xenstore], Awaitable[Any]], lost: list[str]) -> Any:
    """Run the client against a peer that follows the script and then hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await script(Peer(reader, writer))
        writer.close()

    async def both() -> Any:
        async with await asyncio.start_unix_server(serve, tmp_path / "socket"):
            store = Xenstore(str(tmp_path / "socket"), lambda: lost.append("lost"))
            await store.connect()
            try:
                return await asyncio.wait_for(client(store), 5)
            finally:
                store.close()
                await asyncio.sleep(0.01)

    return asyncio.run(both())


async def hang(peer: Peer) -> None:
    await peer.reader.read()
