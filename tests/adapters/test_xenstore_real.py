"""Xenstore against the real xenstored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from xenplug.adapters.xenstore import NoStore, StoreError, Xenstore
from xenplug.core.protocols import StoreLost


def real(toolstack: Any, client: Callable[[Xenstore], Awaitable[Any]]) -> Any:
    async def connected() -> Any:
        store = Xenstore(str(toolstack.socket))
        await store.connect()
        try:
            return await asyncio.wait_for(client(store), 10)
        finally:
            store.close()

    return asyncio.run(connected())


@pytest.mark.bench
def test_real_nodes(toolstack: Any) -> None:
    async def client(store: Xenstore) -> None:
        assert await store.read("/no/such") is None
        assert await store.directory("/no/such") == []
        await store.remove("/no/such")
        await store.write("/top/a", "1")
        await store.write("/top/b", "")
        assert sorted(await store.directory("/top")) == ["a", "b"]
        assert await store.directory("/top/a") == []
        assert (await store.read("/top/a"), await store.read("/top/b"), await store.read("/top")) == ("1", "", "")
        await store.remove("/top")
        assert await store.read("/top/a") is None
        assert await store.introduced(0)
        assert not await store.introduced(77)

    real(toolstack, client)


@pytest.mark.bench
def test_real_replace(toolstack: Any) -> None:
    async def client(store: Xenstore) -> None:
        await store.write("/p", "1-4")
        assert not await store.replace("/p", "1-5", "")
        assert await store.read("/p") == "1-4"
        assert not await store.replace("/gone", "", "x")
        assert await store.read("/gone") is None
        assert await store.replace("/p", "1-4", "")
        assert await store.read("/p") == ""

    real(toolstack, client)


@pytest.mark.bench
def test_real_concurrent_replaces_count_once_each(toolstack: Any) -> None:
    """Eight counters on two connections: every success is one step, none is lost."""

    async def count(store: Xenstore) -> int:
        done = 0
        for _ in range(10):
            now = await store.read("/n")
            with suppress(StoreError):
                done += await store.replace("/n", str(now), str(int(now or 0) + 1))
        return done

    async def client(store: Xenstore) -> None:
        await store.write("/n", "0")
        other = Xenstore(str(toolstack.socket))
        await other.connect()
        done = sum(await asyncio.gather(*(count(by) for by in (store, other) for _ in range(4))))
        other.close()
        assert done > 0
        assert await store.read("/n") == str(done)

    real(toolstack, client)


@pytest.mark.bench
def test_real_replaces_at_once(toolstack: Any) -> None:
    """Seen by the other connection with nothing between, and watched like any write."""
    fired: list[str] = []

    async def client(store: Xenstore) -> None:
        await store.write("/p", "1-4")
        await store.watch("/p", fired.append)
        assert not store.replace_at_once("/p", "1-5", "")
        assert not store.replace_at_once("/nowhere", "1-4", "")
        assert store.replace_at_once("/p", "1-4", "")
        assert await store.read("/p") == ""
        assert await store.read("/nowhere") is None
        assert fired == ["/p", "/p"]

    real(toolstack, client)


@pytest.mark.bench
def test_real_watches(toolstack: Any) -> None:
    fired: list[str] = []

    async def client(store: Xenstore) -> None:
        await store.watch("/w", fired.append)
        await store.write("/w/deep/er", "1")
        await store.write("/elsewhere", "1")
        await store.remove("/w")
        await store.read("/")
        assert fired[0] == "/w"
        assert "/w/deep/er" in fired
        assert fired[-1] in ("/w", "/w/deep/er")
        again: list[str] = []
        await store.watch("/w", again.append)
        await store.write("/w", "2")
        await store.read("/")
        assert set(again) == {"/w"}
        assert len(again) == 2
        fired.clear()
        await store.unwatch("/w")
        await store.write("/w", "3")
        await store.read("/")
        assert (fired, len(again)) == ([], 2)
        await store.watch("/w", fired.append)

    real(toolstack, client)


@pytest.mark.bench
def test_real_domains_start_and_end(toolstack: Any) -> None:
    fired: list[str] = []

    async def client(store: Xenstore) -> None:
        await store.watch("@introduceDomain", fired.append)
        await store.watch("@releaseDomain", fired.append)
        await store.read("/")
        assert fired == ["@introduceDomain", "@releaseDomain"]
        await asyncio.to_thread(toolstack.add_domain, 5, "kiosk", "pvh")
        assert await store.introduced(5)
        await store.read("/")
        assert fired[2:] == ["@introduceDomain"]
        await asyncio.to_thread(toolstack.remove_domain, 5)
        while len(fired) < 4:
            await asyncio.sleep(0.005)
        assert fired[3] == "@releaseDomain"
        assert not await store.introduced(5)

    real(toolstack, client)


@pytest.mark.bench
def test_real_xenstored_ends(toolstack: Any) -> None:
    lost: list[str] = []

    async def client() -> None:
        store = Xenstore(str(toolstack.socket), lambda: lost.append("lost"))
        await store.connect()
        await asyncio.to_thread(toolstack.stop)
        while not lost:
            await asyncio.sleep(0.005)
        with pytest.raises(StoreLost):
            await store.read("/")
        with pytest.raises(NoStore):
            await store.connect()
        await asyncio.to_thread(toolstack.start)
        await store.connect()
        assert await store.read("/local/domain/0/name") == "Domain-0"
        store.close()

    asyncio.run(client())
    assert lost == ["lost"]
