"""Traps of the real xl and xenstored, checked as facts: the simulator is compared with them, the agent relies on
them.
"""

from __future__ import annotations

import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .player import Player
from .toolstack import BenchToolstack
from .usb import Testbed
from .usbspec import UsbDevice
from .wait import until
from .xswire import IS_INTRODUCED, Xenstore

MOUSE = UsbDevice("046d:c016", speed="low")
PORTS = "/local/domain/0/backend/qusb/5/0/port"


@pytest.fixture
def kiosk(toolstack: BenchToolstack) -> BenchToolstack:
    """A pvh guest 5, `kiosk`, with a qusb controller of four ports and no backend."""
    toolstack.add_domain(5, "kiosk", "pvh")
    assert toolstack.xl("usbctrl-attach", "kiosk", "type=qusb", "version=2", "ports=4").returncode == 0
    return toolstack


def attach(toolstack: BenchToolstack, *words: str, guest: str = "kiosk") -> subprocess.CompletedProcess[str]:
    """usbdev-attach."""
    return toolstack.xl("usbdev-attach", guest, *words)


def test_attach_says_nothing_and_writes_the_busid(kiosk: BenchToolstack, testbed: Testbed) -> None:
    """The plain case: exit 0, no output, the busid in xenstore's backend port."""
    testbed.plug("1-4", MOUSE)
    done = attach(kiosk, "hostbus=1", "hostaddr=2", "controller=0", "port=3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert kiosk.store.read(f"{PORTS}/3") == "1-4"


def test_usb_list_speaks_hex(kiosk: BenchToolstack, testbed: Testbed) -> None:
    """T4: device 20 is listed as 014."""
    testbed.plug("1-4", MOUSE, number=20)
    attach(kiosk, "hostbus=1", "hostaddr=20", "controller=0", "port=1")
    assert kiosk.xl("usb-list", "kiosk").stdout.splitlines()[2] == "  Port 1: Bus 001 Device 014"


def test_leading_zero_is_octal(kiosk: BenchToolstack, testbed: Testbed) -> None:
    """T7: hostaddr=010 is device 8."""
    testbed.plug("1-1", MOUSE, number=8)
    testbed.plug("1-2", MOUSE, number=10)
    attach(kiosk, "hostbus=1", "hostaddr=010", "controller=0", "port=1")
    assert kiosk.store.read(f"{PORTS}/1") == "1-1"


def test_stale_port_blocks_every_attach(kiosk: BenchToolstack, testbed: Testbed) -> None:
    """T1, T2, T3: for every guest. No xl command fixes it; writing "" does, at once."""
    kiosk.add_domain(6, "other", "pv")
    kiosk.xl("usbctrl-attach", "other", "type=qusb")
    testbed.plug("1-4", MOUSE)
    attach(kiosk, "hostbus=1", "hostaddr=2", "controller=0", "port=1")
    testbed.unplug("1-4")
    testbed.plug("1-5", MOUSE)
    other = ("hostbus=1", "hostaddr=3", "controller=0", "port=1")
    assert "refusing to continue" in attach(kiosk, *other, guest="other").stderr
    assert kiosk.xl("usb-list", "kiosk").stdout.splitlines()[2] == "  Port 1:"
    gone = kiosk.xl("usbdev-detach", "kiosk", "0", "1")
    assert (gone.returncode, gone.stderr) == (1, "Unknown device at controller 0 port 1.\n")
    kiosk.store.write(f"{PORTS}/1", "")
    assert attach(kiosk, *other, guest="other").returncode == 0


def test_replug_before_clearing(kiosk: BenchToolstack, testbed: Testbed) -> None:
    """The port resolves to the new device: attach refuses, detach then works."""
    testbed.plug("1-4", MOUSE)
    attach(kiosk, "hostbus=1", "hostaddr=2", "controller=0", "port=1")
    testbed.reenumerate("1-4")
    refused = attach(kiosk, "hostbus=1", "hostaddr=3", "controller=0", "port=1")
    assert "USB device already attached to a domain" in refused.stderr
    assert kiosk.xl("usbdev-detach", "kiosk", "0", "1").returncode == 0
    assert kiosk.store.read(f"{PORTS}/1") == ""


def test_port_out_of_range_is_accepted(kiosk: BenchToolstack, testbed: Testbed) -> None:
    """T9: exit 0, written, and visible nowhere."""
    testbed.plug("1-4", MOUSE)
    assert attach(kiosk, "hostbus=1", "hostaddr=2", "controller=0", "port=9").returncode == 0
    assert kiosk.store.read(f"{PORTS}/9") == "1-4"
    assert "Device" not in kiosk.xl("usb-list", "kiosk").stdout.replace("Devid", "")


def test_occupied_port_and_hub_are_refused(kiosk: BenchToolstack, testbed: Testbed) -> None:
    """The two refusals of xl that are reliable."""
    for port in ("1-1", "1-2"):
        testbed.plug(port, MOUSE)
    testbed.plug("1-3", UsbDevice("05ac:1006", device_class=(9, 0, 1)))
    attach(kiosk, "hostbus=1", "hostaddr=2", "controller=0", "port=1")
    occupied = attach(kiosk, "hostbus=1", "hostaddr=3", "controller=0", "port=1")
    assert "The controller port isn't available" in occupied.stderr
    assert "USB device is not assignable." in attach(kiosk, "hostbus=1", "hostaddr=4").stderr


def test_different_guests_in_parallel(toolstack: BenchToolstack, testbed: Testbed) -> None:
    """Safe when every call names controller and port (T10 is about calls that leave the choice to libxl)."""
    guests = (5, 6, 7)
    for guest in guests:
        toolstack.add_domain(guest, f"guest{guest}", "pvh")
        toolstack.xl("usbctrl-attach", str(guest), "type=qusb", "ports=4")
        testbed.plug(f"1-{guest}", MOUSE, number=guest)
    for _ in range(3):
        together = [
            subprocess.Popen(
                [
                    toolstack.xl_path,
                    "usbdev-attach",
                    str(guest),
                    "hostbus=1",
                    f"hostaddr={guest}",
                    "controller=0",
                    "port=1",
                ]
            )
            for guest in guests
        ]
        assert [process.wait() for process in together] == [0, 0, 0]
        for guest in guests:
            port = f"/local/domain/0/backend/qusb/{guest}/0/port/1"
            assert toolstack.store.read(port) == f"1-{guest}"
            toolstack.store.write(port, "")


def test_missing_controller_crashes_detach(kiosk: BenchToolstack) -> None:
    """xl usbdev-detach of a missing controller crashes with SIGSEGV."""
    assert kiosk.xl("usbdev-detach", "kiosk", "7", "1").returncode == -signal.SIGSEGV


def test_unknown_domid_lists_nothing(kiosk: BenchToolstack) -> None:
    """T26: numeric ids are not checked."""
    listed = kiosk.xl("usb-list", "99")
    assert (listed.returncode, listed.stdout) == (0, "")


def test_without_device_model_no_controller(toolstack: BenchToolstack) -> None:
    """T15: with a message, unlike the next."""
    toolstack.add_domain(5, "kiosk", "pvh", backend=None)
    refused = toolstack.xl("usbctrl-attach", "kiosk", "type=qusb")
    assert refused.returncode == 1
    assert "device model required but not running" in refused.stderr


def test_guest_still_being_made(toolstack: BenchToolstack) -> None:
    """T24: refused without a reason until libxl-json is written."""
    toolstack.add_domain(5, "kiosk", "pvh", ready=False)
    refused = toolstack.xl("usbctrl-attach", "kiosk", "type=qusb")
    assert refused.returncode == 1
    assert "not running" not in refused.stderr
    toolstack.make_ready(5)
    assert toolstack.xl("usbctrl-attach", "kiosk", "type=qusb").returncode == 0


def test_hvm_without_controller_gets_a_phantom(player: Player, testbed: Testbed) -> None:
    """T5: xl makes a controller in xenstore only; it takes every later attach and cannot be detached."""
    toolstack = player.toolstack
    player.boot(6, "win", "hvm")
    testbed.plug("1-4", MOUSE)
    for _ in range(2):
        assert "Bus 'xenusb-0.0' not found" in attach(toolstack, "hostbus=1", "hostaddr=2", guest="win").stderr
    assert toolstack.store.read("/libxl/6/device/vusb/0/type") == "devicemodel"
    assert toolstack.store.read("/libxl/6/device/vusb/0/port/1") == ""
    assert "Device 'xenusb-0' not found" in toolstack.xl("usbctrl-detach", "win", "0").stderr


def test_domains_come_and_go_by_watch(toolstack: BenchToolstack) -> None:
    """@introduceDomain and @releaseDomain fire at registration, at start, at shutdown and at the end; no domid."""
    watcher = Xenstore(toolstack.socket)

    def fired() -> list[str]:
        # The first event may be late on a busy machine; those that belong to it come with it.
        while select.select([watcher], [], [], 0.1 if watcher.events else 3.0)[0]:
            watcher.pump()
        names = [path for path, _ in watcher.events]
        watcher.events.clear()
        return names

    watcher.watch("@introduceDomain")
    watcher.watch("@releaseDomain")
    assert fired() == ["@introduceDomain", "@releaseDomain"]
    toolstack.add_domain(5, "kiosk", "pvh")
    assert fired() == ["@introduceDomain"]
    assert watcher.request(IS_INTRODUCED, "5") == b"T\0"
    toolstack.set_flags(5, "s")
    assert fired() == ["@releaseDomain"]
    toolstack.remove_domain(5)
    assert fired() == ["@releaseDomain"]
    assert watcher.request(IS_INTRODUCED, "5") == b"F\0"
    watcher.close()


def test_paused_guest_in_xl_list(kiosk: BenchToolstack) -> None:
    """The flags reach xl."""
    kiosk.set_flags(5, "p")
    assert "--p---" in kiosk.xl("list", "kiosk").stdout


def agents_xl(toolstack: BenchToolstack, *words: str, timeout: float = 5.0) -> subprocess.CompletedProcess[str]:
    """A call like the agent's: logged, and made to fail."""
    return subprocess.run(
        [str(toolstack.xl_path), *words], capture_output=True, text=True, errors="replace", timeout=timeout, check=False
    )


def test_calls_are_logged_with_their_start(kiosk: BenchToolstack) -> None:
    """The wrapper's time is the start of the process."""
    before = time.monotonic()
    agents_xl(kiosk, "usb-list", "kiosk")
    (call,) = kiosk.calls()
    assert call.argv == ("usb-list", "kiosk")
    assert before < call.time < time.monotonic()


def test_misbehaviour_is_counted(kiosk: BenchToolstack) -> None:
    """Each kind once, then xl works again."""
    for mode in ("kill", "refuse not today", "nothing", "garbage", "done-kill"):
        kiosk.misbehave("usb-list", mode, times=1)
    results = [agents_xl(kiosk, "usb-list", "kiosk") for _ in range(6)]
    assert [result.returncode for result in results] == [-9, 1, 0, 0, -9, 0]
    assert results[1].stderr == "not today\n"
    assert results[2].stdout == ""
    assert results[3].stdout != results[4].stdout == results[5].stdout


def test_hanging_xl(kiosk: BenchToolstack) -> None:
    """Until killed; with done-hang the operation is still done."""
    kiosk.misbehave("usbctrl-attach", "done-hang", times=1)
    with pytest.raises(subprocess.TimeoutExpired):
        agents_xl(kiosk, "usbctrl-attach", "kiosk", "type=qusb", timeout=0.2)
    assert kiosk.store.ls("/libxl/5/device/vusb") == ["0", "1"]


def test_xenstored_can_be_lost_and_started_again(toolstack: BenchToolstack) -> None:
    """Clients see their connection close; the new store is empty."""
    client = Xenstore(toolstack.socket)
    toolstack.stop()
    with pytest.raises(ConnectionError):
        client.pump()
    client.close()
    toolstack.start()
    assert toolstack.store.read("/local/domain/0/name") == "Domain-0"


def test_too_long_a_scratch_path_is_refused(scratch: object) -> None:
    """Before a socket is silently cut short."""
    with pytest.raises(ValueError, match="shorter"):
        BenchToolstack(Path("/tmp") / ("x" * 80))


def test_waiting_gives_up() -> None:
    """With the name of what was waited for."""
    with pytest.raises(AssertionError, match="the moon"):
        until(lambda: False, 0.01, "the moon")
