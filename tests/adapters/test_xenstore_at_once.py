"""Replacing a node at once, against a scripted xenstored; the real one: test_xenstore_real.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.adapters.scripted_xenstored import Peer, against, hang

from xenplug.adapters import xenstore as xs
from xenplug.adapters.xenstore import Xenstore


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(xs.START, b"5\0"), (xs.READ, b"old"), (xs.WRITE, b"OK\0"), (xs.END, b"OK\0")], True),
        ([(xs.START, b"5\0"), (xs.READ, b"another")], False),
        ([(xs.START, b"5\0"), (xs.ERROR, b"ENOENT\0")], False),
        ([(xs.START, b"5\0"), (xs.READ, b"old"), (xs.WRITE, b"OK\0"), (xs.ERROR, b"EAGAIN\0")], False),
        ([(xs.ERROR, b"ENOSPC\0")], False),
        ([(xs.START, b"five\0")], False),
        ([(xs.START, b"99999999999\0")], False),
        ([(xs.START, b"5\0"), (xs.READ, b"old")], False),
    ],
    ids=["done", "another value", "no such node", "another writer", "refused", "garbled", "too great", "hung up"],
)
def test_replacing_at_once(tmp_path: Path, answers: list[tuple[int, bytes]], expected: bool) -> None:
    lost: list[str] = []
    connections = 0

    async def script(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:  # the one that stands
            await hang(peer)
        for kind, payload in answers:
            await peer.answer(payload, kind)

    async def client(store: Xenstore) -> bool:
        await asyncio.sleep(0.01)
        return await asyncio.to_thread(store.replace_at_once, "/p", "old", "")

    assert against(tmp_path, script, client, lost) is expected
    assert connections == 2
    assert lost == []


def test_the_agent_waits_only_once_for_a_slow_xenstored(tmp_path: Path) -> None:
    """The loop is blocked meanwhile, so it is tried again only after a `replace` was answered."""
    started = 0

    async def script(peer: Peer) -> None:
        nonlocal started
        while True:
            kind, number, _, _ = await peer.request()
            started += kind == xs.START
            if started != 1:
                await peer.grant(kind, number)

    async def client(store: Xenstore) -> list[bool]:
        async def at_once() -> bool:
            return await asyncio.to_thread(store.replace_at_once, "/p", "old", "")

        found = [await at_once(), await at_once()]
        assert started == 1, "the second was not even tried"
        return [*found, await store.replace("/p", "old", ""), await at_once()]

    assert against(tmp_path, script, client, []) == [False, False, True, True]


def test_nothing_at_once_without_a_connection(tmp_path: Path) -> None:
    assert Xenstore(str(tmp_path / "socket")).replace_at_once("/p", "old", "") is False
