"""xenstored as the agent sees it: values, watches, live domains, and a connection that breaks."""

from __future__ import annotations

import asyncio

import pytest

from xenplug.core.protocols import StoreLost
from xenplug.simulator.store import SimStore, StoreTree

A = "/local/domain/1"


def made(*paths: str) -> StoreTree:
    tree = StoreTree()
    for path in paths:
        tree.write(path, path[-1])
    return tree


async def fired(store: SimStore, path: str) -> list[str]:
    """Watch, and drop the firing of the registration."""
    seen: list[str] = []
    await store.watch(path, seen.append)
    await asyncio.sleep(0)
    assert seen == [path]
    seen.clear()
    return seen


async def test_a_missing_node_is_none_and_has_no_children() -> None:
    store = SimStore(made(f"{A}/name"))
    assert await store.read(f"{A}/nosuch") is None
    assert await store.directory(f"{A}/nosuch") == []
    assert await store.read(A) == ""
    assert await store.directory(A) == ["name"]


async def test_writing_makes_parents_and_removing_takes_all_below() -> None:
    store = SimStore(StoreTree())
    await store.write(f"{A}/device/vusb/0/state", "1")
    assert await store.directory(f"{A}/device") == ["vusb"]
    await store.remove(f"{A}/device")
    assert await store.read(f"{A}/device/vusb/0/state") is None
    await store.remove(f"{A}/nosuch")
    assert store.changes == [(f"{A}/device/vusb/0/state", "1"), (f"{A}/device", None), (f"{A}/nosuch", None)]


@pytest.mark.parametrize("path", ["/a/0000:00:14.0", "/a/1-4.2", "a/b", "/a//b"])
async def test_paths_xenstored_refuses_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="EINVAL"):
        await SimStore(StoreTree()).write(path, "")
    with pytest.raises(ValueError, match="EINVAL"):
        await SimStore(StoreTree()).watch(path, print)


async def test_replace_only_what_is_expected() -> None:
    store = SimStore(made(f"{A}/a"))
    assert not await store.replace(f"{A}/a", "b", "c")
    assert await store.replace(f"{A}/a", "a", "c")
    assert await store.read(f"{A}/a") == "c"
    assert not await store.replace(f"{A}/nosuch", "a", "c")


@pytest.mark.parametrize(
    ("watched", "changed", "heard"),
    [
        (f"{A}/x", f"{A}/x", True),
        (f"{A}/x", f"{A}/x/y/z", True),
        (f"{A}/x", A, False),
        (f"{A}/x", f"{A}/xy", False),
        ("/", f"{A}/x", True),
    ],
)
async def test_a_watch_hears_changes_at_and_below_its_path(watched: str, changed: str, heard: bool) -> None:
    store = SimStore(StoreTree())
    seen = await fired(store, watched)
    store.tree.write(changed, "new")
    await asyncio.sleep(0)
    assert seen == ([changed] if heard else [])


async def test_removing_a_parent_fires_the_watches_below_and_above() -> None:
    store = SimStore(made(f"{A}/device/vusb/0/state"))
    below, above = await fired(store, f"{A}/device/vusb/0"), await fired(store, "/local")
    store.tree.remove(f"{A}/device")
    await asyncio.sleep(0)
    assert (below, above) == ([f"{A}/device/vusb/0"], [f"{A}/device"])


async def test_no_event_after_unwatch_not_even_one_under_way() -> None:
    store = SimStore(StoreTree())
    seen = await fired(store, A)
    await store.unwatch(A)
    store.tree.write(A, "x")
    late: list[str] = []
    watch = store.tree.watch(A, late.append)
    store.tree.write(A, "y")
    store.tree.unwatch(watch)
    await asyncio.sleep(0)
    assert (seen, late) == ([], [])


async def test_domains_come_and_go_without_being_named() -> None:  # T25
    store = SimStore(StoreTree())
    came, went = await fired(store, "@introduceDomain"), await fired(store, "@releaseDomain")
    store.tree.introduce(7)
    assert await store.introduced(7)
    store.tree.shut_down()
    await asyncio.sleep(0)
    assert (came, went) == (["@introduceDomain"], ["@releaseDomain"])
    assert await store.introduced(7)
    store.tree.release(7)
    assert not await store.introduced(7)


async def test_a_lost_connection_fails_pending_and_later_calls() -> None:
    lost_calls: list[str] = []
    store = SimStore(made(f"{A}/a"), lost=lambda: lost_calls.append("lost"))
    seen = await fired(store, A)
    pending = asyncio.ensure_future(store.read(f"{A}/a"))
    await asyncio.sleep(0)
    store.lose()
    with pytest.raises(StoreLost):
        await pending
    with pytest.raises(StoreLost):
        await store.write(f"{A}/a", "x")
    assert lost_calls == ["lost"]
    await store.connect()
    store.tree.write(A, "after")
    await asyncio.sleep(0)
    assert seen == [], "a new connection has no watches"
    assert await store.read(f"{A}/a") == "a"


async def test_xenstored_may_stay_unreachable() -> None:
    store = SimStore(StoreTree())
    store.lose()
    store.refuses = True
    with pytest.raises(StoreLost):
        await store.connect()
    with pytest.raises(StoreLost):
        await store.directory("/")
