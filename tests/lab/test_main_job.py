"""The main job on a real Xen host: a policy, the agent as its systemd unit, a device plugged, a device pulled. The
tests run in order, each starting where the one before ended."""

import re
from typing import Any

import pytest
from labkit import Lab, wait_until
from labkit.config import REPOSITORY

TABLET = "0627:0001"
POLICY = f"""
version: 1
guests:
  kiosk: {{controller: {{type: qusb, version: 2, ports: 8}}}}
rules:
  - name: the tablet
    match: {{device: "{TABLET}"}}
    attach: kiosk
"""


@pytest.fixture(scope="module", autouse=True)
def agent(lab: Lab) -> None:
    """xenplug in dom0, with Debian's own Python packages, run by systemd."""
    if not (REPOSITORY / "packaging" / "xenplug.service").exists():
        pytest.skip("no packaging/xenplug.service in this checkout")
    lab.install()
    lab.policy(POLICY)
    lab.must("systemctl start xenplug || { journalctl -u xenplug --no-pager; exit 1; }", 90)


def device(lab: Lab, tag: str = TABLET) -> dict[str, Any]:
    """The agent's status of the device; empty if it has none."""
    return next((entry for entry in lab.status()["devices"] if entry["device"] == tag), {})


def attached(lab: Lab, guest: str) -> bool:
    entry = device(lab)
    return entry.get("state") == "attached" and entry.get("guest") == guest


def stale_ports(lab: Lab) -> list[str]:
    """Guest ports that name a device that dom0 no longer has."""
    tree = lab.must("xenstore-ls -f /local/domain/0/backend/qusb")
    named = re.findall(r'/port/\d+ = "(.+)"', tree)
    return sorted(set(named) - {entry.port for entry in lab.host_devices()})


def test_the_agent_knows_policy_and_guests(lab: Lab) -> None:
    status = lab.status()
    assert status["policy"]["loaded"]
    assert {"kiosk", "desk", "plain", "bare", "bios"} <= {guest["name"] for guest in status["guests"]}


def test_plugged_device_appears_in_the_guest(lab: Lab) -> None:
    lab.plug("t1", "tablet")
    wait_until(lambda: lab.guest_tags("kiosk") == [TABLET], 40, "kiosk sees the tablet")
    wait_until(lambda: attached(lab, "kiosk"), 20, f"the agent says so, last {device(lab)}")
    entry, host = device(lab), lab.host_device(TABLET)
    assert (entry["port"], entry["rule"]) == (host.port, "the tablet")
    assert lab.guest_port("kiosk", entry["guest_controller"], entry["guest_port"]) == host.port
    assert host.drivers == ("usbfs",)


def test_pulled_device_leaves_a_free_port(lab: Lab) -> None:
    entry = device(lab)
    lab.unplug("t1")
    port = (entry["guest_controller"], entry["guest_port"])
    wait_until(lambda: lab.guest_port("kiosk", *port) == "", 10, "its port is cleared")
    wait_until(lambda: lab.guest_tags("kiosk") == [], 20, "gone from the guest")
    wait_until(lambda: not device(lab), 10, "gone from the agent's devices")
    assert stale_ports(lab) == []


def test_plugged_again_elsewhere_works_again(lab: Lab) -> None:
    lab.plug("t2", "tablet", bus="xhci")
    wait_until(lambda: lab.guest_tags("kiosk") == [TABLET], 40, "kiosk sees the tablet again")
    wait_until(lambda: attached(lab, "kiosk"), 20, "the agent says so")


def test_rebooted_guest_gets_it_back(lab: Lab) -> None:
    boots = lab.guest_boots("kiosk")
    lab.must("xl reboot kiosk")
    wait_until(lambda: lab.guest_boots("kiosk") > boots, 90, "kiosk boots again")
    wait_until(lambda: lab.guest_tags("kiosk") == [TABLET], 90, "kiosk sees the tablet after its reboot")
    wait_until(lambda: attached(lab, "kiosk"), 20, "the agent says so")


def test_killed_agent_adopts_what_is_attached(lab: Lab) -> None:
    before = lab.guest_sees("kiosk")
    lab.must("systemctl kill -s KILL xenplug; sleep 1; systemctl reset-failed xenplug; systemctl start xenplug", 90)
    wait_until(lambda: attached(lab, "kiosk"), 30, "adopted")
    assert lab.guest_sees("kiosk") == before
    assert stale_ports(lab) == []
