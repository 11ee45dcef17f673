"""What may become of a guest, on a real Xen host: paused, renamed, saved and restored, crashed, left by its device
model. The tests run in order, each starting where the one before ended: the tablet is with kiosk."""

from typing import Any

import pytest
from labkit import Lab, wait_until

TABLET = "0627:0001"
POLICY = f'version: 1\nrules: [{{name: the tablet, match: {{device: "{TABLET}"}}, attach: kiosk}}]\n'
SAVED = "/var/tmp/kiosk.save"


@pytest.fixture(scope="module", autouse=True)
def agent(lab: Lab) -> None:
    """xenplug in dom0, and a tablet that it gave to kiosk."""
    lab.install()
    lab.policy(POLICY)
    lab.must("systemctl start xenplug || { journalctl -u xenplug --no-pager; exit 1; }", 90)
    lab.plug("t1", "tablet")
    arrives(lab)


def device(lab: Lab) -> dict[str, Any]:
    """The agent's own word on the tablet; empty when it has none."""
    return next((entry for entry in lab.status()["devices"] if entry["device"] == TABLET), {})


def arrives(lab: Lab, name: str = "kiosk") -> None:
    """For the agent, and in the guest."""
    wait_until(lambda: device(lab).get("guest") == name and device(lab)["state"] == "attached", 90, f"{device(lab)}")
    wait_until(lambda: TABLET in lab.guest_tags("kiosk"), 90, "kiosk sees the tablet")


def test_a_paused_guest_gets_its_time(lab: Lab) -> None:
    lab.must("xl pause kiosk")
    lab.unplug("t1")
    lab.plug("t1", "tablet")
    lab.must("sleep 20")  # twice as long as it has to be delivered
    assert device(lab)["state"] in ("pending", "attaching", "attached"), "no failure"
    lab.must("xl unpause kiosk")
    arrives(lab)


def test_a_renamed_guest_is_another_one(lab: Lab) -> None:
    lab.must("xl rename kiosk cafe")
    wait_until(lambda: (device(lab)["cause"], device(lab)["guest"]) == ("guest_stopped", None), 30, "off cafe")
    lab.must("xl rename cafe kiosk")
    arrives(lab)


def test_a_restored_guest_gets_it_back(lab: Lab) -> None:
    lab.must(f"xl save kiosk {SAVED}", 180)
    wait_until(lambda: device(lab)["guest"] is None, 30, "its domain is gone")
    lab.must(f"xl restore {SAVED}; rm {SAVED}", 180)
    arrives(lab)


def test_a_crashed_guest_gets_it_back(lab: Lab) -> None:
    lab.must("xl destroy kiosk")
    wait_until(lambda: device(lab)["cause"] == "guest_stopped", 30, f"it waits, last {device(lab)}")
    lab.start_guest("kiosk")
    arrives(lab)


def test_a_guest_whose_device_model_ended(lab: Lab) -> None:
    lab.must(f"kill -9 $(xenstore-read /local/domain/{lab.domid('kiosk')}/image/device-model-pid)")
    wait_until(lambda: device(lab)["cause"] == "device_model_gone", 10, f"reported, last {device(lab)}")
    lab.must("xl destroy kiosk")
    lab.start_guest("kiosk")
    arrives(lab)
