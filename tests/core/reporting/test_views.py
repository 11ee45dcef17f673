"""The JSON for programs: exact keys. And DEVICE as a person types it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.core.make import NOW, controller, device, guest, planned, policy, snapshot, verdict

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.troubles import Trouble, TroubleKey
from xenplug.core.model import Bdf, BusId, Claim, GuestType, Interface, PciController, Snapshot, Speed, Tag, Use
from xenplug.core.planning.steps import State
from xenplug.core.reporting import views
from xenplug.core.reporting.views import PolicyView, StatusInput, Timing, select

DEVICE = [
    "port",
    "address",
    "path",
    "device",
    "serial",
    "manufacturer",
    "product",
    "names",
    "speed",
    "class",
    "interfaces",
    "kinds",
    "controller",
    "drivers",
    "state",
    "cause",
    "reason",
    "guest",
    "wanted",
    "guest_controller",
    "guest_port",
    "used",
    "via",
    "rule",
    "rule_ref",
    "since",
    "attempts",
    "next_try",
]
"""The keys that docs/reference/control-interface.md promises: keys may be added, never removed."""
FACTS = {"by_hand", "removable", "revision", "authorized", "in_use", "descriptors"}
GUEST = ["name", "domid", "type", "state", "controllers", "pci"]

MOUSE = device(
    device_class=Interface(0, 0, 0),
    serial="A1",
    product="Wheel",
    names=("Logitech", "M-BT58"),
    drivers=("usbfs",),
    in_use=frozenset({Use.NETWORK, Use.KEYBOARD}),
)
RULES = policy("rules: [{name: mice, match: {kind: mouse}, attach: [win, kiosk]}]\nauto_protect: []")
HOLDS = guest("kiosk", 1, controller(ports=2, p1="1-1"), pci=(Bdf("0000:03:00.0"),))
PLAN = planned(snapshot(MOUSE, HOLDS, claims={"1-1": Claim(True, True)}), RULES)


def test_a_device_that_is_attached():
    shown = views.device_view(verdict(PLAN), Timing(since=0.0))
    assert set(shown) == {*DEVICE, *FACTS}
    assert shown == {
        "port": "1-1",
        "address": "1.5",
        "path": "pci-0000:00:14.0-usb-0:1",
        "device": "046d:c016",
        "serial": "A1",
        "manufacturer": None,
        "product": "Wheel",
        "names": ["Logitech", "M-BT58"],
        "speed": "low",
        "class": "00:00:00",
        "interfaces": ["03:01:02"],
        "kinds": ["mouse"],
        "controller": "0000:00:14.0",
        "drivers": ["usbfs"],
        "removable": "unknown",
        "revision": None,
        "descriptors": None,
        "authorized": True,
        "in_use": ["keyboard", "network"],
        "by_hand": False,
        "state": "attaching",
        "cause": "waiting_to_be_taken",
        "reason": "waiting for the device model of kiosk to take it",
        "guest": "kiosk",
        "wanted": ["win", "kiosk"],
        "guest_controller": 0,
        "guest_port": 1,
        "used": True,
        "via": "usb",
        "rule": "mice",
        "rule_ref": "policy.yaml:2",
        "since": "1970-01-01T00:00:00.000+00:00",
        "attempts": 0,
        "next_try": None,
    }


def test_a_device_that_no_rule_matches():
    plan = planned(snapshot(replace(MOUSE, in_use=frozenset())), policy("rules: []"))
    shown = views.device_view(verdict(plan))
    assert set(shown) == {*DEVICE, *FACTS}
    unset = ("guest", "guest_controller", "guest_port", "via", "rule", "rule_ref", "since", "next_try")
    assert {key: shown[key] for key in unset} == dict.fromkeys(unset)
    assert (shown["state"], shown["wanted"], shown["used"]) == ("host", [], False)


def test_the_next_try_is_a_time_of_day():
    trouble = Trouble(3, "refused", "no", NOW + 4)
    free = snapshot(MOUSE, guest("kiosk", 1, controller()))
    found = verdict(planned(free, RULES, Ledger(troubles={TroubleKey.attach(MOUSE.key, 1): trouble}, at=NOW)))
    shown = views.device_view(found, Timing(0.0, 1_700_000_000.5))
    assert (found.state, shown["attempts"], shown["next_try"]) == (
        State.FAILING,
        3,
        "2023-11-14T22:13:20.500+00:00",
    )


def test_without_the_agent_the_same_keys():
    """`devices` without an agent: the values that only an agent knows are null."""
    shown = views.device_facts(MOUSE) | views.UNKNOWN_TO_US
    assert set(DEVICE) - set(shown) == {"wanted", "via", "rule", "rule_ref"}, "only a policy decides these"


def test_guests():
    shown = views.guest_view(HOLDS)
    assert list(shown) == GUEST
    assert shown == {
        "name": "kiosk",
        "domid": 1,
        "type": "pv",
        "state": "running",
        "controllers": [{"id": 0, "type": "qusb", "version": 2, "connected": True, "ports": {"1": "1-1", "2": None}}],
        "pci": ["0000:03:00.0"],
    }
    assert views.absent_guest_view("win") == dict.fromkeys(GUEST) | {
        "name": "win",
        "state": "stopped",
        "controllers": [],
        "pci": [],
    }


def test_the_status():
    seen = Snapshot(
        {MOUSE.port: MOUSE},
        {"kiosk": HOLDS, "alpha": guest("alpha", 2, type=GuestType.HVM)},
        controllers=(PciController(Bdf("0000:00:14.0"), "xhci_hcd"),),
    )
    problems = ({"file": "p.yaml", "line": 1, "column": 1, "path": "", "message": "no", "severity": "error"},)
    shown = views.status_view(
        StatusInput(
            "1.0", PolicyView(True, 0.0, problems), seen, PLAN.verdicts, {"win", "kiosk"}, {MOUSE.port: Timing(1.0)}
        )
    )
    assert {"version", "policy", "preferred", "paused", "devices", "guests", "controllers"} <= set(shown)
    assert {"loaded", "since", "problems"} <= set(shown["policy"])
    assert shown["policy"]["problems"] == [dict(problems[0])]
    assert [g["name"] for g in shown["guests"]] == ["alpha", "kiosk", "win"]
    expected = {"bdf": "0000:00:14.0", "driver": "xhci_hcd", "guest": None, "since": None, "foreign": False}
    assert shown["controllers"] == [expected | {"slot": [], "bridge": [], "resettable": None}]
    assert [d["since"] for d in shown["devices"]] == ["1970-01-01T00:00:01.000+00:00"]
    assert json.loads(json.dumps(shown)) == shown


# DEVICE

STICK = device("1-2", 6, tag=Tag("0781:5567"), path="platform-PNP0D10:00-usb-0:2", plain_path=None)
TWIN = device("1-10", 7)
FAST = device("2-2", 2, tag=Tag("0bda:8153"), path=None, plain_path="pci-0000:00:14.0-usb-0:10", speed=Speed.SUPER)
HERE = {d.port: d for d in (MOUSE, STICK, TWIN, FAST)}


@pytest.mark.parametrize(
    "text, port",
    [
        ("1-1", "1-1"),
        ("1-10", "1-10"),
        ("1.5", "1-1"),
        ("0781:5567", "1-2"),
        ("0BDA:8153", "2-2"),
        ("pci-0000:00:14.0-usb-0:1", "1-1"),
        ("platform-PNP0D10:00-usb-0:2", "1-2"),
    ],
    ids=["port", "not its neighbour", "address", "tag", "tag without case", "path", "path with capitals"],
)
def test_select(text, port):
    found = select(HERE, text)
    assert found is HERE[BusId(port)]


@pytest.mark.parametrize(
    "text, words",
    [
        ("1-3", ["no device '1-3' is plugged in", "`xenplug devices`"]),
        ("", ["no device ''"]),
        ("None", ["no device 'None'"]),
        ("046d:c016", ["fits 2 devices (1-1, 1-10)", "by its port"]),
        ("pci-0000:00:14.0-usb-0:10", ["fits 2 devices (1-10, 2-2)"]),
    ],
    ids=["absent", "empty", "none", "two of one kind", "two sockets of one text"],
)
def test_a_selection_of_none_or_several(text, words):
    message = select(HERE, text)
    assert isinstance(message, str)
    assert [word for word in words if word not in message] == []
