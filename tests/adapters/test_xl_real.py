"""Xl and Processes with the real xl: causes that depend on its real messages, exit codes and crashes."""

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


CALLS: list[tuple[str, tuple[Any, ...], XlCause]] = [
    ("usbctrl_attach", (5, QUSB, 2, 4), XlCause.NONE),
    ("usbdev_attach", (5, 3, 8, 0, 1), XlCause.NONE),
    ("usbdev_attach", (5, 3, 8, 0, 2), XlCause.ALREADY_ATTACHED),
    ("usbdev_attach", (5, 3, 10, 0, 1), XlCause.PORT_TAKEN),
    ("usbdev_attach", (5, 3, 10, 7, 1), XlCause.NO_CONTROLLER),
    ("usbdev_attach", (5, 3, 99, 0, 2), XlCause.NOT_ASSIGNABLE),
    ("usbctrl_attach", (6, QUSB, 2, 4), XlCause.STARTING),
    ("usbctrl_attach", (7, QUSB, 2, 4), XlCause.NO_DEVICE_MODEL),
    ("usbctrl_attach", (99, QUSB, 2, 4), XlCause.UNKNOWN_GUEST),
    ("pci_attach", (99, "0000:03:00.0"), XlCause.UNKNOWN_GUEST),
    ("pci_detach", (99, "0000:03:00.0"), XlCause.UNKNOWN_GUEST),
    ("usbdev_detach", (5, 7, 1), XlCause.KILLED),
    ("usbdev_detach", (5, 0, 2), XlCause.PORT_EMPTY),
]
"""Method of Xl, its arguments, and the cause of the outcome; one after the other."""
AFTER_A_PULL: list[tuple[str, tuple[Any, ...], XlCause]] = [
    ("usbdev_attach", (5, 3, 10, 0, 2), XlCause.STALE_PORT),
    ("usbdev_detach", (5, 0, 1), XlCause.PORT_EMPTY),
]


@pytest.fixture
def xl(toolstack: Any, monkeypatch: pytest.MonkeyPatch) -> Xl:
    """The real xl, with a guest 5, a paused 6 that is not ready, 7 without a device model, and two devices."""
    for name, value in toolstack.environment().items():
        monkeypatch.setenv(name, value)
    toolstack.add_domain(5, "kiosk", "pvh")
    toolstack.add_domain(6, "unborn", "pvh", ready=False)
    toolstack.add_domain(7, "bare", "pv", backend=None)
    toolstack.set_flags(6, "p")
    plug(toolstack, "3-1", 3, 8)
    plug(toolstack, "3-2", 3, 10)
    return Xl(Processes(), str(toolstack.xl_path))


async def causes(xl: Xl, calls: list[tuple[str, tuple[Any, ...], XlCause]]) -> list[XlCause]:
    return [(await getattr(xl, method)(*arguments)).cause for method, arguments, _ in calls]


@pytest.mark.bench
def test_causes_of_the_real_xl(toolstack: Any, xl: Xl) -> None:
    async def body() -> None:
        info = await xl.info()
        assert isinstance(info, dict)
        assert info["xen_version"].startswith("4.17")
        running, paused = GuestState.RUNNING, GuestState.PAUSED
        assert await xl.list() == {0: running, 5: running, 6: paused, 7: running}
        toolstack.set_flags(7, "u")
        assert await xl.list() == {0: running, 5: running, 6: paused, 7: GuestState.SUSPENDED}
        toolstack.set_flags(7, "s")
        assert await xl.list() == {0: running, 5: running, 6: paused, 7: GuestState.STOPPING}
        toolstack.set_flags(7, "")
        assert await causes(xl, CALLS) == [cause for *_, cause in CALLS]
        unplug(toolstack, "3-1")
        assert await causes(xl, AFTER_A_PULL) == [cause for *_, cause in AFTER_A_PULL]

    asyncio.run(body())


@pytest.mark.bench
def test_the_real_xl_without_xenstored(toolstack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in toolstack.environment().items():
        monkeypatch.setenv(name, value)
    toolstack.stop()
    outcome = asyncio.run(Xl(Processes(), str(toolstack.xl_path)).usbdev_attach(5, 3, 8, 0, 1))
    assert outcome.cause is XlCause.NO_XEN
