"""Devices that lie in their descriptors, on a real Xen host: rules see every interface that the kernel would see, and
devices blocked by default stay blocked. The tests run in order, each starting where the one before ended.
"""

from typing import Any

import pytest
from labkit import Lab, wait_until
from labkit.config import REPOSITORY

HONEST, SWALLOWER, MIXED = "1111:0001", "1111:0002", "1111:0003"
POLICY = """\
version: 1
default: block
guests:
  kiosk: {controller: {type: qusb, version: 2, ports: 8}}
rules:
  - {name: no disks, match: {kind: storage}, action: block}
  - {name: keyboards, match: {interfaces: ["03:*:*"]}, attach: kiosk}
"""
OPEN = POLICY.replace("default: block\n", "")
KEYBOARD, DISK, HUB = (3, 1, 1), (8, 6, 0x50), (9, 0, 0)


def device(tag: str, length: int = 18) -> bytes:
    """A device descriptor that says it is `length` long."""
    vendor, product = (int(part, 16).to_bytes(2, "little") for part in tag.split(":"))
    return bytes((length, 1, 0, 2, 0, 0, 0, 64, *vendor, *product, 0, 1, 0, 0, 0, 1))


def configuration(*triples: tuple[int, int, int]) -> bytes:
    """Interfaces with an interrupt endpoint each, disks with two bulk endpoints."""
    parts = []
    for number, triple in enumerate(triples):
        bulk = triple == DISK
        parts.append(bytes((9, 4, number, 0, 1 + bulk, *triple, 0)))
        parts.append(bytes((7, 5, 0x81 + number, 2 if bulk else 3, *((0, 2) if bulk else (8, 0)), 8)))
        parts += [bytes((7, 5, 0x01 + number, 2, 0, 2, 0))] if bulk else []
    body = b"".join(parts)
    return bytes((9, 2, *(9 + len(body)).to_bytes(2, "little"), len(triples), 1, 0, 0x80, 50)) + body


@pytest.fixture(scope="module", autouse=True)
def agent(lab: Lab) -> None:
    """xenplug in dom0, run by its own unit."""
    if not (REPOSITORY / "packaging" / "xenplug.service").exists():
        pytest.skip("no packaging/xenplug.service in this checkout")
    lab.install()
    lab.policy(POLICY)
    lab.must("modprobe vhci-hcd")
    lab.must("systemctl start xenplug || { journalctl -u xenplug --no-pager; exit 1; }", 90)


def shown(lab: Lab, tag: str) -> dict[str, Any]:
    return next((entry for entry in lab.status()["devices"] if entry["device"] == tag), {})


def authorized(lab: Lab, tag: str) -> str:
    return lab.must(f"cat /sys/bus/usb/devices/{lab.host_device(tag).port}/authorized").strip()


def is_shut(lab: Lab, tag: str) -> bool:
    return authorized(lab, tag) == "0" and not any(lab.host_device(tag).drivers)


def stays_blocked(lab: Lab, tag: str) -> None:
    """It is decided, and it is not admitted, neither now nor one round later."""
    wait_until(lambda: shown(lab, tag).get("state") == "blocked", 40, f"blocked, last {shown(lab, tag)}")
    assert is_shut(lab, tag)
    lab.must("xenplug reload")
    assert (shown(lab, tag).get("state"), is_shut(lab, tag)) == ("blocked", True)


def test_an_honest_keyboard_goes_to_the_guest(lab: Lab) -> None:
    """Otherwise the tests below would prove nothing."""
    lab.liar("honest", 0, device(HONEST), configuration(KEYBOARD))
    wait_until(lambda: shown(lab, HONEST).get("state") == "attached", 60, f"attached, last {shown(lab, HONEST)}")
    lab.must("liar.py unplug honest")
    wait_until(lambda: not shown(lab, HONEST), 30, "gone")


def test_a_disk_that_the_device_descriptors_length_swallows_is_seen(lab: Lab) -> None:
    """The length ends after the disk's interface: a parser that trusts it finds only a keyboard."""
    made = configuration(DISK, KEYBOARD)
    lab.liar("swallower", 1, device(SWALLOWER, 18 + 9 + 9 + 7 + 7), made)
    stays_blocked(lab, SWALLOWER)
    entry = shown(lab, SWALLOWER)
    assert entry["rule"] == "no disks", entry
    lab.must("liar.py unplug swallower")


def test_keyboard_disk_and_hub_in_one_is_no_hub(lab: Lab) -> None:
    lab.liar("mixed", 2, device(MIXED), configuration(KEYBOARD, DISK, HUB))
    stays_blocked(lab, MIXED)
    assert "usb-storage" not in lab.must(f"ls -l /sys/bus/usb/devices/{lab.host_device(MIXED).port}/")


def test_without_the_agent_dom0_would_have_opened_it(lab: Lab) -> None:
    """The same device, the policy open and the agent gone: the disk's driver binds."""
    lab.must("liar.py unplug mixed")
    wait_until(lambda: not shown(lab, MIXED), 30, "gone")
    lab.policy(OPEN)
    lab.must("xenplug reload")
    lab.must("systemctl stop xenplug", 90)
    lab.liar("mixed", 2, device(MIXED), configuration(KEYBOARD, DISK, HUB))
    wait_until(lambda: "usb-storage" in lab.host_device(MIXED).drivers, 40, "dom0's driver has the disk")
