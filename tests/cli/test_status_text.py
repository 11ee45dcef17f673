"""The text of `status` and `devices --tree` from an agent's answer."""

import copy
from datetime import datetime

import pytest
from tests.core.reporting.test_views import DEVICE

from xenplug.cli.layout import Terminal
from xenplug.cli.status_text import healthy, moment, status_lines
from xenplug.cli.tree import ASCII_LINES, tree

BDF = "0000:00:14.0"


def device(port, state="host", **more):
    usual = dict.fromkeys(DEVICE) | {
        "port": port, "device": "046d:c016", "names": [], "product": "Mouse", "kinds": ["mouse"], "speed": "low",
        "controller": BDF, "state": state, "cause": "default", "reason": "", "wanted": [],
    }  # fmt: skip
    return usual | more


CONTROLLER = {"id": 0, "type": "qusb", "version": 2, "connected": True, "ports": {"1": "1-4", "2": None, "3": "1-9"}}
STATUS = {
    "version": "1.0",
    "policy": {"loaded": True, "since": "2026-11-22T10:00:00.000+00:00", "problems": []},
    "preferred": None,
    "paused": [],
    "devices": [
        device("1-1"),
        device("1-4", "attached", guest="kiosk", guest_controller=0, guest_port=1, wanted=["kiosk"]),
    ],
    "guests": [{"name": "kiosk", "domid": 5, "type": "pv", "state": "running", "controllers": [CONTROLLER], "pci": []}],
    "controllers": [{"bdf": BDF, "driver": "xhci_hcd", "guest": None, "since": None}],
}
FAILED = device(
    "1-6", "given_up", wanted=["win11", "linux"], rule="cam", rule_ref="a.yaml:3", cause="refused",
    reason="xl refused to attach it to win11; given up after 8 tries: `xenplug release 1-6` tries again",
)  # fmt: skip
PROBLEM = {"file": "a.yaml", "line": 3, "column": 5, "path": "rules", "severity": "error", "message": "bad; fix it"}


def status(*more, **changed):
    changed = {"devices": [*STATUS["devices"], *more]} | changed
    return copy.deepcopy(STATUS) | changed


def text(*more, **changed):
    return status_lines(status(*more, **changed), Terminal())


def test_all_is_well():
    assert text() == [
        "PORT  DEVICE     STATE     GUEST  AT   NAME   WHY",
        "1-4   046d:c016  attached  kiosk  0:1  Mouse  -",
        "1-1   046d:c016  host      -      -    Mouse  -",
        "",
        "GUEST  ID  TYPE  STATE    USB CONTROLLERS",
        "kiosk  5   pv    running  0: qusb v2, 2 of 3 ports used (1: 1-4, 3: 1-9 gone)",
        "",
        "CONTROLLER    DRIVER    GUEST  DEVICES",
        "0000:00:14.0  xhci_hcd  -      1-1, 1-4",
    ]


def test_problems_come_first_with_reason_and_remedy():
    lines = text(FAILED, policy=STATUS["policy"] | {"problems": [PROBLEM]})
    assert lines[0] == "policy: a.yaml:3:5: rules: bad; fix it"
    assert lines[1].startswith("policy: the one read 2026-11-22 ")
    assert lines[3:5] == [
        "1-6 046d:c016 Mouse: given up, belongs to win11 or linux (rule cam, a.yaml:3)",
        f"    {FAILED['reason']}",
    ]
    assert lines[7].split()[:3] == ["1-6", "046d:c016", "given_up"]
    assert lines[7].endswith("see above")


def test_which_policy_is_in_force_also_if_the_last_reading_failed():
    known = STATUS["policy"] | {"digest": "0123456789abcdef" * 4, "label": "kiosk-2026.48"}
    words = "policy: kiosk-2026.48 (digest 0123456789ab), in force since 2026-11-22 "
    assert text(policy=known)[-1].startswith(words)
    assert text(policy=known | {"problems": [PROBLEM]})[-1].startswith(words)
    assert text(policy=known | {"label": None})[-1].startswith("policy: digest 0123456789ab, in force since ")
    assert "digest" not in "".join(text(policy=known | {"loaded": False, "digest": None, "label": None}))


