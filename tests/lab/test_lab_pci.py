"""Whole host controllers on a real Xen host: the second xHCI of the machine goes to a guest and comes back. The tests
run in order, each starting where the one before ended."""

from collections.abc import Iterator
from typing import Any

import pytest
from labkit import Lab, wait_until

TABLET, SERIAL = "0627:0001", "0403:6001"
POLICY = """
version: 1
protect: [{device: "0403:6001"}]
rules:
  - {name: the tablet, match: {device: "0627:0001"}, attach: kiosk, via: pci}
  - {name: the disk, match: {device: "46f4:0001"}, attach: kiosk, fallback: {via: pci, when: [unfit]}}
"""


@pytest.fixture(scope="module")
def bdf(lab: Lab) -> str:
    """The second xHCI controller; the agent runs when this returns."""
    lab.install()
    lab.policy(POLICY)
    lab.must("systemctl start xenplug || { journalctl -u xenplug --no-pager; exit 1; }", 90)
    return lab.must("basename $(ls -d /sys/bus/pci/drivers/xhci_hcd/0000:*:0b.0)").strip()


@pytest.fixture(autouse=True)
def story(lab: Lab) -> Iterator[None]:
    """The output of the agent and xl, shown if a test fails."""
    yield
    print("\n".join(lab.agent_log().splitlines()[-60:]))
    print(lab.dom0("tail -n 30 /var/log/xen/xl-kiosk.log; xl list; xenstore-ls -f /local/domain/0/backend/pci").stdout)


def driver(lab: Lab, bdf: str) -> str:
    return lab.must(f"basename $(readlink /sys/bus/pci/devices/{bdf}/driver || echo none)").strip()


def device(lab: Lab, tag: str = TABLET) -> dict[str, Any]:
    """The agent's status of the device; empty if it has none."""
    return next((entry for entry in lab.status()["devices"] if entry["device"] == tag), {})


def given(lab: Lab, bdf: str, tag: str = TABLET) -> bool:
    """The agent and xl both report it."""
    entry = device(lab, tag)
    return entry.get("state") == "pci" and entry.get("guest") == "kiosk" and bdf in lab.xl("pci-list", "kiosk").stdout


def home(lab: Lab, bdf: str) -> bool:
    return driver(lab, bdf) == "xhci_hcd" and bdf not in lab.xl("pci-list", "kiosk").stdout


def goes(lab: Lab, bdf: str, tag: str = TABLET) -> None:
    """It arrives, as shown by the agent, by xl, and in the guest."""
    wait_until(lambda: given(lab, bdf, tag), 90, f"handed over, last {device(lab, tag)}")
    wait_until(lambda: tag in lab.guest_tags("kiosk"), 60, f"kiosk sees {tag}")


def comes_back(lab: Lab, bdf: str) -> None:
    """dom0 drives it again, and sees the tablet."""
    wait_until(lambda: home(lab, bdf), 90, f"back with dom0, last {device(lab)}")
    lab.host_device(TABLET, 60)


def test_a_protected_device_on_it_blocks_the_handover(lab: Lab, bdf: str) -> None:
    lab.plug("s1", "serial", bus="xhci2")
    lab.host_device(SERIAL)
    lab.plug("t1", "tablet", bus="xhci2")
    wait_until(lambda: device(lab).get("cause") == "sibling", 60, f"refused, last {device(lab)}")
    assert (device(lab)["state"], driver(lab, bdf)) == ("given_up", "xhci_hcd")
    assert SERIAL in device(lab)["reason"]


def test_it_goes_once_nothing_blocks_it(lab: Lab, bdf: str) -> None:
    lab.unplug("s1")
    goes(lab, bdf)
    assert driver(lab, bdf) == "pciback"
    assert TABLET not in [entry.tag for entry in lab.host_devices()]


def test_a_killed_agent_finds_it_again(lab: Lab, bdf: str) -> None:
    lab.must("systemctl kill -s KILL xenplug; sleep 1; systemctl reset-failed xenplug; systemctl start xenplug", 90)
    wait_until(lambda: given(lab, bdf), 60, f"known again, last {device(lab)}")


def test_a_rebooted_guest_gets_it_back(lab: Lab, bdf: str) -> None:
    boots = lab.guest_boots("kiosk")
    lab.must("xl reboot kiosk")
    wait_until(lambda: lab.guest_boots("kiosk") > boots, 120, "kiosk boots again")
    goes(lab, bdf)


def test_it_comes_back_when_the_guest_stops(lab: Lab, bdf: str) -> None:
    lab.must("xl shutdown -w kiosk", 120)
    comes_back(lab, bdf)
    wait_until(lambda: device(lab).get("cause") == "guest_stopped", 30, f"it waits, last {device(lab)}")


def test_it_goes_when_the_guest_starts(lab: Lab, bdf: str) -> None:
    lab.start_guest("kiosk")
    goes(lab, bdf)


def test_detached_manually_it_comes_back_and_stays(lab: Lab, bdf: str) -> None:
    lab.must(f"xenplug detach {bdf}", 120)
    comes_back(lab, bdf)
    wait_until(lambda: device(lab).get("cause") == "controller_by_hand", 30, f"it stays, last {device(lab)}")


def test_an_agent_killed_in_the_middle(lab: Lab, bdf: str) -> None:
    """Killed as soon as pciback has it: the next agent continues."""
    link = f"/sys/bus/pci/devices/{bdf}/driver"
    lab.must(
        f"xenplug release {bdf} & for n in $(seq 400); do case $(readlink {link}) in *pciback) break;; esac; "
        "sleep 0.05; done; systemctl kill -s KILL xenplug; sleep 1; systemctl reset-failed xenplug; "
        "systemctl start xenplug",
        120,
    )
    goes(lab, bdf)


def test_a_fallback_for_what_the_guest_cannot_have_over_usb(lab: Lab, bdf: str) -> None:
    """A SuperSpeed disk does not fit a qusb controller."""
    lab.must(f"xenplug detach {bdf}", 120)
    comes_back(lab, bdf)
    lab.unplug("t1")
    wait_until(lambda: not device(lab), 30, "the tablet is gone")
    lab.plug("d1", "storage", bus="xhci2", serial="D1")
    lab.host_device("46f4:0001")
    lab.must(f"xenplug release {bdf}", 60)
    goes(lab, bdf, "46f4:0001")
