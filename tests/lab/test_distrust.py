"""Distrust on a real Xen host: a device that is bound for a guest meets no driver of dom0's, what is not named stays
out, and what dom0 needs stays in. The tests run in order, each starting where the one before ended."""

from typing import Any

import pytest
from labkit import Lab, wait_until
from labkit.config import REPOSITORY

TABLET, STICK = "0627:0001", "46f4:0001"
GUESTS = "guests:\n  kiosk: {controller: {type: qusb, version: 2, ports: 8}}\n"
RULES = "rules:\n  - {name: sticks, match: {kind: storage}, attach: kiosk}\n"
OPEN = f"version: 1\n{GUESTS}{RULES}"
CLOSED = f"version: 1\n{GUESTS}{RULES}default: block\n"
ROOT_HUBS = "/sys/bus/usb/devices/usb*/"


@pytest.fixture(scope="module", autouse=True)
def agent(lab: Lab) -> None:
    """xenplug in dom0, run by its own unit."""
    if not (REPOSITORY / "packaging" / "xenplug.service").exists():
        pytest.skip("no packaging/xenplug.service in this checkout")
    lab.install()
    lab.policy(OPEN)
    lab.must("dmesg --clear")
    lab.must("systemctl start xenplug || { journalctl -u xenplug --no-pager; exit 1; }", 90)


def device(lab: Lab, tag: str) -> dict[str, Any]:
    return next((entry for entry in lab.status()["devices"] if entry["device"] == tag), {})


def attached(lab: Lab, tag: str) -> bool:
    entry = device(lab, tag)
    return entry.get("state") == "attached" and entry.get("guest") == "kiosk"


def defaults(lab: Lab, name: str) -> set[str]:
    return set(lab.must(f"cat {ROOT_HUBS}{name}").split())


def dom0_disks(lab: Lab) -> list[str]:
    """SCSI disks that dom0's usb-storage ever made since the log was cleared."""
    return [line for line in lab.must("dmesg").splitlines() if "usb-storage" in line and "scsi host" in line]


def test_the_root_hubs_hold_back_interfaces_only(lab: Lab) -> None:
    assert defaults(lab, "interface_authorized_default") == {"0"}
    assert "0" not in defaults(lab, "authorized_default")


def test_a_stick_for_the_guest_never_reaches_dom0(lab: Lab) -> None:
    lab.plug("s1", "storage", serial="S1")
    wait_until(lambda: attached(lab, STICK), 60, f"attached, last {device(lab, STICK)}")
    wait_until(lambda: STICK in lab.guest_tags("kiosk"), 40, "kiosk sees the stick")
    wait_until(lambda: device(lab, STICK).get("used"), 20, "and uses it")
    assert dom0_disks(lab) == []


def test_pulled_and_plugged_again_it_is_not_either(lab: Lab) -> None:
    lab.unplug("s1")
    wait_until(lambda: not device(lab, STICK), 20, "gone")
    lab.plug("s2", "storage", serial="S2")
    wait_until(lambda: attached(lab, STICK) and device(lab, STICK)["used"], 60, f"used, last {device(lab, STICK)}")
    assert dom0_disks(lab) == []


def test_detached_manually_it_is_dom0s(lab: Lab) -> None:
    lab.must(f"xenplug detach {STICK}", 60)
    wait_until(lambda: dom0_disks(lab) != [], 30, "dom0's driver has it")
    lab.must(f"xenplug release {STICK}", 60)
    wait_until(lambda: attached(lab, STICK), 60, "the rule again")
    lab.unplug("s2")
    wait_until(lambda: not device(lab, STICK), 20, "gone")


def test_what_stays_with_dom0_has_its_driver(lab: Lab) -> None:
    lab.plug("t1", "tablet")
    wait_until(lambda: lab.host_device(TABLET).drivers == ("usbhid",), 20, "dom0's driver has it")
    lab.unplug("t1")


def test_a_hub_works_and_what_hangs_on_it(lab: Lab) -> None:
    lab.plug("h1", "hub", bus="xhci")
    wait_until(lambda: any(d.drivers == ("hub",) for d in lab.host_devices()), 20, "the hub has its driver")
    lab.unplug("h1")


def test_closed_by_default(lab: Lab) -> None:
    lab.policy(CLOSED)
    lab.must("xenplug reload")
    assert defaults(lab, "authorized_default") == {"0"}
    lab.plug("t2", "tablet")
    wait_until(lambda: device(lab, TABLET).get("state") == "blocked", 20, "blocked")
    assert not any(lab.host_device(TABLET).drivers)
    lab.plug("s3", "storage", serial="S3")
    wait_until(lambda: attached(lab, STICK), 60, "what the policy names is let in")


def test_a_killed_agent_leaves_nothing_open(lab: Lab) -> None:
    lab.must("systemctl kill -s KILL xenplug; sleep 1; systemctl stop xenplug", 90)
    assert defaults(lab, "authorized_default") == {"0"}
    lab.unplug("t2")
    lab.plug("t3", "tablet")
    assert not any(lab.host_device(TABLET).drivers)
    lab.must("systemctl start xenplug", 90)
    wait_until(lambda: attached(lab, STICK), 30, "adopted")
    assert device(lab, TABLET)["state"] == "blocked"


def test_stopped_with_an_open_policy_everything_is_restored(lab: Lab) -> None:
    lab.policy(OPEN)
    lab.must("xenplug reload")
    lab.must("systemctl stop xenplug", 90)
    assert "0" not in defaults(lab, "authorized_default") | defaults(lab, "interface_authorized_default")
