"""Xenstore against a scripted xenstored, for behaviour that a real one never shows; the real one:
test_xenstore_real.py.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.scripted_xenstored import HEADER, Message, Peer, against, hang

from xenplug.adapters import xenstore as xs
from xenplug.adapters.xenstore import NoStore, StoreError, Xenstore, default_socket
from xenplug.core.protocols import StoreLost


def test_replies_find_their_requests_in_any_order(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        asked = [await peer.request() for _ in range(3)]
        for kind, number, _, payload in reversed(asked):
            await peer.send(kind, number, b"value of " + payload.rstrip(b"\0"))
        await hang(peer)

    async def client(store: Xenstore) -> list[str | None]:
        return await asyncio.gather(store.read("/a"), store.read("/b"), store.read("/c"))

    assert against(tmp_path, script, client, []) == ["value of /a", "value of /b", "value of /c"]


def test_messages_may_come_in_pieces(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        kind, number, _, _ = await peer.request()
        for byte in HEADER.pack(kind, number, 0, 5) + b"hello":
            peer.writer.write(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0.001)
        await hang(peer)

    assert against(tmp_path, script, lambda store: store.read("/a"), []) == "hello"


def test_events_come_between_request_and_reply_and_go_by_token(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        kind, number, _, payload = await peer.request()
        token = payload.split(b"\0")[1]
        await peer.send(xs.WATCH_EVENT, 0, b"/a\0" + token + b"\0")
        await peer.send(kind, number, b"OK\0")
        kind, number, _, _ = await peer.request()
        await peer.send(xs.WATCH_EVENT, 0, b"/a/b\0" + token + b"\0")
        await peer.send(xs.WATCH_EVENT, 0, b"/a/b\0" + token + b"\0")
        await peer.send(xs.WATCH_EVENT, 0, b"/other\0nobody\0")
        await peer.send(kind, number, b"x")
        await hang(peer)

    fired: list[str] = []

    async def client(store: Xenstore) -> None:
        await store.watch("/a", fired.append)
        await store.read("/b")

    against(tmp_path, script, client, [])
    assert fired == ["/a", "/a/b", "/a/b"], "first firing and duplicates included"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(lambda peer, number: peer.send(xs.READ, number + 7, b"x"), id="unknown request id"),
        pytest.param(lambda peer, number: peer.send(xs.WRITE, number, b"x"), id="reply of another type"),
        pytest.param(lambda peer, number: peer.send(xs.READ, number, b"", length=4097), id="payload too long"),
        pytest.param(lambda peer, number: peer.send(xs.WATCH_EVENT, 0, b"/no/token"), id="event without token"),
        pytest.param(lambda peer, number: peer.send(xs.READ, number, b"abc", length=9), id="end within a message"),
    ],
)
def test_a_violation_of_the_protocol_ends_the_connection(tmp_path: Path, reply: Any) -> None:
    lost: list[str] = []

    async def script(peer: Peer) -> None:
        _, number, _, _ = await peer.request()
        await reply(peer, number)

    async def client(store: Xenstore) -> None:
        waiting = [asyncio.create_task(store.read(path)) for path in ("/a", "/b")]
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [StoreLost, StoreLost]
        with pytest.raises(StoreLost, match="connect again"):
            await store.read("/c")

    against(tmp_path, script, client, lost)
    assert lost == ["lost"], "called once"


def test_after_a_loss_connect_starts_again_without_watches(tmp_path: Path) -> None:
    lost: list[str] = []

    async def script(peer: Peer) -> None:
        message = await peer.answer(b"OK\0")
        if message[0] != xs.WATCH:
            await hang(peer)

    async def client(store: Xenstore) -> str | None:
        await store.watch("/a", lambda path: None)
        while not lost:
            await asyncio.sleep(0.001)
        with pytest.raises(StoreLost):
            await store.watch("/a", lambda path: None)
        await store.connect()
        return await store.read("/a")

    assert against(tmp_path, script, client, lost) == "OK\0"
    assert lost == ["lost"]


def test_close_is_no_loss_but_ends_pending_calls(tmp_path: Path) -> None:
    lost: list[str] = []

    async def client(store: Xenstore) -> None:
        waiting = asyncio.create_task(store.read("/a"))
        await asyncio.sleep(0.01)
        store.close()
        with pytest.raises(StoreLost, match="closed"):
            await waiting

    against(tmp_path, hang, client, lost)
    assert lost == []


def test_the_reply_to_a_cancelled_call_is_dropped(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        first, second = await peer.request(), await peer.request()
        await peer.send(first[0], first[1], b"late")
        await peer.send(second[0], second[1], b"fine")
        await hang(peer)

    async def client(store: Xenstore) -> str | None:
        with suppress(TimeoutError):
            await asyncio.wait_for(store.read("/a"), 0.01)
        return await store.read("/b")

    assert against(tmp_path, script, client, []) == "fine"


@pytest.mark.parametrize("served", [0, 1, 2])
def test_a_cancelled_replace_leaves_no_transaction_open(tmp_path: Path, served: int) -> None:
    """Cancelled while waiting for the transaction, for the value, for its end."""
    seen: list[tuple[int, bytes]] = []
    replies = [b"77\0", b"old", b"OK\0", b"OK\0"]

    async def script(peer: Peer) -> None:
        kept: list[Message] = []
        while True:
            kind, number, transaction, payload = await peer.request()
            seen.append((kind, payload))
            assert kind == xs.START or transaction == 77
            if len(seen) <= served:
                await peer.send(kind, number, replies[len(seen) - 1])
            else:
                kept.append((kind, number, 0, b"77\0" if kind == xs.START else b"OK\0"))
                await asyncio.sleep(0.1)
                kind, number, _, payload = kept.pop()
                await peer.send(kind, number, payload)

    async def client(store: Xenstore) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.replace("/p", "old", "new"), 0.05)
        await asyncio.sleep(0.35)

    against(tmp_path, script, client, [])
    ends = [payload for kind, payload in seen if kind == xs.END]
    assert ends == ([b"T\0"] if served == 2 else [b"F\0"])


@pytest.mark.parametrize("conflicts", [0, 3, 100])
def test_a_transaction_that_met_another_is_tried_again_for_a_while(tmp_path: Path, conflicts: int) -> None:
    starts = 0

    async def script(peer: Peer) -> None:
        nonlocal starts
        while True:
            kind, number, _, _ = await peer.request()
            starts += kind == xs.START
            if kind == xs.END and starts <= conflicts:
                await peer.send(xs.ERROR, number, b"EAGAIN\0")
            else:
                await peer.grant(kind, number)

    def replace() -> Any:
        return against(tmp_path, script, lambda store: store.replace("/p", "old", ""), [])

    if conflicts < xs.REPLACE_TRIES:
        assert replace() is True
        assert starts == conflicts + 1
    else:
        with pytest.raises(StoreError, match="EAGAIN"):
            replace()
        assert starts == xs.REPLACE_TRIES


def test_another_refusal_is_reported_by_its_name(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(b"EACCES\0", xs.ERROR)
        await peer.answer(b"5\0")
        await peer.answer(b"EIO\0", xs.ERROR)
        await hang(peer)

    async def client(store: Xenstore) -> None:
        with pytest.raises(StoreError, match="/a: EACCES") as refused:
            await store.read("/a")
        assert refused.value.code == "EACCES"
        with pytest.raises(StoreError, match="EIO"):
            await store.replace("/a", "x", "y")

    against(tmp_path, script, client, [])


@pytest.mark.parametrize("path", ["", "/a:b", "/a.b", "/a b", "/a\0b", "/a/", "//a", "/é", "/a\n", "a" * 5000])
def test_an_invalid_path_is_never_sent(tmp_path: Path, path: str) -> None:
    async def client(store: Xenstore) -> None:
        calls = (
            store.read(path),
            store.directory(path),
            store.write(path, ""),
            store.remove(path),
            store.replace(path, "", ""),
            store.watch(path, lambda path: None),
        )
        for call in calls:
            with pytest.raises(ValueError, match="xenstore: "):
                await call
        await store.unwatch(path)

    async def nothing(peer: Peer) -> None:
        assert await peer.reader.read() == b""

    against(tmp_path, nothing, client, [])


def test_a_value_too_long_is_never_sent(tmp_path: Path) -> None:
    async def client(store: Xenstore) -> None:
        with pytest.raises(ValueError, match="4099 bytes; the limit is 4096"):
            await store.write("/a", "x" * 4096)

    against(tmp_path, hang, client, [])


def refused(path: Path) -> str:
    with pytest.raises(NoStore) as caught:
        asyncio.run(Xenstore(str(path)).connect())
    assert isinstance(caught.value, StoreLost), "whoever tries again on a loss tries again on this"
    return str(caught.value)


def test_no_socket(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == (
        f"xenstore: no socket at {tmp_path}/none (this host does not run Xen?); start Xen, or use --toolstack simulated"
    )


def test_nothing_listens(tmp_path: Path) -> None:
    async def leave_a_socket() -> None:
        server = await asyncio.start_unix_server(lambda reader, writer: None, tmp_path / "left")
        server.close()

    asyncio.run(leave_a_socket())
    (tmp_path / "left").touch()
    assert "nothing listens" in refused(tmp_path / "left")


def test_other_obstacles(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot connect to" in refused(tmp_path / "file" / "socket")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_permission(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        assert "run as root" in refused(closed / "socket")
    finally:
        os.seteuid(0)


def test_where_the_socket_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XENSTORED_PATH", "/elsewhere")
    assert default_socket() == "/elsewhere"
    monkeypatch.delenv("XENSTORED_PATH")
    (tmp_path / "second").touch()
    monkeypatch.setattr(xs, "SOCKET_PATHS", (str(tmp_path / "first"), str(tmp_path / "second")))
    assert default_socket() == str(tmp_path / "second")
    (tmp_path / "second").unlink()
    assert default_socket() == str(tmp_path / "first")