def test_the_time_of_the_next_try():
    at = "2026-11-22T10:00:05.000+00:00"
    lines = text(device("1-6", "failing", cause="lost", reason="", wanted=["kiosk"], next_try=at))
    local = datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert lines[1] == f"    lost; next try at {local}"
    assert moment(None) == "at an unknown time"


def test_orders_are_shown():
    assert text(paused=["win11", "1-4"], preferred="linux")[:2] == [
        "paused: win11, 1-4; `xenplug resume` ends the pause",
        "preferred: linux; `xenplug prefer --clear` ends this",
    ]


@pytest.mark.parametrize(("changed", "good"), [
    ({}, True),
    ({"devices": [FAILED]}, False),
    ({"devices": [device("1-1", "failing")]}, False),
    ({"devices": [device("1-1", "pending")]}, True),
    ({"policy": {"loaded": False, "since": None, "problems": []}}, False),
    ({"policy": STATUS["policy"] | {"problems": [PROBLEM]}}, False),
    ({"policy": STATUS["policy"] | {"problems": [PROBLEM | {"severity": "warning"}]}}, True),
])  # fmt: skip
def test_health(changed, good):
    assert healthy(status(**changed)) is good


def test_no_devices_and_no_guests():
    assert text(devices=[], guests=[], controllers=[]) == ["no USB device is plugged in"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_terminal_gets_wrapped_reasons(width):
    long = device("1-6", "pending", reason="word " * 40, wanted=["kiosk"])
    lines = status_lines(status(long), Terminal(width))
    assert sum(line.count("word") for line in lines) == 40


def test_colours_are_by_state():
    lines = status_lines(status(FAILED), Terminal(200, True))
    assert lines[0].startswith("\x1b[1;31m1-6")
    assert any("\x1b[32mattached" in line for line in lines)


# --- the tree

HUB = device("1-2", "protected", cause="hub", kinds=["hub"], speed="high", product="Keyboard Hub")


def test_tree():
    devices = [
        device("1-10", "pending", wanted=["win11"]),
        HUB,
        device("1-2.3.1", "failing", wanted=["win11", "linux"]),
        device("1-2.2", "attached", guest="kiosk", guest_controller=0, guest_port=2),
        device("3-1", "foreign", guest="desk", guest_controller=1, guest_port=1, controller=None),
        device("4-1", "pci", guest="win11", controller="0000:03:00.0"),
    ]
    controllers = [*STATUS["controllers"], {"bdf": "0000:05:00.0", "driver": "ehci-pci", "guest": None, "since": None}]
    controllers.append({"bdf": "0000:03:00.0", "driver": "pciback", "guest": "win11", "since": None})
    assert tree(devices, controllers, Terminal(), ASCII_LINES) == [
        "controller 0000:00:14.0 (xhci_hcd)",
        "|- 1-2  046d:c016  Keyboard Hub  hub high",
        "|  |- 1-2.2  046d:c016  Mouse  mouse low  -> kiosk (port 0:2)",
        "|  `- 1-2.3.1  046d:c016  Mouse  mouse low  -> win11, linux, failing",
        "`- 1-10  046d:c016  Mouse  mouse low  -> win11, pending",
        "controller 0000:03:00.0 (pciback) -> win11",
        "`- 4-1  046d:c016  Mouse  mouse low  -> win11",
        "controller 0000:05:00.0 (ehci-pci), nothing plugged in",
        "no PCI controller",
        "`- 3-1  046d:c016  Mouse  mouse low  -> desk (port 1:1), foreign",
    ]


def test_a_tree_without_an_agent_or_devices():
    unknown = device("1-1", None, cause=None, reason=None, wanted=[])
    assert tree([unknown], [], Terminal(), ASCII_LINES) == [
        "controller 0000:00:14.0",
        "`- 1-1  046d:c016  Mouse  mouse low",
    ]
    assert tree([], [], Terminal()) == ["no USB device is plugged in"]
