"""The played guests with the real xl: they take, use and return devices as real ones do."""

from __future__ import annotations

import time

import pytest

from .player import Player
from .qusb import Manners
from .toolstack import BenchToolstack
from .usb import Testbed
from .usbspec import UsbDevice
from .wait import until

MOUSE = UsbDevice("046d:c016", speed="low")
STICK = UsbDevice("0781:5567")
FAST = UsbDevice("0781:5581", speed="super")
QUSB = ("type=qusb", "version=2", "ports=4")


def attach(player: Player, domid: int, busid: str, port: int, controller: int = 0) -> tuple[int, str]:
    """Attach what is plugged at `busid`; exit code and stderr."""
    tree = player.testbed.tree
    address = (f"hostbus={tree.attribute(busid, 'busnum')}", f"hostaddr={tree.attribute(busid, 'devnum')}")
    done = player.toolstack.xl("usbdev-attach", str(domid), *address, f"controller={controller}", f"port={port}")
    return done.returncode, done.stderr


@pytest.fixture
def kiosk(player: Player) -> Player:
    """A pvh guest 5 with a connected qusb controller."""
    player.boot(5, "kiosk", "pvh", controllers=[QUSB])
    until(lambda: player.toolstack.store.read("/local/domain/5/device/vusb/0/state") == "4", what="the frontend")
    return player


def test_taken_used_and_given_back(kiosk: Player, testbed: Testbed) -> None:
    """The plain case of qusb."""
    testbed.plug("1-4", MOUSE)
    attach(kiosk, 5, "1-4", 1)
    kiosk.wait_used(5, "1-4")
    kiosk.toolstack.xl("usbdev-detach", "5", "0", "1")
    kiosk.wait_at_host("1-4")
    assert not kiosk.holds(5, "1-4")


def test_no_frontend_takes_and_does_not_use(player: Player, testbed: Testbed) -> None:
    """T45: dom0 loses the device and no guest gets it, until the driver connects later and uses it."""
    player.boot(5, "kiosk", "pvh", frontend=False, controllers=[QUSB])
    testbed.plug("1-4", MOUSE)
    attach(player, 5, "1-4", 1)
    until(lambda: player.holds(5, "1-4"))
    until(lambda: player.toolstack.store.read("/local/domain/0/backend/qusb/5/0/state") == "2")
    until(lambda: testbed.tree.drivers("1-4") == [None])
    player.set_frontend(5, True)
    player.wait_used(5, "1-4")


@pytest.mark.parametrize("cleared", [False, True], ids=["left", "cleared"])
def test_a_busid_that_names_no_device(kiosk: Player, testbed: Testbed, cleared: bool) -> None:
    """Lab 16: the guest sends a request to a device that never existed, and qemu crashes and loses all devices; not if
    the port is cleared soon.
    """
    testbed.plug("1-4", MOUSE)
    attach(kiosk, 5, "1-4", 1)
    kiosk.wait_used(5, "1-4")
    port = "/local/domain/0/backend/qusb/5/0/port/2"
    kiosk.toolstack.store.write(port, "1-9")
    if cleared:
        time.sleep(0.5)  # qemu has seen it by then
        kiosk.toolstack.store.write(port, "")
        with pytest.raises(AssertionError):
            until(lambda: not kiosk.holds(5, "1-4"), 3.5)
    else:
        until(lambda: not kiosk.holds(5, "1-4"), 3.5)


@pytest.mark.parametrize(("device", "port", "version"), [(FAST, "2-1", "2"), (STICK, "1-1", "1")])
def test_a_wrong_speed_is_reported_to_nobody(player: Player, device: UsbDevice, port: str, version: str) -> None:
    """T16, T17: exit 0, a line in qemu's log, the port keeps the busid."""
    player.boot(5, "kiosk", "pvh", controllers=[("type=qusb", f"version={version}")])
    player.testbed.plug(port, device)
    assert attach(player, 5, port, 1) == (0, "")
    until(lambda: f"device {port} wrong speed" in player.qemu_log(5), what="qemu's log")
    player.wait_at_host(port)
    assert player.toolstack.store.read("/local/domain/0/backend/qusb/5/0/port/1") == port


def test_written_over_is_ignored(kiosk: Player, testbed: Testbed) -> None:
    """T34."""
    testbed.plug("1-1", MOUSE)
    testbed.plug("1-2", MOUSE)
    attach(kiosk, 5, "1-1", 1)
    kiosk.wait_used(5, "1-1")
    kiosk.toolstack.store.write("/local/domain/0/backend/qusb/5/0/port/1", "1-2")
    attach(kiosk, 5, "1-1", 2)  # anything that makes qemu check its ports
    assert not kiosk.holds(5, "1-2")
    assert kiosk.holds(5, "1-1")


def test_a_replug_is_grabbed_and_the_guest_does_not_see_it(
    player: Player, toolstack: BenchToolstack, testbed: Testbed
) -> None:
    """T20: held and unused; cleared and set again it works."""
    player.manners = Manners(scan=0.05)
    player.boot(5, "kiosk", "pvh", controllers=[QUSB])
    testbed.plug("1-4", MOUSE)
    attach(player, 5, "1-4", 1)
    player.wait_used(5, "1-4")
    testbed.reenumerate("1-4")
    until(lambda: player.holds(5, "1-4") and testbed.tree.drivers("1-4") == [None])
    toolstack.xl("usbdev-detach", "5", "0", "1")
    player.wait_at_host("1-4")
    attach(player, 5, "1-4", 1)
    player.wait_used(5, "1-4")


