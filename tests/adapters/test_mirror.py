"""Mirror: correct after every burst, quick to find a busid, unaffected by what guests write."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest
from tests.adapters.slow_store import SlowStore

from xenplug.adapters.frontends import LOUD
from xenplug.adapters.mirror import Mirror
from xenplug.core.guests import port_path
from xenplug.core.model import ControllerType, GuestPort
from xenplug.core.protocols import StoreLost

KIOSK = {
    "/local/domain/5/name": "kiosk",
    "/local/domain/5/vm": "/vm/55555555-2222-3333-4444-555555555555",
    "/local/domain/5/image/device-model-pid": "4711",
    "/local/domain/5/device/vusb/0/state": "4",
    "/local/domain/5/memory/target": "262144",
    "/libxl/5/type": "pvh",
    "/libxl/5/device/vusb/0/type": "qusb",
    "/libxl/5/device/vusb/0/port/1": "9-9",
    "/local/domain/0/backend/qusb/5/0/state": "4",
    "/local/domain/0/backend/qusb/5/0/num-ports": "2",
    "/local/domain/0/backend/qusb/5/0/port/1": "3-1",
    "/local/domain/0/backend/qusb/5/0/port/2": "",
    "/local/domain/0/name": "Domain-0",
}
PORT = "/local/domain/0/backend/qusb/5/0/port/1"


def guest(domid: int) -> dict[str, str]:
    """KIOSK under another domid."""
    return {
        path.replace("/5/", f"/{domid}/"): value
        for path, value in KIOSK.items()
        if not path.startswith("/local/domain/0/n")
    }


async def quiet() -> None:
    for _ in range(400):
        await asyncio.sleep(0)


def mirrored(store: SlowStore) -> dict[str, str]:
    """What the mirror must contain of this store."""
    wanted = ("/libxl/5/", "/local/domain/0/backend/qusb/5/", "/local/domain/5/device/vusb/")
    single = {f"/local/domain/5/{leaf}" for leaf in ("name", "vm", "image/device-model-pid")}
    return {p: v for p, v in written(store, store.nodes).items() if p.startswith(wanted) or p in single}


def written(store: SlowStore, nodes: Mapping[str, str]) -> dict[str, str]:
    """Without folders that only came with what is below them: the mirror knows them from its first reading alone."""
    return {path: value for path, value in nodes.items() if path not in store.implied}


def loaded(
    nodes: dict[str, str] = KIOSK, domains: frozenset[int] = frozenset({5})
) -> tuple[SlowStore, Mirror, list[int | None]]:
    calls: list[int | None] = []
    store = SlowStore(nodes, set(domains))
    return store, Mirror(store, calls.append), calls


def test_load_reads_guests_and_nothing_else() -> None:
    async def body() -> None:
        store, mirror, calls = loaded()
        await mirror.load()
        assert calls == [None]
        assert written(store, mirror.tree()) == mirrored(store)
        assert mirror.introduced == {5}
        assert mirror.alive(5, "kiosk")
        assert not mirror.alive(5, "other")
        assert not mirror.alive(6, "kiosk")
        await quiet()
        assert calls == [None], "the watches' first firing is no change"

    asyncio.run(body())


def test_only_live_values_count_as_occupied() -> None:
    async def body() -> None:
        store, mirror, _ = loaded()
        await mirror.load()
        assert mirror.occupied("3-1") == [(GuestPort(5, 0, 1), PORT)]
        assert mirror.occupied("9-9") == [], "libxl's copy of a qusb port is dead"
        assert mirror.occupied("") == []
        store.put("/libxl/5/device/vusb/1/port/2", "3-1")
        store.put("/libxl/5/device/vusb/1/type", "devicemodel")
        await quiet()
        assert set(mirror.occupied("3-1")) == {
            (GuestPort(5, 0, 1), PORT),
            (GuestPort(5, 1, 2), "/libxl/5/device/vusb/1/port/2"),
        }
        store.put(PORT, "")
        store.put("/libxl/5/device/vusb", None)
        await quiet()
        assert mirror.occupied("3-1") == []

    asyncio.run(body())


@pytest.mark.parametrize("seed", range(30))
def test_the_last_value_wins_whatever_the_order_of_answers(seed: int) -> None:
    async def body() -> None:
        calls: list[int | None] = []
        store = SlowStore(KIOSK, {5}, seed)
        mirror = Mirror(store, calls.append)
        await mirror.load()
        chance = random.Random(seed)
        paths = [path for path in KIOSK if "/5/" in path and "memory" not in path]
        for step in range(120):
            path = chance.choice(paths)
            value = chance.choice([None, "", "3-1", "4", str(step)])
            store.put(path.rpartition("/")[0] if value is None and chance.random() < 0.2 else path, value)
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
        store.put("/local/domain/5/name", "kiosk")
        await quiet()
        assert written(store, mirror.tree()) == mirrored(store)
        for busid in ("3-1", "4"):
            held = {path for _, path in mirror.occupied(busid)}
            assert held == {p for p, v in mirrored(store).items() if v == busid and "/backend/qusb/5/0/port/" in p}

    asyncio.run(body())


def test_a_change_during_a_reading_is_reported_after_it() -> None:
    async def body() -> None:
        store, mirror, _ = loaded()
        seen: list[str] = []
        mirror.changed = lambda _domid: seen.append(mirror.tree()[PORT])
        await mirror.load()
        for value in ("1-1", "1-2", "1-3"):
            store.put(PORT, value)
            await asyncio.sleep(0)
        await quiet()
        assert seen[-1] == "1-3"
        assert seen == sorted(seen, key=["3-1", "1-1", "1-2", "1-3"].index), "never back to an older value"

    asyncio.run(body())


def test_a_change_that_comes_while_a_change_is_reported_is_read_too() -> None:
    async def body() -> None:
        store, mirror, _ = loaded()
        await mirror.load()
        mirror.changed = lambda _domid: store.put(PORT, "2-2") if mirror.tree()[PORT] == "1-1" else None
        store.put(PORT, "1-1")
        await quiet()
        assert mirror.occupied("2-2")

    asyncio.run(body())


def test_ports_of_like_numbers_are_not_taken_for_parents() -> None:
    async def body() -> None:
        store, mirror, _ = loaded()
        await mirror.load()
        for port in (1, 10, 11, 2):
            store.put(f"{PORT[:-1]}{port}", f"7-{port}")
        await quiet()
        assert [mirror.occupied(f"7-{port}")[0][0].port for port in (1, 10, 11, 2)] == [1, 10, 11, 2]

    asyncio.run(body())


def test_what_changes_nothing_is_not_reported() -> None:
    async def body() -> None:
        store, mirror, calls = loaded()
        await mirror.load()
        store.put(PORT, "3-1")
        store.domain(5, True)
        await quiet()
        assert calls == [None]
        store.put(PORT, "3-2")
        await quiet()
        assert calls == [None, 5]

    asyncio.run(body())


def test_a_guests_writes_in_its_own_folder_are_not_read() -> None:
    async def body() -> None:
        store, mirror, calls = loaded()
        await mirror.load()
        await quiet()
        store.reads.clear()
        for number in range(LOUD - 10):
            store.put(f"/local/domain/5/device/vusb/0/junk{number}", "x")
        store.put("/local/domain/5/device/vusb/nonsense/state", "4")
        await quiet()
        assert not store.reads
        assert calls == [None]
        await mirror.sync()
        assert [path for path in mirror.tree() if "junk" in path or "nonsense" in path] == []
        store.put("/local/domain/5/device/vusb/0/state", "6")
        await quiet()
        assert mirror.tree()["/local/domain/5/device/vusb/0/state"] == "6"
        store.put("/local/domain/5/device/vusb/0", None)
        await quiet()
        assert "/local/domain/5/device/vusb/0/state" not in mirror.tree()

    asyncio.run(body())


def test_domains_come_and_go() -> None:
    async def body() -> None:
        store, mirror, calls = loaded()
        await mirror.load()
        before = len(store.watches)
        for path, value in guest(7).items():
            store.put(path, value)
        store.put("/local/domain/garbage/name", "x")
        await quiet()
        assert not any("/7/" in path for path in mirror.tree()), "not introduced, not seen"
        store.domain(7, True)
        await quiet()
        assert mirror.introduced == {5, 7}
        assert mirror.alive(7, "kiosk")
        assert {guest_port.domid for guest_port, _ in mirror.occupied("3-1")} == {5, 7}
        assert calls == [None, 7]
        for path in ("/local/domain/7", "/libxl/7", "/local/domain/0/backend/qusb/7"):
            store.put(path, None)
        store.domain(7, False)
        await quiet()
        assert mirror.introduced == {5}
        assert not any("/7/" in path for path in mirror.tree())
        assert {guest_port.domid for guest_port, _ in mirror.occupied("3-1")} == {5}
        assert len(store.watches) == before
        assert set(calls[1:]) == {7, None}

    asyncio.run(body())


def test_a_domain_may_stop_living_and_keep_its_folder() -> None:
    async def body() -> None:
        store, mirror, calls = loaded()
        await mirror.load()
        store.domain(5, False)
        await quiet()
        assert mirror.introduced == frozenset()
        assert mirror.tree()["/local/domain/5/name"] == "kiosk"
        assert calls == [None, None, 5]

    asyncio.run(body())


def test_a_domain_that_shuts_down_and_is_kept_is_reported() -> None:
    """on_poweroff=preserve, `xl suspend`: xenstored fires @releaseDomain, and nothing in the tree changes."""

    async def body() -> None:
        store, mirror, calls = loaded()
        await mirror.load()
        await quiet()
        for times in (1, 2):
            store.watches["@releaseDomain"]("@releaseDomain")
            await quiet()
            assert calls == [None] * (times + 1)
        assert mirror.alive(5, "kiosk")

    asyncio.run(body())


def test_leftovers_of_a_domain_that_is_not_listed_are_dropped() -> None:
    async def body() -> None:
        store, mirror, _ = loaded(KIOSK | guest(7), frozenset({5, 7}))
        await mirror.load()
        store.put("/local/domain/7", None)
        store.domain(7, False)
        await quiet()
        assert not any("/7/" in path for path in mirror.tree())

    asyncio.run(body())


def test_a_lost_store_is_loaded_again() -> None:
    async def body() -> None:
        store, mirror, calls = loaded(KIOSK | guest(7), frozenset({5, 7}))
        await mirror.load()
        store.broken = True
        store.put(PORT, "8-8")
        await quiet()
        with pytest.raises(StoreLost):
            await mirror.sync()
        with pytest.raises(StoreLost):
            await mirror.load()
        store.watches.clear()
        store.put("/local/domain/7", None)
        store.put(PORT, "8-9")
        store.domains.discard(7)
        store.broken = False
        with pytest.raises(StoreLost):  # connected again, but not read yet: the result of a step is unknown
            await mirror.sync(5)
        await mirror.load()
        assert mirror.occupied("8-9") == [(GuestPort(5, 0, 1), PORT)]
        assert mirror.introduced == {5}
        assert not any("/7/" in path for path in mirror.tree())
        assert calls == [None, None]
        store.put(PORT, "")
        await quiet()
        assert calls == [None, None, 5], "the watches stand again"

    asyncio.run(body())


def test_sync_sees_changes_without_a_watch_event() -> None:
    async def body() -> None:
        store, mirror, calls = loaded()
        await mirror.load()
        store.nodes[PORT] = "5-5"
        await mirror.sync(5)
        assert mirror.occupied("5-5")
        store.nodes[PORT] = "6-6"
        store.domains.discard(5)
        await mirror.sync()
        assert mirror.occupied("6-6")
        assert mirror.introduced == frozenset()
        assert calls == [None, 5, 5]
        await mirror.sync(99)

    asyncio.run(body())


@pytest.mark.parametrize("type_", list(ControllerType))
def test_one_port_is_read_again_and_nothing_else(type_: ControllerType) -> None:
    async def body() -> None:
        store, mirror, calls = loaded()
        await mirror.load()
        guest_port = GuestPort(5, 0, 1)
        path = port_path(type_, guest_port)
        store.nodes[path] = "5-5"
        store.reads.clear()
        await mirror.sync(guest_port)
        assert mirror.tree()[path] == "5-5"
        assert set(store.reads) == {port_path(any_, guest_port) for any_ in ControllerType}
        assert calls == [None, 5]
        del store.nodes[path]
        await mirror.sync(guest_port)
        assert path not in mirror.tree()

    asyncio.run(body())


def test_a_node_that_cannot_be_read_stops_nothing() -> None:
    async def body() -> None:
        store, mirror, _ = loaded()
        store.secret = {PORT, "/libxl/5/device/vusb"}
        await mirror.load()
        assert mirror.tree()["/local/domain/5/name"] == "kiosk"
        assert PORT not in mirror.tree()

    asyncio.run(body())


def test_a_bug_in_a_listener_is_not_swallowed() -> None:
    async def body() -> None:
        store, mirror, _ = loaded()
        await mirror.load()
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context))

        def broken(_domid: int | None) -> None:
            raise RuntimeError("a bug")

        mirror.changed = broken
        store.put(PORT, "1-1")
        await quiet()
        assert [str(report["exception"]) for report in reports] == ["a bug"]
        mirror.changed = lambda _domid: None
        store.put(PORT, "1-2")
        await quiet()
        assert mirror.occupied("1-2")

    asyncio.run(body())
