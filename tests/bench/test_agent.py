"""The main job on real parts: `xenplug run` as its own process over real libudev, real xl and real xenstored."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from .agent import AgentProcess
from .catalogue import HEADSET, KEYBOARD, KEYBOARD_HUB, MOUSE, STICK
from .player import Player
from .toolstack import BenchToolstack
from .usb import Testbed
from .usbspec import UsbDevice
from .wait import until

QUSB = ("type=qusb", "version=2", "ports=4")
POLICY = """
version: 1
rules:
  - {name: mouse, match: {device: "046d:c016"}, attach: kiosk}
  - {name: sticks, match: {kind: storage}, attach: kiosk}
  - {name: keyboards, match: {kind: keyboard}, attach: [desk, kiosk]}
  - {name: sound, match: {kind: audio}, attach: kiosk}
"""
FAST_STICK = UsbDevice("0781:5581", speed="super")

Start = Callable[..., AgentProcess]


@pytest.fixture
def agent(toolstack: BenchToolstack, testbed: Testbed, player: Player) -> Iterator[Start]:
    """Starts agents; ends those that still run."""
    started: list[AgentProcess] = []

    def start(policy: str = POLICY, times: str = "{}") -> AgentProcess:
        process = AgentProcess(toolstack, testbed, policy, times)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.end()


@pytest.fixture
def kiosk(player: Player) -> Player:
    """A pv guest 5 with a connected qusb controller of four ports."""
    player.boot(5, "kiosk", "pv", controllers=[QUSB])
    until(lambda: player.toolstack.store.read("/local/domain/5/device/vusb/0/state") == "4", what="the frontend")
    return player


def states(agent: AgentProcess) -> list[str]:
    """The history of all devices, in order; without orders and readings of the policy."""
    events = map(json.loads, (agent.folder / "history.jsonl").read_bytes().splitlines())
    return [event["state"] for event in events if "event" not in event]


def port_value(toolstack: BenchToolstack, port: int, domid: int = 5) -> str | None:
    """The busid on a guest port, from xenstore."""
    return toolstack.store.read(f"/local/domain/0/backend/qusb/{domid}/0/port/{port}")


def test_main_job(agent: Start, kiosk: Player, testbed: Testbed, toolstack: BenchToolstack) -> None:
    """Plugged, lands on a port, is used by the guest; pulled, its port is cleared; the next attach works."""
    running = agent()
    testbed.plug("1-4", MOUSE)
    device = running.wait_for("1-4", state="attached", guest="kiosk", used=True)
    assert (device["guest_controller"], device["guest_port"], device["rule"]) == (0, 1, "mouse")
    assert port_value(toolstack, 1) == "1-4"
    testbed.unplug("1-4")
    until(lambda: port_value(toolstack, 1) == "", 2, "the stale port's clearing")
    testbed.plug("1-3", STICK)
    running.wait_for("1-3", state="attached", guest="kiosk", guest_port=1)
    testbed.plug("1-4", MOUSE)
    running.wait_for("1-4", state="attached", guest_port=2)
    assert len(toolstack.calls("usbdev-attach")) == 3
    assert toolstack.calls("usbdev-detach") == []


def test_already_plugged_and_adopted_after_kill(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """A device present at the start is attached; the agent after a killed one adopts it and does nothing twice."""
    testbed.plug("1-4", MOUSE)
    running = agent()
    running.wait_for("1-4", state="attached", used=True)
    running.end(signal.SIGKILL)
    running.start()
    assert running.wait_for("1-4", state="attached")["guest"] == "kiosk"
    assert len(kiosk.toolstack.calls("usbdev-attach")) == 1


def test_guest_reboot(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """libxl drops hot-plugged devices at a reboot; the new domain gets them again."""
    testbed.plug("1-4", MOUSE)
    running = agent()
    running.wait_for("1-4", state="attached")
    kiosk.destroy(5)
    running.wait_for("1-4", state="pending", cause="guest_stopped")
    kiosk.boot(6, "kiosk", "pv", controllers=[QUSB])
    assert running.wait_for("1-4", state="attached", used=True)["guest"] == "kiosk"
    assert port_value(kiosk.toolstack, 1, 6) == "1-4"


def test_keyboard_behind_its_hub(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """The hub stays, and a device behind it is attached; if it is unplugged with the hub, its port is cleared."""
    running = agent()
    testbed.plug("1-2", KEYBOARD_HUB)
    testbed.plug("1-2.2", KEYBOARD)
    running.wait_for("1-2.2", state="attached", guest="kiosk")
    assert running.device("1-2")["cause"] == "hub"
    testbed.unplug("1-2")
    until(lambda: port_value(kiosk.toolstack, 1) == "", 2, "the stale port's clearing")


def test_a_reset_is_no_pull(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """T48: for a moment the device has no number, and an event makes the agent read it at that time."""
    running = agent()
    testbed.plug("1-4", MOUSE)
    running.wait_for("1-4", state="attached", used=True)
    tree, number = testbed.tree, testbed.tree.attribute("1-4", "devnum")
    tree.set_attribute("1-4", "devnum", "0\n")
    tree.announce("change", "1-4")
    time.sleep(0.3)
    assert running.device("1-4")["state"] == "attached"
    tree.set_attribute("1-4", "devnum", f"{number}\n")
    time.sleep(0.3)
    running.wait_for("1-4", state="attached", used=True)
    assert set(states(running)) == {"attached"}


def test_a_move_from_guest_to_guest(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """The first guest's qemu resets the device when it closes it (T48): neither a removal nor a failed move is
    concluded.
    """
    kiosk.boot(6, "desk", "pv", controllers=[QUSB])
    running = agent(POLICY.replace("}, attach: kiosk}", "}, attach: [kiosk, desk]}"))
    testbed.plug("1-4", MOUSE)
    running.wait_for("1-4", state="attached", used=True, guest="kiosk")
    for guest in ("desk", "kiosk", "desk"):
        running.client.call("Prefer", guest=guest)
        running.wait_for("1-4", state="attached", used=True, guest=guest)
    assert set(states(running)) == {"attached"}


def test_stale_port_left_by_others(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """T1: one stale port blocks every attach on the host. If it exists at the start, it is cleared."""
    place = testbed.plug("1-3", STICK)
    kiosk.toolstack.xl(
        "usbdev-attach", "5", f"hostbus={place.bus}", f"hostaddr={place.number}", "controller=0", "port=3"
    )
    testbed.unplug("1-3")
    testbed.plug("1-4", MOUSE)
    running = agent()
    running.wait_for("1-4", state="attached")
    assert port_value(kiosk.toolstack, 3) == ""


def test_an_unfit_device_is_reported_before_anything_is_tried(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """T16, T19: no SuperSpeed and no sound over qusb."""
    running = agent()
    testbed.plug("2-1", FAST_STICK)
    testbed.plug("1-4", HEADSET)
    running.wait_for("1-4", state="given_up", cause="unfit_isochronous")
    assert running.device("2-1")["state"] in ("given_up", "host")
    assert kiosk.toolstack.calls("usbdev-attach") == []


def test_controller_is_made(agent: Start, player: Player, testbed: Testbed) -> None:
    """A guest whose device model serves qusb, but which has no controller: one is made, then used (hex, T4, T5)."""
    player.boot(7, "kiosk", "pv", controllers=[])
    running = agent()
    testbed.plug("1-4", MOUSE)
    running.wait_for("1-4", state="attached", used=True)
    [call] = player.toolstack.calls("usbctrl-attach")
    assert list(call.argv)[-4:] == ["7", "type=qusb", "version=2", "ports=31"]


@pytest.mark.parametrize("mode", ["kill", "garbage", "refuse no luck today", "hang"])
def test_xl_misbehaves(agent: Start, kiosk: Player, testbed: Testbed, mode: str) -> None:
    """xl hangs, is killed, prints unknown text: tried again, and then it works."""
    kiosk.toolstack.misbehave("usbdev-attach", mode, 1)
    running = agent(times='{"xl": "1s", "backoff_first": "200ms"}')
    testbed.plug("1-4", MOUSE)
    running.wait_for("1-4", state="attached")
    assert len(kiosk.toolstack.calls("usbdev-attach")) == 2


def test_xl_is_missing(toolstack: BenchToolstack, testbed: Testbed, kiosk: Player) -> None:
    """No xl at the path of the settings: the agent runs, reports what it cannot start, and continues once it exists."""
    running = AgentProcess(toolstack, testbed, POLICY, '{"backoff_first": "200ms"}')
    running.xl_path = toolstack.scratch / "nowhere" / "xl"
    running.start()
    try:
        testbed.plug("1-4", MOUSE)
        device = running.wait_for("1-4", state="failing", cause="refused")
        assert "nowhere/xl" in device["reason"]
        running.xl_path.parent.mkdir()
        running.xl_path.symlink_to(toolstack.xl_path)
        running.wait_for("1-4", state="attached")
    finally:
        running.end()


def test_xl_done_but_killed(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """xl succeeds but is killed before it exits: xenstore shows what is attached, not xl's exit code."""
    kiosk.toolstack.misbehave("usbdev-attach", "done-kill", 1)
    running = agent()
    testbed.plug("1-4", MOUSE)
    running.wait_for("1-4", state="attached")
    assert len(kiosk.toolstack.calls("usbdev-attach")) == 1


