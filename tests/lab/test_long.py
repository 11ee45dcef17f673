"""The long figures on real Xen: many plugs and pulls, reboots, storms from a hub, an agent killed in the middle. Run by
`tests/lab/lab run --long`; XENPLUG_LAB_CYCLES, _PULLS, _REBOOTS and _STORMS set how many."""

import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from labkit import Lab, control, wait_until
from labkit.gadgets import Gadget

from xenplug.adapters.client import Client

pytestmark = pytest.mark.long
CYCLES, PULLS, REBOOTS, STORMS = (
    int(os.environ.get(f"XENPLUG_LAB_{name}", default))
    for name, default in (("CYCLES", "50"), ("PULLS", "15"), ("REBOOTS", "10"), ("STORMS", "5"))
)
MOUSE, TABLET, STORAGE, SERIAL = "046d:c016", "0627:0001", "46f4:0001", "0403:6001"
POLICY = f"""
version: 1
rules:
  - {{name: all, match: {{device: ["{MOUSE}", "{TABLET}", "{STORAGE}", "{SERIAL}"]}}, attach: kiosk}}
"""
KINDS = ("keyboard", "mouse", "tablet", "storage", "serial", "keyboard", "mouse", "tablet")
EVENTS = 40_000
FLOOD = f"""
import os
node = os.open("/sys/devices/virtual/mem/null/uevent", os.O_WRONLY)
for _ in range({EVENTS}):
    os.write(node, b"change")
"""
TEAR = """
import ctypes, os, socket, sys
process, torn = os.pidfd_open(int(sys.argv[1])), 0
for number in map(int, os.listdir(f"/proc/{sys.argv[1]}/fd")):
    if not os.readlink(f"/proc/{sys.argv[1]}/fd/{number}").startswith("socket:"):
        continue
    with socket.socket(fileno=ctypes.CDLL(None).syscall(438, process, number, 0)) as ours:  # pidfd_getfd(2)
        try:
            theirs = str(ours.getpeername())
        except OSError:  # it listens, or goes to nobody
            continue
        if ours.family == socket.AF_UNIX and "xenstored" in theirs:
            ours.shutdown(socket.SHUT_RDWR)
            torn += 1
print(torn)
"""
CROWD = {f"1.{port}": kind for port, kind in enumerate(KINDS, 1)}
"""The devices on the hub of a storm, by its port: as many as the hub, and kiosk's controller, have ports."""

Tell = Callable[[str], None]


@pytest.fixture(scope="module")
def agent(lab: Lab) -> Client:
    """The agent in dom0, for all tests here."""
    return control.start(lab, POLICY)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Iterator[Tell]:
    """Prints a figure, captured or not."""

    def said(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}")

    return said


def attached(client: Client, count: int = 1) -> bool:
    """So many devices are attached to kiosk."""
    found = [d for d in control.devices(client) if (d["state"], d["guest"]) == ("attached", "kiosk")]
    return len(found) == count


def ports_in_use(lab: Lab) -> list[str]:
    """The busids on the guest ports of all guests."""
    return re.findall(r'/port/\d+ = "(.+)"', lab.must("xenstore-ls -f /local/domain/0/backend/qusb"))


def with_kiosk(lab: Lab, agent: Client, name: str) -> Gadget:
    """A mouse that is plugged and kiosk sees."""
    gadget = lab.gadget(name, MOUSE, function="hid", speed="low-speed")
    wait_until(lambda: attached(agent) and lab.guest_tags("kiosk") == [MOUSE], 90, "kiosk sees it")
    return gadget


def comes_and_goes(lab: Lab, agent: Client, gadget: Gadget) -> None:
    """As before: if it is plugged in again, kiosk sees it; after the last unplug its port is free."""
    gadget.plug()
    wait_until(lambda: attached(agent) and lab.guest_tags("kiosk") == [MOUSE], 120, "kiosk sees it again")
    gadget.delete()
    wait_until(lambda: not ports_in_use(lab), 20, "its port is free")


def kill(lab: Lab) -> None:
    """kill -9; systemd starts the next one after two seconds."""
    lab.must("systemctl reset-failed xenplug; systemctl kill -s KILL xenplug")


