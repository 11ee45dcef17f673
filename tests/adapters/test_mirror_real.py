"""Mirror over the real xenstored, with the real xl making the changes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from xenplug.adapters.mirror import Mirror
from xenplug.adapters.xenstore import Xenstore
from xenplug.core.guests import port_place
from xenplug.core.model import GuestPort

PORT = "/local/domain/0/backend/qusb/5/0/port/1"


def real(toolstack: Any, body: Callable[[Xenstore, Mirror, list[int | None]], Awaitable[None]]) -> None:
    async def connected() -> None:
        store = Xenstore(str(toolstack.socket))
        await store.connect()
        calls: list[int | None] = []
        try:
            await asyncio.wait_for(body(store, Mirror(store, calls.append), calls), 20)
        finally:
            store.close()

    asyncio.run(connected())


async def until(holds: Callable[[], object], seconds: float = 5.0) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.005)
    assert holds()


def add_usb(toolstack: Any) -> None:
    usb = toolstack.scratch / "sys/bus/usb/devices/3-1"
    (usb / "3-1:1.0").mkdir(parents=True)
    for name, value in (("busnum", 3), ("devnum", 7), ("bDeviceClass", "00")):
        (usb / name).write_text(f"{value}\n")


@pytest.mark.bench
def test_real_changes_by_xl_are_seen(toolstack: Any) -> None:
    async def body(_store: Xenstore, mirror: Mirror, calls: list[int | None]) -> None:
        await mirror.load()
        assert mirror.introduced == frozenset()
        await asyncio.to_thread(toolstack.add_domain, 5, "kiosk", "pvh")
        await until(lambda: mirror.alive(5, "kiosk"))
        add_usb(toolstack)
        made = toolstack.xl("usbctrl-attach", "5", "type=qusb", "version=2", "ports=4")
        assert made.returncode == 0, made.stderr
        await until(lambda: mirror.tree().get(PORT) == "")
        attached = toolstack.xl("usbdev-attach", "5", "hostbus=3", "hostaddr=7", "controller=0", "port=1")
        assert attached.returncode == 0, attached.stderr
        await mirror.sync(5)
        assert mirror.occupied("3-1") == [(GuestPort(5, 0, 1), PORT)]
        assert set(calls) == {None, 5}
        del calls[:]
        await asyncio.to_thread(toolstack.set_flags, 5, "u")
        await until(lambda: calls == [None])
        assert mirror.alive(5, "kiosk")
        await asyncio.to_thread(toolstack.remove_domain, 5)
        await until(lambda: not mirror.introduced and not any("/5/" in path for path in mirror.tree()))
        assert mirror.occupied("3-1") == []

    real(toolstack, body)


@pytest.mark.bench
def test_real_bursts(toolstack: Any) -> None:
    async def body(_store: Xenstore, mirror: Mirror, _calls: list[int | None]) -> None:
        toolstack.add_domain(5, "kiosk", "pvh")
        toolstack.xl("usbctrl-attach", "5", "type=qusb", "version=2", "ports=8")
        await mirror.load()
        other = Xenstore(str(toolstack.socket))
        await other.connect()
        chance = random.Random(3)
        for number in range(400):
            path = f"{PORT[:-1]}{chance.randrange(1, 9)}"
            await (other.remove(path) if chance.random() < 0.2 else other.write(path, f"3-{number}"))
        paths = [f"{PORT[:-1]}{port}" for port in range(1, 9)]
        values = {path: value for path in paths if (value := await other.read(path)) is not None}
        await until(lambda: {path: value for path, value in mirror.tree().items() if path in paths} == values)
        assert all(mirror.occupied(value) == [(port_place(path)[0], path)] for path, value in values.items())
        other.close()

    real(toolstack, body)