def test_a_hanging_guest_delays_no_other(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """One xl hangs for one guest; the other guest gets its device all the same."""
    kiosk.boot(6, "desk", "pv", controllers=[QUSB])
    kiosk.toolstack.misbehave("usbdev-attach", "hang", 1)
    running = agent(times='{"xl": "5s"}')
    testbed.plug("1-4", MOUSE)
    until(lambda: kiosk.toolstack.calls("usbdev-attach"), what="the hanging call")
    testbed.plug("1-2", KEYBOARD_HUB)
    testbed.plug("1-2.2", KEYBOARD)
    running.wait_for("1-2.2", 3, state="attached", guest="desk")
    assert running.device("1-4")["state"] == "attaching"


def test_xenstored_ends(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """The connection is lost: the agent keeps running, reports it, answers, and ends on SIGTERM."""
    running = agent()
    kiosk.toolstack.stop()
    until(lambda: "connection lost" in running.log.read_text(), what="the word about it")
    assert running.status()["version"]
    assert running.end() == 0


def test_device_gone_between_event_and_attach(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """Unplugged during xl's attach: nothing is left behind, and no failure is noted."""
    kiosk.toolstack.misbehave("usbdev-attach", "delay 0.5", 1)
    running = agent()
    testbed.plug("1-4", MOUSE)
    until(lambda: kiosk.toolstack.calls("usbdev-attach"), what="the call")
    testbed.unplug("1-4")
    running.wait_for("1-4", state="absent")
    testbed.plug("1-3", STICK)
    running.wait_for("1-3", state="attached")
    assert [port_value(kiosk.toolstack, n) for n in (1, 2, 3, 4)].count("1-3") == 1


def test_hostile_strings(agent: Start, kiosk: Player, testbed: Testbed) -> None:
    """Control characters, quotes, invalid UTF-8: printed safely, and the device is attached."""
    running = agent('version: 1\nrules: [{match: {device: "dead:beef"}, attach: kiosk}]')
    testbed.plug("1-4", UsbDevice("dead:beef", product="a\x1b[31m\"b,'\u202ec", serial="x\x07y"))
    device = running.wait_for("1-4", state="attached")
    assert device["product"].isprintable()
    assert device["serial"].isprintable()
    assert "\x1b" not in running.log.read_text()
