"""The simulated xl answers as the real one did in the lab: exit code, stdout, stderr, but for line numbers and ids."""

from __future__ import annotations

import asyncio
import re

import pytest
from tests.data.xl import recorded
from tests.simulator.host import XHCI, attached, plugged, xl

from xenplug.core.model import ControllerType, GuestType
from xenplug.core.policy.rules import ControllerSpec
from xenplug.core.protocols import Result
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.world import World

VERSION = "4.17"
QUSB = ControllerSpec(ControllerType.QUSB, 2, 8)
GUESTS = (
    GuestConfig(name="kiosk", type=GuestType.PV, controllers=(QUSB,)),
    GuestConfig(name="desk", type=GuestType.PV, controllers=(QUSB,)),
    GuestConfig(name="bare", type=GuestType.PV),
    GuestConfig(name="bios", type=GuestType.HVM),
)
ALIKE = (
    "domname-nosuch", "domid-nosuch", "list-nosuch", "unknown-command", "usage",
    "usb-list", "usb-list-extra-word", "usb-list-nosuch",
    "usbctrl-attach-bad-key", "usbctrl-attach-bad-type", "usbctrl-attach-bad-version",
    "usbctrl-attach-devicemodel-bad-ports", "usbctrl-attach-many-ports", "usbctrl-attach-no-device-model",
    "usbctrl-attach-nosuch", "usbctrl-detach-unknown",
    "usbdev-attach-again", "usbdev-attach-bad-key", "usbdev-attach-hub", "usbdev-attach-no-such-controller",
    "usbdev-attach-no-such-device", "usbdev-attach-nosuch", "usbdev-attach-other-guest", "usbdev-attach-port-only",
    "usbdev-attach-port-taken", "usbdev-detach-beyond", "usbdev-detach-empty", "usbdev-detach-extra-word",
    "usbdev-detach-named-words", "usbdev-detach-no-such-controller", "usbdev-detach-nosuch",
)  # fmt: skip
"""Calls for which the host below is like the lab's: one device on kiosk's port 1, another one free."""


def bare(text: str) -> str:
    """Without the parts that differ between builds and hosts."""
    text = re.sub(r"libxl_\w+\.c:\d+:", "libxl.c:0:", text)
    return re.sub(r"Domain \d+:|/libxl/\d+/|Bus \w{3} Device \w{3}", "N", text)


def answer(result: Result) -> tuple[int | None, int | None, str, str]:
    """What is compared."""
    return result.code, result.signal, bare(result.stdout), bare(result.stderr)


async def host() -> tuple[World, dict[str, str]]:
    """The host, and its devices' values for the lab's in a recording."""
    world = World([XHCI])
    for config in GUESTS:
        world.add_guest(config, running=True)
    one = await attached(world, "1-4")
    two = await plugged(world, "1-3")
    return world, {
        "hostbus=7": f"hostbus={one.bus}", "hostaddr=2@7": f"hostaddr={one.number}",
        "hostbus=8": f"hostbus={two.bus}", "hostaddr=2@8": f"hostaddr={two.number}",
    }  # fmt: skip


@pytest.mark.parametrize("name", ALIKE)
async def test_answers_as_the_real_one(name: str) -> None:
    """The same output, the same exit."""
    real = recorded.result(VERSION, name)
    world, here = await host()
    bus = next((word[-1] for word in real.argv if word.startswith("hostbus=")), "")
    words = [here.get(f"{word}@{bus}", here.get(word, word)) for word in real.argv[1:]]
    await asyncio.sleep(0.1)
    assert answer(await xl(world, *words)) == answer(real)
