"""What the real bus does for safety: dom0's keyboards, and how new devices are guarded."""

import asyncio
from pathlib import Path

import pytest
from tests.adapters.test_udev import Bench, story

from xenplug.adapters import udev
from xenplug.adapters.udev import Uevent
from xenplug.core.model import Interface, Use
from xenplug.core.protocols import Guard


def test_a_keyboard_is_dom0s_while_no_guest_has_it(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        bench.tree.plug("1-4", 6, [Interface(3, 1, 1)])
        bench.tree.plug("1-5", 7)
        await bench.bus.rescan()
        assert bench.device("1-4").in_use == frozenset()  # type: ignore[union-attr]  # no console
        bench.tree.write("sys/class/tty/console/active", "tty0\n")
        assert bench.device("1-4").in_use == {Use.KEYBOARD}  # type: ignore[union-attr]
        assert bench.device("1-5").in_use == frozenset()  # type: ignore[union-attr]  # a mouse
        bench.tree.bind("1-4", 0, "usbfs")
        await bench.bus.rescan()
        assert bench.device("1-4").in_use == frozenset()  # type: ignore[union-attr]

    story(tell, tmp_path)


def test_a_new_root_hub_is_guarded(tmp_path: Path) -> None:
    async def tell(bench: Bench) -> None:
        hub = bench.tree.write("sys/bus/usb/devices/usb7/authorized_default", "1\n")
        bench.kernel.send(Uevent("add", "usb7"))
        await asyncio.sleep(0.01)
        assert hub.read_text() == "1\n"
        bench.bus.guard(Guard(devices=True))
        assert hub.read_text() == "0"
        hub.write_text("1\n")
        bench.kernel.send(Uevent("add", "usb7"))
        await bench.until(lambda: hub.read_text() == "0")

    story(tell, tmp_path)


@pytest.mark.parametrize(("patience", "opens"), [(5.0, "when udevd is done"), (0.02, "without")])
def test_interfaces_stay_deauthorised_while_udevd_may_load_a_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, opens: str
) -> None:
    """A new driver module binds to authorised interfaces: seen on real Xen with the first stick after a boot."""
    queue = tmp_path / "queue"
    queue.touch()
    monkeypatch.setattr(udev, "UDEV_QUEUE_FILE", queue)
    monkeypatch.setattr(udev, "MODULES", patience)

    async def tell(bench: Bench) -> None:
        device = bench.device("1-1")
        assert device is not None
        file = bench.tree.write("sys/bus/usb/devices/1-1/1-1:1.0/authorized", "0")
        opening = asyncio.create_task(bench.bus.interfaces(device, True))
        await asyncio.sleep(0.1)
        assert file.read_text() == ("0" if opens == "when udevd is done" else "1")
        queue.unlink()
        assert await opening
        assert file.read_text() == "1"

    story(tell, tmp_path)
