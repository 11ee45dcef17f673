"""What xenplug adds to xl, on real Xen: the way of a device from dom0's kernel into the guest, split into kernel, udev,
agent, xl, backend and frontend; and the same way by a udev rule with RUN+= and a shell script, written for
comparison.

`tests/lab/lab run --long -k compare`; XENPLUG_LAB_ROUNDS sets how many plugs. Under emulation everything takes many
times as long as on real hardware; only the shares are meaningful. Both ways call the same timed xl.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from labkit import Lab, console, control, wait_until

pytestmark = pytest.mark.long
ROUNDS = int(os.environ.get("XENPLUG_LAB_ROUNDS", "7"))
TAG = "0627:0001"
SHARES = (
    ("udev's rules", "kernel", "udev"),
    ("agent, or rule and script", "udev", "xl"),
    ("xl, until the port is written", "xl", "written"),
    ("backend: the device model has it", "written", "backend"),
    ("frontend: the guest reports it", "backend", "guest"),
    ("all", "kernel", "guest"),
)
POLICY = f'version: 1\nrules:\n  - {{name: all, match: {{device: "{TAG}"}}, attach: kiosk}}\n'
SETTINGS = "version: 1\ntoolstack: {xl: /usr/local/sbin/timed-xl}\n"
TIMED_XL = """#!/bin/sh
# xl, and when an attach began and ended (no program is started for the time)
[ "$1" = usbdev-attach ] || exec xl "$@"
read -r up _ </proc/uptime; echo "xl $up" >>/run/compare-calls
xl "$@"; code=$?
read -r up _ </proc/uptime; echo "done $up" >>/run/compare-calls
exit $code
"""
SCRIPT = """#!/bin/sh
# What people write: give what was just plugged to kiosk.
bus=${BUSNUM#0}; bus=${bus#0}; device=${DEVNUM#0}; device=${device#0}
exec /usr/local/sbin/timed-xl usbdev-attach kiosk "hostbus=$bus" "hostaddr=$device" controller=0 port=1
"""
RULE = (
    'ACTION=="bind", SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ENV{PRODUCT}=="627/1/*", '
    'RUN+="/usr/local/sbin/compare-attach"\n'
)
RULES = "/etc/udev/rules.d/99-compare.rules"
Moments = Mapping[str, float]
Way = Callable[[Lab], None]


def put(lab: Lab, path: str, text: str, mode: str = "644") -> None:
    lab.must(f"cat >{path} && chmod {mode} {path}", stdin=text)


def by_agent(lab: Lab) -> None:
    """xenplug as its unit runs it."""
    lab.must(f"rm -f {RULES}; udevadm control --reload")
    put(lab, "/etc/xenplug/xenplug.yaml", SETTINGS)
    lab.policy(POLICY)
    lab.must("systemctl restart xenplug", 90)
    client = control.forward(lab)
    wait_until(lambda: control.answers(client), 60, "the agent's answer")


def by_rule(lab: Lab) -> None:
    """A udev rule and a script; no agent."""
    lab.must("systemctl stop xenplug")
    put(lab, "/usr/local/sbin/compare-attach", SCRIPT, "755")
    put(lab, RULES, RULE)
    lab.must("udevadm control --reload")


@pytest.fixture(scope="module")
def prepared(lab: Lab) -> Iterator[Lab]:
    """The setup that both ways share."""
    lab.install()
    put(lab, "/usr/local/sbin/timed-xl", TIMED_XL, "755")
    put(lab, "/usr/local/sbin/moments", (Path(__file__).parent / "dom0" / "moments.py").read_text(), "755")
    yield lab
    lab.must(f"rm -f {RULES} /etc/xenplug/xenplug.yaml; udevadm control --reload; systemctl stop xenplug")


def one(lab: Lab) -> Moments:
    """One plug: the moments it went through. Ends as it began."""
    port, log = lab.port_path("kiosk"), console.LOG.format("kiosk")
    pid = lab.xenstore(f"/local/domain/{lab.domid('kiosk')}/image/device-model-pid")
    lab.must("rm -f /run/compare-calls /run/moments")
    lab.must(f"setsid -f moments {TAG} {port} {log} {pid} </dev/null >/run/moments 2>&1")
    wait_until(lambda: "ready" in lab.must("cat /run/moments"), 60, "moments listens")
    lab.plug("compared", "tablet")
    wait_until(lambda: "{" in lab.must("cat /run/moments"), 120, "moments has seen all")
    found: Moments = json.loads(lab.must("cat /run/moments").splitlines()[-1])
    if lab.must("systemctl is-active xenplug || true").strip() != "active":
        lab.xl(
            "usbdev-detach", "kiosk", 0, 1
        )  # without an agent nothing clears it, and a stale port blocks every later attach
    lab.unplug("compared")
    wait_until(lambda: not lab.guest_port("kiosk"), 60, "the port is free")
    wait_until(lambda: not lab.guest_tags("kiosk"), 60, "kiosk has seen it go")
    time.sleep(3)  # sooner, a plug counts as a re-enumeration and the agent waits
    return found


@pytest.mark.parametrize("way", [by_agent, by_rule], ids=["xenplug", "rule-and-script"])
def test_compare(prepared: Lab, way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    """Every plug arrives; the time of each part is printed, not asserted."""
    way(prepared)
    rounds = [one(prepared) for _ in range(ROUNDS)]
    assert all({"xl", "guest"} <= found.keys() for found in rounds), rounds
    with capsys.disabled():
        print(f"\n  {way.__doc__} {ROUNDS} plugs, seconds, median (smallest … largest)")
        for words, begin, end in SHARES:
            spans = [found[end] - found[begin] for found in rounds if {begin, end} <= found.keys()]
            if spans:
                row = f"{statistics.median(spans):7.3f} ({min(spans):.3f} … {max(spans):.3f})"
                print(f"    {words:<34} {row}")
