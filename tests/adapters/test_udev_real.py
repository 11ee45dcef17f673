"""Real pyudev and libudev over a testbed of umockdev: what a recording holds and what its events say arrive here.

Runs itself under umockdev-wrapper as a child (this file is the child's program too), because the testbed works by
preloading. Skipped if Debian's umockdev is not installed.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xenplug.adapters import udev
from xenplug.adapters.sysfs import Sysfs
from xenplug.core.model import BusId
from xenplug.core.protocols import UsbEvent

MOUSE = """\
P: /devices/pci0000:00/0000:00:14.0/usb1/1-4
N: bus/usb/001/006
E: DEVNAME=/dev/bus/usb/001/006
E: DEVTYPE=usb_device
E: SUBSYSTEM=usb
A: busnum=1\\n
A: devnum=6\\n
A: idVendor=046d\\n
A: idProduct=c016\\n
A: speed=1.5\\n
A: bConfigurationValue=1\\n
A: bNumInterfaces= 1\\n

P: /devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0
E: DEVTYPE=usb_interface
E: SUBSYSTEM=usb
E: INTERFACE=3/1/2
"""


@pytest.mark.skipif(not shutil.which("umockdev-wrapper"), reason="umockdev is not installed")
def test_plug_and_pull() -> None:
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        ["umockdev-wrapper", sys.executable, __file__],
        env={"PYTHONPATH": f"{root / 'agent'}:{root}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {
        "events": [["add", "1-4", 6], ["change", "1-4", None], ["remove", "1-4", 6]],
        "plugged": ["046d:c016", "pci-0000:00:14.0-usb-0:4", ["mouse"], True],
        "left": [],
    }


UEVENT = Path("/sys/devices/virtual/mem/null/uevent")


@pytest.mark.skipif(not os.access(UEVENT, os.W_OK), reason="needs root and a sysfs that can be written")
def test_overflow_of_a_real_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udev, "BUFFER", 4096)

    async def story() -> list[UsbEvent]:
        events: list[UsbEvent] = []
        bus = udev.UdevBus(
            Sysfs(tmp_path), asyncio.get_running_loop(), monitors=lambda: udev.netlink(tmp_path / "no-udevd")
        )
        await bus.start(events.append)
        for _ in range(100):
            UEVENT.write_text("change")  # of /dev/null: harmless
        async with asyncio.timeout(5):
            while not events:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await bus.stop()
        return events

    events = asyncio.run(story())
    assert set(events) == {UsbEvent("lost", None)}
    assert len(events) < 10  # reported once each, no busy loop


async def child() -> None:
    library = ctypes.CDLL("libumockdev.so.0")
    library.umockdev_testbed_new.restype = ctypes.c_void_p
    testbed = ctypes.c_void_p(library.umockdev_testbed_new())
    events: list[UsbEvent] = []
    bus = udev.UdevBus(Sysfs(), asyncio.get_running_loop())
    await bus.start(events.append)

    async def expect(count: int) -> None:
        async with asyncio.timeout(5):
            while len(events) < count:
                await asyncio.sleep(0.01)

    library.umockdev_testbed_add_from_string(testbed, MOUSE.encode(), None)  # sends `add` for both
    await expect(2)
    device = bus.devices()[BusId("1-4")]
    library.umockdev_testbed_uevent(testbed, b"/sys/devices/pci0000:00/0000:00:14.0/usb1/1-4", b"remove")
    await expect(3)
    facts = {
        "events": [[event.action, event.port, event.number] for event in events],
        "plugged": [device.tag, device.path, sorted(device.kinds), device.configured],
        "left": list(bus.devices()),
    }
    await bus.stop()
    sys.stdout.write(json.dumps(facts))


if __name__ == "__main__":
    asyncio.run(child())
