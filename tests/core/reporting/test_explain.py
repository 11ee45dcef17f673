"""Reasons as text: every cause has a sentence, with a remedy if a person can act, and only printable text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.make import device, guest_port, policy

from xenplug.core.matching.match import Decision, Matcher
from xenplug.core.model import ControllerType, Interface, Speed, Use
from xenplug.core.planning.steps import AddController, Attach, Authorize, Cause, ClearPort, Detach, State, Verdict
from xenplug.core.policy.rules import ControllerSpec
from xenplug.core.reporting import explain
from xenplug.core.usb.device import RawDevice, describe
from xenplug.core.usb.sanitize import sanitize

POLICY = policy(
    "rules: [{name: mice, match: {kind: mouse, speed: [low, full]}, attach: [kiosk, desk]},"
    " {name: sticks, match: {kind: storage}, action: block}]"
)
MICE, STICKS = POLICY.rules
HERE = device(product="Optical Wheel Mouse", in_use=frozenset({Use.STORAGE}), kinds=frozenset({"mouse", "video"}))
SILENT = {Cause.USED}
REMEDY = {
    Cause.DEFAULT: "xenplug explain",
    Cause.BY_HAND: "xenplug release",
    Cause.NO_POLICY: "xenplug check",
    Cause.GUEST_PAUSED: "xl unpause",
    Cause.GUEST_SUSPENDED: "xl resume",
    Cause.NO_FREE_PORT: "max_controllers",
    Cause.NO_FRONTEND: "CONFIG_USB_XEN_HCD",
    Cause.NO_DEVICE_MODEL: "usbctrl=",
    Cause.NO_CONTROLLER: "usbctrl=",
    Cause.DEVICE_MODEL_GONE: "restart the guest",
    Cause.STUB_DOMAIN: "device_model_stubdomain_override",
    Cause.NO_USBBACK: "type: qusb",
    Cause.PHANTOM_CONTROLLER: "restart the guest",
    Cause.UNFIT_SPEED: "guests:",
    Cause.UNFIT_ISOCHRONOUS: "devicemodel",
    Cause.NOT_DELIVERED: "/var/log/xen/qemu-dm-kiosk.log",
    Cause.FOREIGN: "xl usbdev-detach kiosk 0 1",
}
"""By cause: the part of the remedy that its sentence must contain."""


def verdict(cause: Cause, state: State = State.PENDING, **more: object) -> Verdict:
    usual = {"wanted": ("kiosk",), "target": "kiosk", "guest": "kiosk", "guest_port": guest_port()}
    if cause is Cause.DEFAULT:
        usual["wanted"] = ()
    return Verdict(HERE, Decision("attach", MICE), state, cause, **usual | more)  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_its_sentence(cause):
    words = explain.reason(verdict(cause))
    assert bool(words) is (cause not in SILENT)
    assert words == words.strip() and "None" not in words and "\n" not in words
    assert REMEDY.get(cause, "") in words


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("cause", Cause)
def test_every_state_has_its_headline(state, cause):
    words = explain.headline(verdict(cause, state))
    assert words.startswith("1-1 046d:c016 (Optical Wheel Mouse): ")
    assert "None" not in words and words == words.strip()


@pytest.mark.parametrize(
    "found, expected",
    [
        (verdict(Cause.RULE, State.HOST), "rule 'mice' (policy.yaml:2) keeps it with the host"),
        (verdict(Cause.RULE, State.BLOCKED), "rule 'mice' (policy.yaml:2) blocks it"),
        (verdict(Cause.IN_USE), "dom0 uses it (storage); it stays until it is unplugged"),
        (verdict(Cause.GUEST_STOPPED), "kiosk is not running; it is attached when that guest starts"),
        (
            verdict(Cause.GUEST_STOPPED, wanted=("kiosk", "desk")),
            "none of kiosk, desk is running; it is attached when one of them starts",
        ),
        (verdict(Cause.MOVING), "moving to kiosk"),
        (verdict(Cause.MOVING, target=None), "returning to the host"),
        (verdict(Cause.REFUSED, State.FAILING, text="xl: no"), "xl refused to attach it to kiosk (xl: no)"),
        (verdict(Cause.REFUSED, text="xl: no"), "xl refused to attach it to kiosk"),
        (
            verdict(Cause.LOST, State.GIVEN_UP, attempts=8),
            "kiosk had it and lost it; given up after 8 tries: `xenplug release 1-1` tries again",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_words(found, expected):
    assert explain.reason(found) == expected


def test_the_reason_for_a_superspeed_device_names_another_port():
    fast = replace(verdict(Cause.UNFIT_SPEED), device=replace(HERE, speed=Speed.SUPER))
    assert "USB 2 port" in explain.reason(fast)


@pytest.mark.parametrize(
    "more, name",
    [
        ({"product": "Wheel"}, "1-1 046d:c016 (Wheel)"),
        ({"names": ("Logitech", "M-BT58")}, "1-1 046d:c016 (M-BT58)"),
        ({}, "1-1 046d:c016 (mouse)"),
        ({"kinds": frozenset()}, "1-1 046d:c016"),
    ],
    ids=["its product", "the database", "its kind", "nothing"],
)
def test_the_name_of_a_device(more, name):
    assert explain.device_name(device(**more)) == name


def test_steps():
    spec = ControllerSpec(ControllerType.QUSB, 2, 4)
    here = device(product="Wheel")
    name, where = "1-1 046d:c016 (Wheel)", "controller 0 port 1"
    assert [
        explain.step_words(step)
        for step in (
            ClearPort("kiosk", guest_port(), ControllerType.QUSB, here.port, 1, 5),
            Detach("kiosk", guest_port(), here),
            Attach("kiosk", guest_port(), here),
            AddController("kiosk", 1, spec),
            Authorize(here, True),
            Authorize(here, False),
        )
    ] == [
        f"clear the stale port {where} of kiosk (it still names 1-1)",
        f"detach {name} from kiosk, {where}",
        f"attach {name} to kiosk, {where}",
        "make a guest controller for kiosk: qusb version 2, 4 ports",
        f"authorise {name}",
        f"deauthorise {name}",
    ]


def test_the_plan_of_one_device():
    other = device("1-2", 6)
    steps = (Attach("kiosk", guest_port(), other), Attach("kiosk", guest_port(1, 2), HERE))
    assert explain.next_steps(steps, verdict(Cause.MOVING)) == [explain.step_words(steps[1])]
    named = replace(verdict(Cause.GUEST_STOPPED), device=replace(HERE, product="Acme: the mouse: 2"))
    assert explain.next_steps(steps[:1], named) == [
        "nothing: waits: kiosk is not running; it is attached when that guest starts [rule 'mice' (policy.yaml:2)]"
    ]


def test_the_table_of_rules():
    assert explain.rules_table(Matcher(POLICY), HERE) == [
        {
            "name": "mice",
            "rule_ref": "policy.yaml:2",
            "matched": True,
            "keys": [
                {"key": "kind", "expected": ["mouse"], "actual": ["mouse", "video"], "holds": True},
                {"key": "speed", "expected": ["low", "full"], "actual": ["low"], "holds": True},
            ],
        },
        {
            "name": "sticks",
            "rule_ref": "policy.yaml:2",
            "matched": False,
            "keys": [{"key": "kind", "expected": ["storage"], "actual": ["mouse", "video"], "holds": False}],
        },
    ]
    nothing = explain.rules_table(Matcher(POLICY), replace(HERE, speed=None))[0]
    assert nothing["matched"] is False and nothing["keys"][1]["actual"] == []


@pytest.mark.parametrize(
    "decision, expected",
    [
        (
            Decision("attach", MICE),
            {
                "action": "attach",
                "guests": ["kiosk", "desk"],
                "via": "usb",
                "rule": "mice",
                "rule_ref": "policy.yaml:2",
            },
        ),
        (Decision("host"), {"action": "host", "guests": [], "via": None, "rule": None, "rule_ref": None}),
        (
            Decision("block", STICKS),
            {"action": "block", "guests": [], "via": None, "rule": "sticks", "rule_ref": "policy.yaml:2"},
        ),
    ],
    ids=["attach", "default", "block"],
)
def test_the_decision(decision, expected):
    assert explain.decision_view(decision) == expected | {"inherited": False}


# a device's own texts are sanitized before they get into a sentence

NASTY = st.text(st.sampled_from("aZ \x1b[31m\x07\n\r\t\u202e\u200b\x9b`'"), max_size=40)


@given(NASTY, st.sampled_from(Cause), st.sampled_from(State))
def test_no_raw_device_text_reaches_a_sentence(device_text, cause, state):
    raw = RawDevice(
        devpath="/devices/pci0000:00/0000:00:14.0/usb1/1-1",
        attrs={
            "idVendor": b"046d",
            "idProduct": b"c016",
            "busnum": b"1",
            "devnum": b"5",
            "product": device_text.encode(),
            "manufacturer": device_text.encode(),
            "serial": device_text.encode(),
        },
    )
    here = describe(raw)
    assert here
    found = replace(verdict(cause, state), device=here)
    words = explain.headline(found) + explain.reason(found)
    assert words.isprintable()
    assert here.product == sanitize(device_text)
    assert here.interfaces == () or here.interfaces == (Interface(0, 0, 0),)


@pytest.mark.parametrize(
    "message, remedy",
    [
        ("failed to open host usb device 1:6", "dm_restrict"),
        ("Invalid parameter type for 'hostbus', expected: integer", "4.19.5"),
    ],
)
def test_refusals_with_a_known_cause(message, remedy):
    assert remedy in explain.reason(verdict(Cause.REFUSED, State.FAILING, text=message))
    assert remedy not in explain.reason(verdict(Cause.REFUSED, State.FAILING, text="something else"))