def pull_with_neighbour(kiosk: Player) -> None:
    """Two devices on one controller; the one attached first is pulled."""
    for number, port in enumerate(("1-1", "1-2"), start=1):
        kiosk.testbed.plug(port, MOUSE)
        attach(kiosk, 5, port, number)
        kiosk.wait_used(5, port)
    kiosk.testbed.unplug("1-1")


def test_bystander_is_lost_when_the_port_is_not_cleared(kiosk: Player) -> None:
    """Seen on real Xen: its node stays open, dom0's driver is back."""
    pull_with_neighbour(kiosk)
    assert kiosk.wait_at_host("1-2") > 0.5
    assert kiosk.holds(5, "1-2")


def test_bystander_is_kept_when_the_port_is_cleared(kiosk: Player) -> None:
    """Within half a second."""
    pull_with_neighbour(kiosk)
    kiosk.toolstack.store.write("/local/domain/0/backend/qusb/5/0/port/1", "")
    with pytest.raises(AssertionError):
        kiosk.wait_at_host("1-2", 1.2)


def test_same_port_on_two_controllers_kills_qemu(kiosk: Player, testbed: Testbed) -> None:
    """The assertion in qemu 7.2; its devices stay without a driver."""
    kiosk.toolstack.xl("usbctrl-attach", "5", *QUSB)
    for controller, port in enumerate(("1-1", "1-2")):
        testbed.plug(port, MOUSE)
        attach(kiosk, 5, port, 1, controller)
    until(lambda: "Assertion" in kiosk.qemu_log(5), what="the abort")
    assert testbed.tree.drivers("1-1") == [None]


def test_dead_device_model_says_yes(kiosk: Player, testbed: Testbed) -> None:
    """Attach exits 0 but no device model opens the device; those it held stay without a driver (T36)."""
    for port in ("1-3", "1-4"):
        testbed.plug(port, MOUSE)
    attach(kiosk, 5, "1-3", 2)
    kiosk.wait_used(5, "1-3")
    kiosk.kill_device_model(5)
    assert attach(kiosk, 5, "1-4", 1) == (0, "")
    assert testbed.tree.drivers("1-4") == ["usbhid"]
    assert testbed.tree.drivers("1-3") == [None]


def test_silent_device_model(kiosk: Player, testbed: Testbed) -> None:
    """The busid is written, but no device model opens the device."""
    kiosk.set_silent(5, True)
    testbed.plug("1-4", MOUSE)
    assert attach(kiosk, 5, "1-4", 1) == (0, "")
    with pytest.raises(AssertionError):
        until(lambda: kiosk.holds(5, "1-4"), 0.15)


def test_a_destroyed_guest_returns_its_devices(kiosk: Player, testbed: Testbed) -> None:
    """The device model ends in order; nothing of the guest is left."""
    testbed.plug("1-4", MOUSE)
    attach(kiosk, 5, "1-4", 1)
    kiosk.wait_used(5, "1-4")
    kiosk.destroy(5)
    kiosk.wait_at_host("1-4")
    assert kiosk.toolstack.store.ls("/local/domain/0/backend/qusb") == []


def test_controller_detach_is_answered(kiosk: Player) -> None:
    """A live frontend and backend close: no 20 seconds, exit 0."""
    assert kiosk.toolstack.xl("usbctrl-detach", "5", "0").returncode == 0
    assert kiosk.toolstack.store.read("/local/domain/0/backend/qusb/5/0/state") is None


def test_devicemodel(player: Player, testbed: Testbed) -> None:
    """Emulated USB through QMP: taken, used; a pull is not noticed and the id stays until device_del."""
    xl = player.toolstack.xl
    player.boot(6, "win", "hvm", controllers=[("version=3", "ports=15")])
    testbed.plug("1-4", MOUSE)
    assert attach(player, 6, "1-4", 1) == (0, "")
    player.wait_used(6, "1-4")
    testbed.unplug("1-4")
    testbed.plug("1-4", MOUSE, number=2)
    player.toolstack.store.write("/libxl/6/device/vusb/0/port/1", "")
    assert "Duplicate device ID 'xenusb-1-2'" in attach(player, 6, "1-4", 1)[1]
    assert xl("qemu-monitor-command", "6", "device_del xenusb-1-2").stdout == "\n"
    assert attach(player, 6, "1-4", 1) == (0, "")
    assert "Error: Device 'x' not found" in xl("qemu-monitor-command", "6", "device_del x").stdout


def test_devicemodel_speed_mismatch(player: Player, testbed: Testbed) -> None:
    """T18: the default controller takes 480 Mb/s only, and reports that."""
    player.boot(6, "win", "hvm", controllers=[()])
    testbed.plug("1-4", MOUSE)
    code, text = attach(player, 6, "1-4", 1)
    assert code == 1
    assert "speed mismatch" in text
