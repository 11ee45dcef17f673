"""Devices that dom0 uses stay with dom0, on a real Xen host: a mounted stick, the network connection, the last
keyboard. The agent runs as its hardened unit, which must see all of these from its own mount namespace. The tests run
in order.
"""

from typing import Any

import pytest
from labkit import Lab, wait_until
from labkit.config import REPOSITORY

STICK, NIC, KEYS, MORE_KEYS = "46f4:00a1", "0b95:00a2", "046d:00a3", "046d:00a4"
PROTECT = "auto_protect: [storage, network, keyboard]\n"
GUESTS = "guests:\n  kiosk: {controller: {type: qusb, version: 2, ports: 8}}\n"
NONE = f"version: 1\n{GUESTS}{PROTECT}"
TAGS = f'["{STICK}", "{NIC}", "{KEYS}", "{MORE_KEYS}"]'
ALL = f"{NONE}rules:\n  - {{name: all, match: {{device: {TAGS}}}, attach: kiosk}}\n"
CONSOLE = "/sys/devices/virtual/tty/console/active"


@pytest.fixture(scope="module", autouse=True)
def agent(lab: Lab) -> None:
    """xenplug in dom0, run by its own unit, with a policy that attaches nothing yet."""
    if not (REPOSITORY / "packaging" / "xenplug.service").exists():
        pytest.skip("no packaging/xenplug.service in this checkout")
    lab.install()
    lab.policy(NONE)
    lab.must("systemctl start xenplug || { journalctl -u xenplug --no-pager; exit 1; }", 90)


def device(lab: Lab, tag: str) -> dict[str, Any]:
    return next((entry for entry in lab.status()["devices"] if entry["device"] == tag), {})


def stands(lab: Lab, tag: str, *expected: str | None) -> bool:
    entry = device(lab, tag)
    return (entry.get("state"), entry.get("cause"), entry.get("guest"))[: len(expected)] == expected


def below(lab: Lab, tag: str, pattern: str) -> str:
    """The one name that dom0's drivers made below the device."""
    port = lab.host_device(tag).port
    path = f"/sys/bus/usb/devices/{port}:1.*/{pattern}"
    return wait_until(lambda: lab.dom0(f"ls -d {path}").stdout.split(), 40, f"{path} appears")[0].rpartition("/")[2]


def gives(lab: Lab, policy: str) -> None:
    lab.policy(policy)
    lab.must("xenplug reload")


def stays(lab: Lab, tag: str, cause: str) -> None:
    """By rule and by manual override."""
    wait_until(lambda: stands(lab, tag, "protected", cause, None), 30, f"protected, last {device(lab, tag)}")
    refused = lab.dom0(f"xenplug attach {tag} kiosk")
    assert refused.returncode == 1 and "protected" in refused.stderr, refused.stderr
    assert tag not in lab.guest_tags("kiosk")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["mounted", "in another mount namespace"])
def test_a_mounted_stick(lab: Lab, elsewhere: bool) -> None:
    gives(lab, NONE)
    stick = lab.gadget("stick", STICK, function="mass_storage")
    disk = below(lab, STICK, "host*/target*/*/block/*")
    lab.must(f"mke2fs -q -F /dev/{disk} && mkdir -p /mnt/stick")
    mount = f"mount /dev/{disk} /mnt/stick"
    if elsewhere:
        inside = f"{mount} && touch /run/lab-mounted && sleep 1000"
        lab.must(f"systemd-run -q --unit=lab-mount -p PrivateMounts=yes sh -c '{inside}'")
        wait_until(lambda: lab.dom0("test -e /run/lab-mounted").returncode == 0, 20, "mounted there")
        assert "/mnt/stick" not in lab.must("cat /proc/mounts")
    else:
        lab.must(mount)
    gives(lab, ALL)
    stays(lab, STICK, "in_use")
    lab.must("systemctl stop lab-mount; rm /run/lab-mounted" if elsewhere else "umount /mnt/stick")
    stays(lab, STICK, "in_use")  # until it is unplugged or released
    lab.must(f"xenplug release {STICK}", 60)
    wait_until(lambda: stands(lab, STICK, "attached"), 60, f"attached, last {device(lab, STICK)}")
    stick.delete()
    wait_until(lambda: not device(lab, STICK), 20, "gone")


def test_the_way_to_the_network(lab: Lab) -> None:
    gives(lab, NONE)
    nic = lab.gadget("nic", NIC, function="ecm")
    name = below(lab, NIC, "net/*")
    lab.must(f"ip link set {name} up && ip route add default dev {name} metric 9000")
    gives(lab, ALL)
    stays(lab, NIC, "in_use")
    nic.delete()
    wait_until(lambda: not device(lab, NIC), 20, "gone")


def test_the_last_keyboard(lab: Lab) -> None:
    """The lab's console is Xen's; dom0 is given a fake screen, and its other keyboard is removed."""
    gives(lab, NONE)
    lab.must(f"echo tty0 > /run/console && mount --bind /run/console {CONSOLE}")
    lab.must("for s in /sys/bus/serio/drivers/atkbd/serio*; do [ ! -e $s ] || echo ${s##*/} > ${s%/*}/unbind; done")
    first = lab.gadget("keys", KEYS, interfaces="03:01:01")
    wait_until(lambda: lab.host_device(KEYS).drivers == ("usbhid",), 20, "dom0 has it")
    gives(lab, ALL)
    stays(lab, KEYS, "last_keyboard")
    second = lab.gadget("more", MORE_KEYS, interfaces="03:01:01")
    wait_until(lambda: stands(lab, KEYS, "attached"), 60, f"the first may go, last {device(lab, KEYS)}")
    stays(lab, MORE_KEYS, "last_keyboard")
    second.delete()
    first.delete()
    lab.must(f"umount {CONSOLE}")
