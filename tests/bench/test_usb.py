"""The testbed through real libudev and pyudev: a process under test sees the plugged devices, with events in the real
order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .records import recorded_devices
from .usb import PRELOAD, Testbed
from .usbspec import UsbDevice, UsbInterface
from .wait import until

LISTENER = Path(__file__).with_name("uevent_log.py")
RECORDINGS = Path(__file__).parent.parent / "data/umockdev"
DISK = UsbDevice("0781:5567", (UsbInterface((8, 6, 0x50), "usb-storage"), UsbInterface((3, 1, 1), "usbhid")))
Event = list[Any]


class Listener:
    """uevent_log.py as a child process."""

    def __init__(self, environment: dict[str, str]) -> None:
        pytest.importorskip("pyudev")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(LISTENER)],
            env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.next() == "ready"  # type: ignore[comparison-overlap]

    def next(self) -> Event:
        """Wait for the next event."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return list(json.loads(line)) if line.startswith("[") else json.loads(line)

    def until_last(self, action: str, name: str, source: str = "udev") -> list[Event]:
        """The events up to and with this one."""
        events = [self.next()]
        while events[-1][:3] != [source, action, name]:
            events.append(self.next())
        return events

    def close(self) -> None:
        """End it."""
        self.process.communicate(timeout=5)


@pytest.fixture
def listener(testbed: Testbed) -> Iterator[Listener]:
    """With everything of the testbed's environment."""
    listener = Listener(testbed.environment())
    yield listener
    listener.close()


def of(events: list[Event], source: str) -> list[tuple[str, str]]:
    """Action and name of one source's events."""
    return [(event[1], event[2]) for event in events if event[0] == source]


PLUG = [
    ("add", "1-4"),
    ("add", "1-4:1.0"),
    ("add", "1-4:1.1"),
    ("bind", "1-4"),
    ("bind", "1-4:1.0"),
    ("bind", "1-4:1.1"),
]
PULL = [
    ("unbind", "1-4:1.0"),
    ("remove", "1-4:1.0"),
    ("unbind", "1-4:1.1"),
    ("remove", "1-4:1.1"),
    ("unbind", "1-4"),
    ("remove", "1-4"),
]


def test_plug_and_pull(testbed: Testbed, listener: Listener) -> None:
    """Both sources report every event once, in order; a remove still has the device's number."""
    testbed.plug("1-4", DISK)
    events = listener.until_last("bind", "1-4:1.1")
    assert of(events, "kernel") == PLUG == of(events, "udev")
    testbed.unplug("1-4")
    events = listener.until_last("remove", "1-4")
    assert of(events, "kernel") == PULL == of(events, "udev")
    assert events[-1] == ["udev", "remove", "1-4", "usb_device", "002", None, None, True]


def test_udev_comes_later(testbed: Testbed, listener: Listener) -> None:
    """With a delay each event is the kernel's first; only udev's are of initialised devices."""
    testbed.uevents.udev_delay = 0.05
    testbed.plug("1-4", DISK)
    events = listener.until_last("bind", "1-4:1.1")
    order = [tuple(event[:3]) for event in events]
    assert all(order.index(("kernel", *what)) < order.index(("udev", *what)) for what in PLUG)
    assert all(event[-1] == (event[0] == "udev") for event in events)


def test_umockdev_alone_sends_all_to_every_monitor(testbed: Testbed) -> None:
    """Without the bench's preload the sources cannot be distinguished: the kernel's gets udev's messages."""
    listener = Listener({**testbed.environment(), "LD_PRELOAD": PRELOAD})
    testbed.plug("1-4", DISK)
    events = listener.until_last("bind", "1-4:1.1")
    assert of(events, "udev") == PLUG
    assert all(event[-1] for event in events)
    listener.close()


def test_overflow(testbed: Testbed, listener: Listener) -> None:
    """Both monitors fail once with ENOBUFS."""
    testbed.uevents.overflow()
    assert sorted([listener.next(), listener.next()]) == [["kernel", "error", 105], ["udev", "error", 105]]


def test_authorisation(testbed: Testbed) -> None:
    """Unauthorised: no interfaces, but descriptors. Writes are answered as the kernel does."""
    testbed.tree.set_attribute("usb1", "authorized_default", "0\n")
    testbed.plug("1-4", DISK)
    tree = testbed.tree
    assert tree.interfaces("1-4") == []
    assert (tree.folder("1-4") / "descriptors").read_bytes() == DISK.encode()
    (tree.folder("1-4") / "authorized").write_text("1")
    until(lambda: tree.drivers("1-4") == ["usb-storage", "usbhid"])
    (tree.folder("1-4:1.0") / "authorized").write_text("0")
    until(lambda: tree.drivers("1-4") == [None, "usbhid"])
    (tree.folder("1-4:1.0") / "authorized").write_text("1")
    (testbed.root / "sys/bus/usb/drivers_probe").write_text("1-4:1.0")
    until(lambda: tree.drivers("1-4") == ["usb-storage", "usbhid"])
    (tree.folder("1-4") / "authorized").write_text("0")
    until(lambda: tree.interfaces("1-4") == [])


def test_every_write_to_drivers_probe_is_answered(testbed: Testbed) -> None:
    """One file for all devices: writes that come faster than they are answered are not lost."""
    testbed.tree.set_attribute("usb1", "interface_authorized_default", "0\n")
    ports = [f"1-{number}" for number in range(1, 9)]
    for port in ports:
        testbed.plug(port, DISK)
        for name in testbed.tree.interfaces(port):
            (testbed.tree.folder(name) / "authorized").write_text("1")
    assert [testbed.tree.drivers(port) for port in ports] == [[None, None]] * 8
    for port in ports:
        for name in testbed.tree.interfaces(port):
            (testbed.root / "sys/bus/usb/drivers_probe").write_text(name)
    until(lambda: [testbed.tree.drivers(port) for port in ports] == [["usb-storage", "usbhid"]] * 8)


def test_hub_goes_with_what_hangs_on_it(testbed: Testbed) -> None:
    """A recording at another port, and pulled by its hub; addresses go on counting."""
    assert testbed.plug_recording(RECORDINGS / "keyboard.umockdev", at="1-7") == ["1-7", "1-7.2"]
    assert testbed.tree.drivers("1-7.2") == ["usbhid", "usbhid"]
    testbed.unplug("1-7")
    assert not [name for name in testbed.tree.names() if name.startswith("1-7")]
    assert testbed.plug("1-7", DISK).number == 4


def test_addresses_wrap(testbed: Testbed) -> None:
    """After 127 comes the lowest that is free, as the kernel counts: the root hub has 1."""
    testbed.plug("1-1", DISK, number=2)
    testbed.plug("1-2", DISK, number=127)
    assert testbed.place("1-3").number == 3


@pytest.mark.parametrize("misuse", ["1-4", "9-1"])
def test_misuse_is_reported(testbed: Testbed, misuse: str) -> None:
    """Before libumockdev would abort the process."""
    testbed.plug("1-4", DISK)
    with pytest.raises(ValueError, match=misuse):
        testbed.plug(misuse, DISK)


def test_strings_of_any_bytes(testbed: Testbed) -> None:
    """A device's own strings reach sysfs unchanged."""
    testbed.plug("1-4", UsbDevice("1234:5678", product=b'"a, b"\x1b[2J\xff', manufacturer="Mü=ller\\"))
    assert (testbed.tree.folder("1-4") / "product").read_bytes() == b'"a, b"\x1b[2J\xff\n'
    assert testbed.tree.attribute("1-4", "manufacturer") == "Mü=ller\\"


def test_recorded_devices_are_what_was_recorded() -> None:
    """Descriptors verbatim, parents first."""
    devices = recorded_devices(RECORDINGS / "keyboard.umockdev")
    assert list(devices) == ["1-2", "1-2.2"]
    assert devices["1-2"].hub
    assert devices["1-2.2"].speed == "low"