def figures(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds):.1f} s, worst {max(seconds):.1f} s"


def test_cycles(lab: Lab, agent: Client, tell: Tell) -> None:
    """No attach is missed, no port is leaked, the agent killed in the middle or not."""
    gadget = lab.gadget("cycle", MOUSE, function="hid", speed="low-speed")
    came, went = [], []
    for cycle in range(CYCLES):
        began = time.monotonic()
        if cycle == CYCLES // 2:
            kill(lab)
        wait_until(lambda: attached(agent), 90, f"cycle {cycle}: attached", 0.1)
        came.append(time.monotonic() - began)
        wait_until(lambda: lab.guest_tags("kiosk") == [MOUSE], 60, f"cycle {cycle}: kiosk sees it")
        began = time.monotonic()
        gadget.unplug()
        wait_until(lambda: not ports_in_use(lab), 20, f"cycle {cycle}: its port is free")
        went.append(time.monotonic() - began)
        wait_until(lambda: not control.devices(agent), 30, f"cycle {cycle}: the agent knows")
        gadget.plug()
    gadget.delete()
    wait_until(lambda: not ports_in_use(lab), 20, "the last port is free")
    tell(f"{CYCLES} cycles: plug to attached {figures(came)}; pull to free port {figures(went)}; none missed or leaked")


def test_clearing(lab: Lab, agent: Client, tell: Tell) -> None:
    """From the kernel's event of a removal to the empty port; after half a second the guest would lose its other
    devices.
    """
    lab.must("cat >/usr/local/sbin/cleared", stdin=(Path(__file__).parent / "dom0" / "cleared.py").read_text())
    gadget, took = lab.gadget("clear", MOUSE, function="hid", speed="low-speed"), []
    for pull in range(PULLS):
        wait_until(lambda: lab.guest_tags("kiosk") == [MOUSE], 60, f"pull {pull}: kiosk sees it")
        [device] = control.devices(agent)
        path = lab.port_path("kiosk", device["guest_controller"], device["guest_port"])
        lab.must(f"setsid -f python3 /usr/local/sbin/cleared {path} </dev/null >/run/cleared 2>/dev/null")
        wait_until(lambda: "ready" in lab.must("cat /run/cleared"), 30, "cleared listens")
        gadget.unplug()
        wait_until(lambda: len(lab.must("cat /run/cleared").split()) > 1, 30, f"pull {pull}: its port is free")
        took.append(1000 * float(lab.must("cat /run/cleared").split()[1]))
        assert not ports_in_use(lab)
        gadget.plug()
    gadget.delete()
    times = f"median {statistics.median(took):.0f} ms, {min(took):.0f} … {max(took):.0f}"
    tell(f"{PULLS} pulls: remove uevent to cleared port {times}; all: {[round(ms) for ms in took]}")


def test_lost_events(lab: Lab, agent: Client, tell: Tell) -> None:
    """More uevents than the netlink socket holds: the kernel reports that (ENOBUFS), and everything is read again.
    udevd is stopped meanwhile, and its events never come.
    """
    gadget = with_kiosk(lab, agent, "lost")
    lost = "journalctl -u xenplug | grep -c 'USB events were lost' || true"
    before = int(lab.must(lost))
    units = "systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket"
    lab.must(f"systemctl stop {units}; systemctl kill -s STOP xenplug")
    gadget.unplug()
    lab.must("python3 -", 300, stdin=FLOOD)
    lab.must("systemctl kill -s CONT xenplug")
    began = time.monotonic()
    wait_until(lambda: not ports_in_use(lab), 60, "its port is free")
    tell(f"{EVENTS} uevents at once: a port that none of them named was free {time.monotonic() - began:.1f} s later")
    assert int(lab.must(lost)) > before
    lab.must("systemctl start systemd-udevd.service", 90)
    comes_and_goes(lab, agent, gadget)


