"""Facts of the real toolstack that xenplug is built on, without xenplug: one device's life, step by step. The
tests below run in order and share their device."""

import pytest
from labkit import Lab, wait_until
from labkit.ssh import Done

TABLET = "0627:0001"


def guest_has(lab: Lab, name: str, *tags: str) -> None:
    wait_until(lambda: lab.guest_tags(name) == sorted(tags), 20, f"{name} sees {tags}, at last {lab.guest_sees(name)}")


def attach(lab: Lab, tag: str, guest: str, port: int) -> Done:
    device = lab.host_device(tag)
    words = [f"hostbus={device.bus}", f"hostaddr={device.address}", "controller=0", f"port={port}"]
    return lab.xl("usbdev-attach", guest, *words)


def test_clean_host(lab: Lab) -> None:
    assert lab.host_devices() == []
    assert lab.xenstore(f"/local/domain/0/backend/qusb/{lab.domid('kiosk')}/0/state") == "4"
    assert lab.xenstore(f"/local/domain/0/backend/qusb/{lab.domid('plain')}/0/state") != "4"
    assert lab.xl("usb-list", "bare").stdout == ""


def test_attached_device_appears_in_the_guest(lab: Lab) -> None:
    lab.plug("t1", "tablet")
    done = attach(lab, TABLET, "kiosk", 2)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    guest_has(lab, "kiosk", TABLET)
    configured = wait_until(lambda: [s for s in lab.guest_sees("kiosk") if s.interfaces], 10, "it is configured")
    seen = configured[0]
    assert (seen.speed, seen.product, seen.port) == ("480", "QEMU USB Tablet", "1-2")
    assert lab.host_device(TABLET).drivers == ("usbfs",)
    assert lab.guest_port("kiosk", 0, 2) == lab.host_device(TABLET).port


def test_pulled_device_leaves_a_stale_port(lab: Lab) -> None:
    busid = lab.host_device(TABLET).port
    lab.unplug("t1")
    guest_has(lab, "kiosk")
    wait_until(lambda: lab.host_devices() == [], 10, "gone from dom0")
    assert lab.guest_port("kiosk", 0, 2) == busid
    assert lab.xl("usbdev-detach", "kiosk", 0, 2).stderr == "Unknown device at controller 0 port 2.\n"


def test_stale_port_blocks_every_attach(lab: Lab) -> None:
    # another bus, so that the stale port does not name it
    lab.plug("t2", "tablet", bus="xhci")
    done = attach(lab, TABLET, "desk", 1)
    assert done.returncode == 1
    assert "refusing to continue" in done.stderr


def test_cleared_port_lets_attach_work_again(lab: Lab) -> None:
    lab.xenstore_write(lab.port_path("kiosk", 0, 2), "")
    assert attach(lab, TABLET, "desk", 1).returncode == 0
    guest_has(lab, "desk", TABLET)


def test_devices_do_not_come_back_after_a_reboot(lab: Lab) -> None:
    boots, domid = lab.guest_boots("desk"), lab.domid("desk")
    lab.must("xl reboot desk")
    wait_until(lambda: lab.guest_boots("desk") > boots, 60, "desk boots again")
    assert lab.domid("desk") != domid
    assert lab.guest_port("desk", 0, 1) in ("", None)


@pytest.mark.parametrize("speed", ["high-speed", "full-speed"])
def test_device_of_any_tag(lab: Lab, speed: str) -> None:
    gadget = lab.gadget("key", "1050:0407", product="Fake Key", serial="S1", speed=speed)
    assert attach(lab, "1050:0407", "kiosk", 3).returncode == 0
    guest_has(lab, "kiosk", "1050:0407")
    assert lab.xl("usbdev-detach", "kiosk", 0, 3).returncode == 0
    guest_has(lab, "kiosk")
    gadget.delete()


def test_firmware_guest_takes_a_device(lab: Lab) -> None:
    """For an HVM guest, its device model shows the delivery."""
    lab.gadget("stick", "0951:1666", product="Stick", function="mass_storage")
    assert attach(lab, "0951:1666", "bios", 1).returncode == 0
    assert "Stick" in lab.device_model("bios", "info usb")
