"""Mirror with writers that never stop: they wait, and no other guest does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.adapters.slow_store import SlowStore
from tests.adapters.test_mirror import KIOSK, PORT, guest, loaded, quiet

from xenplug.adapters import frontends
from xenplug.adapters.frontends import LOUD
from xenplug.adapters.mirror import MANY
from xenplug.core.model import GuestPort


async def hammer(store: SlowStore, path: str, every: int = 1) -> None:
    """Write the nodes below `path` in turn, for ever, some for each turn of the loop."""
    number = 0
    while True:
        for _ in range(every):
            number += 1
            store.put(path.format(number % 300), str(number))
        await asyncio.sleep(0)


async def turns(until: Callable[[], object], most: int) -> int:
    """How many turns of the loop it took."""
    for count in range(most):
        if until():
            return count
        await asyncio.sleep(0)
    raise AssertionError(f"not within {most} turns of the loop")


RESTLESS = {
    "the guest, all controllers": "/local/domain/7/device/vusb/{}/state",
    "the guest, its own one": "/local/domain/7/device/vusb/0/state",
    "the guest, junk": "/local/domain/7/device/vusb/0/{}",
    "dom0, backends": "/local/domain/0/backend/qusb/7/{}/state",
    "dom0, what libxl keeps": "/libxl/7/device/vusb/{}/port/1",
    "dom0, one port": "/local/domain/0/backend/qusb/7/0/port/1",
}


@pytest.mark.parametrize("path", RESTLESS.values(), ids=RESTLESS)
def test_a_writer_that_never_stops_does_not_delay_others(path: str) -> None:
    """Neither a sync of another guest or of one of its ports, nor a first reading, nor another guest's events."""

    async def body() -> None:
        store, mirror, calls = loaded(KIOSK | guest(7), frozenset({5, 7}))
        hammering = asyncio.create_task(hammer(store, path, every=5))
        await asyncio.sleep(0)
        loading = asyncio.create_task(mirror.load())
        await turns(loading.done, 3000)
        await loading
        for number, what in enumerate((GuestPort(5, 0, 1), 5)):
            store.nodes[PORT] = f"2-{number + 1}"
            synced = asyncio.create_task(mirror.sync(what))
            await turns(synced.done, 1500)
            assert mirror.tree()[PORT] == f"2-{number + 1}"
        store.put("/local/domain/5/device/vusb/0/state", "6")
        await turns(lambda: mirror.tree()["/local/domain/5/device/vusb/0/state"] == "6", 1500)
        store.put("/local/domain/5/name", "another")
        await turns(lambda: mirror.alive(5, "another"), 1500)
        assert 5 in calls
        hammering.cancel()

    asyncio.run(body())


def test_the_events_of_a_noisy_guest_are_ignored_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontends, "DEAF", 0.05)
    state = "/local/domain/7/device/vusb/0/state"

    async def body() -> None:
        store, mirror, _ = loaded(KIOSK | guest(7), frozenset({5, 7}))
        await mirror.load()
        await quiet()
        store.reads.clear()
        for number in range(5 * LOUD):
            store.put(state, str(number))
        await quiet()
        assert "/local/domain/7/device/vusb" not in store.watches
        assert "/local/domain/5/device/vusb" in store.watches
        assert sum(store.reads.values()) < 5
        store.put("/local/domain/5/device/vusb/0/state", "6")
        await quiet()
        assert mirror.tree()["/local/domain/5/device/vusb/0/state"] == "6"
        store.put(state, "4")
        async with asyncio.timeout(5):
            while mirror.tree()[state] != "4":
                await asyncio.sleep(0.01)
        store.put(state, "6")
        await quiet()
        assert mirror.tree()[state] == "6", "listened to again"

    asyncio.run(body())


@pytest.mark.parametrize("end", ["the domain goes", "the store is lost"])
def test_the_end_of_a_noisy_guest(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontends, "DEAF", 0.02)

    async def body() -> None:
        store, mirror, _ = loaded(KIOSK | guest(7), frozenset({5, 7}))
        await mirror.load()
        for number in range(2 * LOUD):
            store.put("/local/domain/7/device/vusb/0/state", str(number))
        await quiet()
        if end == "the domain goes":
            for path in ("/local/domain/7", "/libxl/7", "/local/domain/0/backend/qusb/7"):
                store.put(path, None)
            store.domain(7, False)
            await quiet()
        else:
            store.watches.clear()
            await mirror.load()
        await asyncio.sleep(0.1)
        assert ("/local/domain/7/device/vusb" in store.watches) is (end == "the store is lost")
        store.put("/local/domain/5/device/vusb/0/state", "6")
        await quiet()
        assert mirror.tree()["/local/domain/5/device/vusb/0/state"] == "6"

    asyncio.run(body())


def test_the_number_of_marked_paths_is_bounded() -> None:
    async def body() -> None:
        store, mirror, _ = loaded()
        await mirror.load()
        await quiet()
        for number in range(20 * MANY):
            store.put(f"/libxl/5/device/vusb/{number}/type", "qusb")
            store.put(f"/local/domain/5/device/vusb/{number}/state", "4")
        assert mirror.stale <= MANY

    asyncio.run(body())