def test_a_lost_connection_to_xenstore(lab: Lab, agent: Client, tell: Tell) -> None:
    """It is broken under the agent (xenstored itself cannot be restarted), and a device pulled at once."""
    gadget = with_kiosk(lab, agent, "torn")
    began = time.monotonic()
    assert lab.must("python3 - $(systemctl show -P MainPID xenplug)", stdin=TEAR).strip() == "1"
    gadget.unplug()
    wait_until(lambda: not ports_in_use(lab), 60, "its port is free")
    tell(f"xenstore's connection torn, a device pulled: its port was free {time.monotonic() - began:.1f} s later")
    assert "xenstore: connected again" in lab.must("journalctl -u xenplug -n 20")
    comes_and_goes(lab, agent, gadget)


@pytest.mark.parametrize("jump", ["+2 days", "-3 days"])
def test_a_clock_that_jumps(lab: Lab, agent: Client, jump: str) -> None:
    """Attached devices stay, and everything continues to work."""
    gadget = with_kiosk(lab, agent, "jump")
    [before] = control.devices(agent)
    lab.must(f"date -s '{jump}'")
    time.sleep(5)
    [after] = control.devices(agent)
    assert (after["state"], after["guest"], after["address"]) == ("attached", "kiosk", before["address"])
    assert lab.must("journalctl -u xenplug -g 'failing|lost it' | grep -c 046d:c016 || true").strip() == "0"
    gadget.unplug()
    wait_until(lambda: not ports_in_use(lab), 20, "its port is free")
    comes_and_goes(lab, agent, gadget)


def test_reboots(lab: Lab, agent: Client, tell: Tell) -> None:
    """The device is with the guest again after each."""
    gadget = lab.gadget("reboot", MOUSE, function="hid", speed="low-speed")
    wait_until(lambda: lab.guest_tags("kiosk") == [MOUSE], 60, "kiosk sees it")
    back = []
    for number in range(REBOOTS):
        began, boots = time.monotonic(), lab.guest_boots("kiosk")
        lab.must("xl reboot kiosk")
        wait_until(lambda: lab.guest_boots("kiosk") > boots, 120, f"reboot {number}")  # noqa: B023
        wait_until(lambda: lab.guest_tags("kiosk") == [MOUSE], 120, f"reboot {number}: kiosk sees it again")
        back.append(time.monotonic() - began)
    wait_until(lambda: attached(agent), 30, "the agent says so")
    gadget.delete()
    wait_until(lambda: not ports_in_use(lab), 20, "its port is free")
    tell(f"{REBOOTS} reboots: from `xl reboot` to the device seen again {figures(back)}; none missed")


@pytest.mark.parametrize("killed", [False, True], ids=["", "kill-9"])
def test_storm(lab: Lab, agent: Client, tell: Tell, killed: bool) -> None:
    """A hub full of devices comes and goes at once; the agent killed while they come, or not."""
    came, went = [], []
    for number in range(STORMS):
        began = time.monotonic()
        lab.plug("hub", "hub", bus="xhci", port="1")
        wait_until(lab.host_devices, 30, "the hub")
        for port, kind in CROWD.items():
            old = {"usb_version": 1} if kind in ("keyboard", "mouse", "tablet") else {}
            lab.plug(f"crowd-{port}", kind, bus="xhci", port=port, **old)
        if killed:
            wait_until(lambda: ports_in_use(lab), 60, "the first attach")
            kill(lab)
        wait_until(lambda: attached(agent, len(CROWD)), 180, f"storm {number}: all attached")
        wait_until(lambda: len(lab.guest_tags("kiosk")) == len(CROWD), 60, f"storm {number}: kiosk sees all")
        came.append(time.monotonic() - began)
        began = time.monotonic()
        lab.unplug("hub", [f"crowd-{port}" for port in CROWD])
        wait_until(lambda: not ports_in_use(lab), 30, f"storm {number}: all ports are free")
        went.append(time.monotonic() - began)
        wait_until(lambda: not control.devices(agent) and not lab.guest_tags("kiosk"), 60, f"storm {number}: all gone")
    how = "with kill -9 in the middle" if killed else "undisturbed"
    tell(f"{STORMS} storms of {len(CROWD)} devices, {how}: all attached {figures(came)}; all freed {figures(went)}")
