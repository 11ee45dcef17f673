"""Which guest controller carries which device, and which guest port is taken."""

from __future__ import annotations

import pytest
from tests.core.make import controller, device, guest, guest_port

from xenplug.core.model import ControllerType, GuestType, Speed
from xenplug.core.planning import fit
from xenplug.core.planning.steps import Cause
from xenplug.core.policy.rules import ControllerSpec, GuestPolicy

CARRIES = {
    ("pv", 1): "low full",
    ("pv", 2): "low full high",
    ("qusb", 1): "low full",
    ("qusb", 2): "low full high",
    ("devicemodel", 1): "low full",
    ("devicemodel", 2): "high",
    ("devicemodel", 3): "low full high super super+",
    ("devicemodel", 4): "",
}


@pytest.mark.parametrize("speed", Speed)
@pytest.mark.parametrize("kind, version", CARRIES, ids=lambda value: str(value))
def test_speeds(kind, version, speed):
    cause = fit.unfit(device(speed=speed), ControllerType(kind), version)
    assert cause == (None if speed in CARRIES[kind, version].split() else Cause.UNFIT_SPEED)


@pytest.mark.parametrize("kind, version", [key for key in CARRIES if key[1] < 4], ids=lambda value: str(value))
def test_an_unknown_speed_is_tried(kind, version):
    assert fit.unfit(device(speed=None), ControllerType(kind), version) is None


@pytest.mark.parametrize(
    "kind, kinds, isochronous, expected",
    [
        ("qusb", {"audio"}, True, Cause.UNFIT_ISOCHRONOUS),
        ("qusb", {"video", "audio"}, True, Cause.UNFIT_ISOCHRONOUS),
        ("qusb", {"audio"}, False, None),
        ("qusb", {"bluetooth"}, True, None),
        ("qusb", set(), True, None),
        ("pv", {"audio"}, True, None),
        ("devicemodel", {"video"}, True, None),
    ],
)
def test_streams(kind, kinds, isochronous, expected):
    here = device(kinds=frozenset(kinds), isochronous=isochronous, speed=Speed.HIGH)
    assert fit.unfit(here, ControllerType(kind), 3 if kind == "devicemodel" else 2) == expected


@pytest.mark.parametrize(
    "controllers, allotted, expected",
    [
        ((), (), None),
        ((controller(0, "devicemodel", 2),), (), None),
        ((controller(1), controller(0, ports=2)), (), guest_port(1, 1, 0)),
        ((controller(0, p1="1-8"),), (), guest_port(1, 2, 0)),
        ((controller(0, p1="1-8"),), (guest_port(1, 2, 0),), guest_port(1, 3, 0)),
        ((controller(0),), (guest_port(2, 1, 0),), guest_port(1, 1, 0)),
        ((controller(0, ports=1, p1="1-8"),), (), Cause.NO_FREE_PORT),
        ((controller(0, connected=False),), (), Cause.NO_FRONTEND),
        ((controller(0, connected=False), controller(1)), (), guest_port(1, 1, 1)),
        ((controller(0, "devicemodel", 3, connected=False),), (), guest_port(1, 1, 0)),
        ((controller(0, "devicemodel", 2, p1="1-8"), controller(1, "devicemodel", 1)), (), guest_port(1, 1, 1)),
    ],
    ids=[
        "no controller",
        "none fits",
        "lowest devid, lowest port",
        "next port",
        "promised already",
        "promised of another guest",
        "full",
        "not connected",
        "the connected one",
        "devicemodel needs no frontend",
        "the fitting one",
    ],
)
def test_choice_of_port(controllers, allotted, expected):
    assert fit.choose_port(guest("kiosk", 1, *controllers), device(), allotted) == expected


@pytest.mark.parametrize(
    "controllers, allotted, expected",
    [
        ((controller(0, ports=1, p1="1-8"), controller(1, ports=3)), (), guest_port(1, 2, 1)),
        ((controller(0, ports=1, p1="1-8"), controller(1, ports=1)), (), Cause.NO_FREE_PORT),
        ((controller(0, ports=2, p1="1-8"), controller(1, ports=2, p2="1-9")), (), Cause.NO_FREE_PORT),
        (
            (controller(0, ports=2), controller(1, ports=3)),
            (guest_port(1, 1, 0), guest_port(1, 2, 0)),
            guest_port(1, 3, 1),
        ),
        ((controller(0, ports=2, p2="1-9"), controller(1, p1="1-8")), (), guest_port(1, 3, 1)),
        ((controller(0, "pv", ports=1, p1="1-8"), controller(1, "pv", ports=1)), (), guest_port(1, 1, 1)),
        (
            (controller(0, "devicemodel", 3, ports=1, p1="1-8"), controller(1, "devicemodel", 3, ports=1)),
            (),
            guest_port(1, 1, 1),
        ),
        ((controller(0, ports=1, p1="1-8"), controller(1, "devicemodel", 3, ports=1)), (), guest_port(1, 1, 1)),
    ],
    ids=[
        "skips the number",
        "no other number",
        "each bars the other's",
        "promised numbers count",
        "also the earlier controller",
        "pv has no such trap",
        "devicemodel neither",
        "mixed types neither",
    ],
)
def test_no_port_number_twice_on_two_qusb_controllers(controllers, allotted, expected):
    """Otherwise its qemu aborts (seen on real Xen), and the guest loses every device."""
    assert fit.choose_port(guest("kiosk", 1, *controllers), device(), allotted) == expected


