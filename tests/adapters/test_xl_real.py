"""Xl and Processes with the real xl: causes that depend on its real words, exit codes and deaths."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from xenplug.adapters.proc import Processes
from xenplug.adapters.xl import Xl, XlCause
from xenplug.core.model import ControllerType, GuestState

QUSB = ControllerType.QUSB


def plug(toolstack: Any, busid: str, bus: int, number: int) -> None:
    folder = toolstack.scratch / "sys/bus/usb/devices" / busid
    folder.mkdir(parents=True)
    for name, value in (("busnum", bus), ("devnum", number), ("bDeviceClass", "00")):
        (folder / name).write_text(f"{value}\n")


def unplug(toolstack: Any, busid: str) -> None:
    folder = toolstack.scratch / "sys/bus/usb/devices" / busid
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


@pytest.mark.bench
def test_the_real_xl_in_good_and_bad_days(toolstack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in toolstack.environment().items():
        monkeypatch.setenv(name, value)
    toolstack.add_domain(5, "kiosk", "pvh")
    toolstack.add_domain(6, "unborn", "pvh", ready=False)
    toolstack.add_domain(7, "bare", "pv", backend=None)
    toolstack.set_flags(6, "p")
    plug(toolstack, "3-1", 3, 8)
    plug(toolstack, "3-2", 3, 10)

    async def body() -> list[XlCause]:
        xl = Xl(Processes(), str(toolstack.xl_path))
        assert await xl.list() == {
            0: GuestState.RUNNING,
            5: GuestState.RUNNING,
            6: GuestState.PAUSED,
            7: GuestState.RUNNING,
        }
        outcomes = [
            await xl.usbctrl_attach(5, QUSB, 2, 4),
            await xl.usbdev_attach(5, 3, 8, 0, 1),
            await xl.usbdev_attach(5, 3, 8, 0, 2),
            await xl.usbdev_attach(5, 3, 10, 0, 1),
            await xl.usbdev_attach(5, 3, 10, 7, 1),
            await xl.usbdev_attach(5, 3, 99, 0, 2),
            await xl.usbctrl_attach(6, QUSB, 2, 4),
            await xl.usbctrl_attach(7, QUSB, 2, 4),
            await xl.usbctrl_attach(99, QUSB, 2, 4),
            await xl.usbdev_detach(5, 7, 1),
            await xl.usbdev_detach(5, 0, 2),
        ]
        unplug(toolstack, "3-1")
        outcomes += [
            await xl.usbdev_attach(5, 3, 10, 0, 2),
            await xl.usbdev_detach(5, 0, 1),
        ]
        return [outcome.cause for outcome in outcomes]

    assert asyncio.run(body()) == [
        XlCause.NONE,
        XlCause.NONE,
        XlCause.ALREADY_ATTACHED,
        XlCause.PORT_TAKEN,
        XlCause.NO_CONTROLLER,
        XlCause.NOT_ASSIGNABLE,
        XlCause.STARTING,
        XlCause.NO_DEVICE_MODEL,
        XlCause.UNKNOWN_GUEST,
        XlCause.KILLED,
        XlCause.PORT_EMPTY,
        XlCause.STALE_PORT,
        XlCause.PORT_EMPTY,
    ]


@pytest.mark.bench
def test_the_real_xl_without_xenstored(toolstack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in toolstack.environment().items():
        monkeypatch.setenv(name, value)
    toolstack.stop()
    outcome = asyncio.run(Xl(Processes(), str(toolstack.xl_path)).usbdev_attach(5, 3, 8, 0, 1))
    assert outcome.cause is XlCause.NO_XEN