@pytest.mark.parametrize(
    "skip, expected",
    [(0, guest_port(1, 2, 0)), (1, guest_port(1, 3, 0)), (2, guest_port(1, 1, 1)), (3, guest_port(1, 2, 0))],
)
def test_a_port_that_failed_is_not_tried_for_ever(skip, expected):
    emulated = [controller(0, "devicemodel", 3, 3, p1="1-8"), controller(1, "devicemodel", 3, 1)]
    assert fit.choose_port(guest("win", 1, *emulated), device(), (), skip) == expected


QUSB = ControllerSpec(ControllerType.QUSB, 2, 8)
EHCI = ControllerSpec(ControllerType.DEVICEMODEL, 2, 6)
PV = ControllerSpec(ControllerType.PV, 2, 8)
HVM = {"type": GuestType.HVM}


@pytest.mark.parametrize(
    "here, rules, made, expected",
    [
        (guest(), GuestPolicy(), 0, fit.PV_DEFAULT),
        (guest(type=GuestType.PVH), GuestPolicy(), 0, fit.PV_DEFAULT),
        (guest(**HVM), GuestPolicy(), 0, fit.HVM_DEFAULT),
        (guest(**HVM), GuestPolicy(QUSB), 0, QUSB),
        (guest(), GuestPolicy(), 1, Cause.NO_CONTROLLER),
        (guest(), GuestPolicy(max_controllers=2), 1, fit.PV_DEFAULT),
        (guest(), GuestPolicy(own_only=True), 0, Cause.NO_CONTROLLER),
        (guest(**HVM), GuestPolicy(EHCI), 0, Cause.UNFIT_SPEED),
        (guest(device_model=None), GuestPolicy(), 0, Cause.NO_DEVICE_MODEL),
        (guest(device_model=None), GuestPolicy(PV), 0, Cause.NO_USBBACK),
        (guest("a", 1, controller(0, ports=1, p1="1-8")), GuestPolicy(own_only=True), 0, Cause.NO_FREE_PORT),
        (guest("a", 1, controller(0, "devicemodel", 2)), GuestPolicy(own_only=True), 0, Cause.UNFIT_SPEED),
        (
            guest("a", 1, controller(0, "devicemodel", 2), controller(1, ports=1, p1="1-8")),
            GuestPolicy(),
            1,
            Cause.NO_FREE_PORT,
        ),
    ],
    ids=[
        "pv",
        "pvh",
        "hvm",
        "as the policy says",
        "one only",
        "two allowed",
        "controller: none",
        "would not fit",
        "no device model",
        "pv needs the kernel's driver",
        "own one is full",
        "own one is unfit",
        "one unfit, one full",
    ],
)
def test_a_new_controller_or_why_none(here, rules, made, expected):
    assert fit.new_controller(here, rules, made, device()) == expected


def test_pv_controllers_need_the_kernels_usbback_and_no_device_model():
    here = guest(device_model=None)
    assert fit.new_controller(here, GuestPolicy(PV), 0, device(), usbback=True) == PV


def test_a_stub_domain_has_no_usb():
    here = guest("a", 1, controller(0, "devicemodel", 3), type=GuestType.HVM, stubdom=True)
    assert fit.choose_port(here, device(), []) is None
    assert fit.new_controller(here, GuestPolicy(), 0, device()) is Cause.STUB_DOMAIN
    served = guest("a", 1, controller(0), type=GuestType.HVM, stubdom=True)
    assert fit.choose_port(served, device(), []) == guest_port(1, 1, 0)


def test_why_none_names_the_stream():
    camera = device(kinds=frozenset({"video"}), isochronous=True, speed=Speed.HIGH)
    own = guest("a", 1, controller(0))
    assert fit.new_controller(own, GuestPolicy(own_only=True), 0, camera) is Cause.UNFIT_ISOCHRONOUS
    assert fit.new_controller(guest("a", 1), GuestPolicy(), 0, camera) is Cause.UNFIT_ISOCHRONOUS
