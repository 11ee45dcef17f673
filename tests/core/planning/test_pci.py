"""The preflight of whole controllers, and what the plan does with them: values in, steps and verdicts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.core.make import (
    NOW,
    TO_HOST_BY_HAND,
    controller,
    device,
    entry,
    guest,
    policy,
    running_since,
    to_guest_by_hand,
    verdict,
)

from xenplug.core.ledger.ledger import Ledger, fail
from xenplug.core.ledger.pci import PassedController, PciIntent, PciLedger, StayOrder
from xenplug.core.ledger.records import Orders, Override
from xenplug.core.ledger.troubles import Backoff, TroubleKey
from xenplug.core.ledger.update import update
from xenplug.core.matching.match import Matcher
from xenplug.core.model import (
    Bdf,
    Device,
    Guest,
    GuestPort,
    GuestState,
    GuestType,
    PciController,
    PciFunction,
    Snapshot,
    Use,
)
from xenplug.core.planning.pci_steps import AskXl, MakeAssignable, PciAttach, PciDetach, ReturnToDom0
from xenplug.core.planning.plan import make_plan
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.protection import pci_outlook, protect_all, wanted_guests
from xenplug.core.planning.steps import Cause, Detach, Plan, State
from xenplug.core.policy.rules import Policy

BDF = Bdf("0000:00:14.0")
OTHER = Bdf("0000:03:00.0")
HOME = PciController(BDF, "xhci_hcd", "0c0330")
SEIZED = replace(HOME, driver="pciback")
CAPS = frozenset({"pv", "hvm", "pv_directio", "hvm_directio", "pciback"})
KNOWN = PciLedger(caps=CAPS, open={1: True})
RULE = "rules: [{{name: r, match: {{kind: mouse}}, attach: kiosk, via: pci, siblings: {}}}]"
TO_KIOSK = policy(RULE.format("refuse"))
MOUSE = device()
KIOSK = guest("kiosk", 1, controller())
HAS = guest("kiosk", 1, controller(), pci=(BDF,))
WITH_IT = PassedController("kiosk", "xhci_hcd", MOUSE.port, (MOUSE,), NOW - 5, domid=1)


def plan(
    *things: Device | Guest,
    rules: Policy | None = TO_KIOSK,
    pci: PciLedger = KNOWN,
    host: PciController = HOME,
    **more: Any,
) -> Plan:
    """The plan of one round; `more` are fields of the ledger."""
    seen = Snapshot(
        {d.port: d for d in things if isinstance(d, Device)},
        {g.name: g for g in things if isinstance(g, Guest)},
        controllers=(host, PciController(OTHER, "xhci_hcd")),
    )
    matcher = Matcher(rules or Policy())
    ledger = Ledger(at=NOW, pci=pci, domains=running_since(1), **more)
    ledger = update(ledger, seen, NOW, wanted_guests(matcher, ledger), 5.0)
    decisions = {port: matcher.decide(here) for port, here in seen.devices.items()}
    protected = protect_all(matcher, seen.devices, ledger)
    return make_plan(
        PlanInput(seen, ledger, NOW, decisions, protected, rules, pci_outlook=pci_outlook(matcher, seen, ledger))
    )


def given(**changes: Any) -> PciLedger:
    return replace(KNOWN, passed={BDF: replace(WITH_IT, **changes)})


# --- there


def test_first_xl_is_asked_then_the_controller_is_taken() -> None:
    asked = plan(MOUSE, KIOSK, pci=PciLedger())
    assert [type(step) for step in asked.steps] == [AskXl]
    assert (verdict(asked).state, verdict(asked).cause) == (State.PENDING, Cause.ASKING_XL)
    [seize] = plan(MOUSE, KIOSK).steps
    assert isinstance(seize, MakeAssignable)
    assert (seize.passed.guest, seize.passed.driver, seize.passed.devices) == ("kiosk", "xhci_hcd", (MOUSE,))
    assert seize.plan == ("1-1 046d:c016 asks for kiosk",)


@pytest.mark.parametrize(
    ("siblings", "sibling", "goes"),
    [
        ("refuse", device("1-2", kinds=frozenset({"audio"})), False),
        ("same_guest", device("1-2", kinds=frozenset({"audio"})), False),
        ("same_guest", device("1-2"), True),
        ("refuse", device("1-2"), False),
        ("take", device("1-2", kinds=frozenset({"audio"})), True),
        ("refuse", device("1-2", hub=True, kinds=frozenset({"hub"})), True),
        ("refuse", device("1-2", controller=OTHER, kinds=frozenset({"audio"})), True),
        ("take", device("1-2", in_use=frozenset({Use.STORAGE})), False),
        ("take", device("1-2", hub=True, in_use=frozenset({Use.STORAGE})), False),
        ("take", device("1-2", partly_hub=True, in_use=frozenset({Use.STORAGE})), False),
        ("refuse", device("1-2", partly_hub=True, kinds=frozenset({"audio", "hub"})), False),
        ("take", device("1-2", partly_hub=True, kinds=frozenset({"audio", "hub"})), True),
    ],
)
def test_siblings(siblings: str, sibling: Device, goes: bool) -> None:
    made = plan(MOUSE, sibling, KIOSK, rules=policy(RULE.format(siblings)))
    assert [type(step) for step in made.steps] == ([MakeAssignable] if goes else [])
    if not goes:
        assert (verdict(made).state, verdict(made).cause) == (State.GIVEN_UP, Cause.SIBLING)
        assert "1-2 046d:c016 prevents this" in (verdict(made).text or "")


def test_of_two_keyboards_on_it_both_are_the_last() -> None:
    keyboards = [
        device(port, kinds=frozenset({"keyboard"}), in_use=frozenset({Use.KEYBOARD})) for port in ("1-2", "1-3")
    ]
    rules = policy("auto_protect: [keyboard]\n" + RULE.format("take"))
    assert verdict(plan(MOUSE, *keyboards, KIOSK, rules=rules)).cause is Cause.SIBLING
    elsewhere = replace(keyboards[1], controller=OTHER)
    assert verdict(plan(MOUSE, keyboards[0], elsewhere, KIOSK, rules=rules)).cause is Cause.CONTROLLER_MOVING


@pytest.mark.parametrize(
    ("order", "goes"),
    [(TO_HOST_BY_HAND, False), (to_guest_by_hand("desk"), False), (to_guest_by_hand("kiosk"), True)],
)
def test_a_siblings_manual_order_counts_more_than_take(order: Override, goes: bool) -> None:
    sibling = device("1-2", kinds=frozenset({"audio"}))
    made = plan(MOUSE, sibling, KIOSK, rules=policy(RULE.format("take")), orders=Orders({sibling.key: order}))
    assert any(isinstance(step, MakeAssignable) for step in made.steps) is goes


def test_attached_siblings_are_detached_first() -> None:
    sibling = device("1-2", kinds=frozenset({"audio"}))
    desk = guest("desk", 2, controller(p1="1-2"))
    known = entry(sibling, "desk")
    rules = policy(RULE.format("take")[:-1] + ", {match: {kind: audio}, attach: desk}]")
    made = plan(MOUSE, sibling, KIOSK, desk, rules=rules, entries={GuestPort(2, 0, 1): known})
    assert [type(step) for step in made.steps] == [Detach]
    foreign = replace(known, ours=False)
    made = plan(MOUSE, sibling, KIOSK, desk, rules=rules, entries={GuestPort(2, 0, 1): foreign})
    assert (made.steps, verdict(made).cause) == ((), Cause.SIBLING)


@pytest.mark.parametrize(
    ("kiosk", "pci", "cause"),
    [
        (replace(KIOSK, type=GuestType.PVH), KNOWN, Cause.UNFIT_GUEST),
        (KIOSK, replace(KNOWN, caps=CAPS - {"pv_directio"}), Cause.NO_IOMMU),
        (replace(KIOSK, type=GuestType.HVM), replace(KNOWN, caps=CAPS - {"hvm_directio"}), Cause.NO_IOMMU),
        (KIOSK, replace(KNOWN, caps=CAPS - {"pciback"}), Cause.NO_PCIBACK),
        (KIOSK, replace(KNOWN, open={1: False}), Cause.NO_PASSTHROUGH),
    ],
)
def test_an_impossible_handover_is_refused_before_anything_is_touched(
    kiosk: Guest, pci: PciLedger, cause: Cause
) -> None:
    made = plan(MOUSE, kiosk, pci=pci)
    assert (made.steps, verdict(made).state, verdict(made).cause) == ((), State.GIVEN_UP, cause)


def test_a_passthrough_that_xl_does_not_tell_is_tried() -> None:
    assert isinstance(plan(MOUSE, KIOSK, pci=replace(KNOWN, open={1: None})).steps[0], MakeAssignable)


def test_companions_of_one_slot_are_not_torn_apart() -> None:
    old = PciController(BDF, "ehci-pci", "0c0320", (PciFunction(Bdf("0000:00:14.1"), "uhci_hcd", "0c0300"),))
    assert verdict(plan(MOUSE, KIOSK, host=old)).cause is Cause.SIBLING
    mixed = replace(HOME, slot=(PciFunction(Bdf("0000:00:14.2"), None, "050000"),), resettable=False)
    [seize] = plan(MOUSE, KIOSK, host=mixed).steps
    assert isinstance(seize, MakeAssignable)
    assert [words.partition(" ")[0] for words in seize.plan] == ["1-1", "0000:00:14.2", "the"]


def test_a_device_without_pci_controller() -> None:
    made = plan(replace(MOUSE, controller=None), KIOSK)
    assert (verdict(made).state, verdict(made).cause) == (State.GIVEN_UP, Cause.NO_HOST_CONTROLLER)


def test_a_paused_guest_is_waited_for() -> None:
    made = plan(MOUSE, replace(KIOSK, state=GuestState.PAUSED))
    assert (made.steps, verdict(made).cause) == ((), Cause.GUEST_PAUSED)


def test_a_manual_attach_moves_the_device_alone() -> None:
    made = plan(MOUSE, KIOSK, orders=Orders({MOUSE.key: to_guest_by_hand("kiosk")}))
    assert [type(step).__name__ for step in made.steps] == ["Attach"]


def test_a_policy_that_did_not_load_moves_nothing() -> None:
    assert plan(MOUSE, KIOSK, rules=None).steps == ()
    assert plan(KIOSK, rules=None, pci=given(), host=SEIZED).steps == ()


# --- controllers that were passed

STEPS: Mapping[str, tuple[list[Any], dict[str, Any], type | None]] = {
    "with its guest": ([HAS], {}, None),
    "seized, its guest there": ([KIOSK], {"domid": None}, PciAttach),
    "seized, its guest gone": ([], {"guest_gone_since": NOW - 60}, ReturnToDom0),
    "seized, its guest gone a moment ago": ([], {"guest_gone_since": NOW - 1}, None),
    "seized, its guest coming back": (
        [replace(KIOSK, domid=2, state=GuestState.STARTING)],
        {"guest_gone_since": NOW - 60},
        None,
    ),
    "an act under way": ([KIOSK], {"intent": PciIntent.ATTACH}, None),
}


@pytest.mark.parametrize("case", STEPS)
def test_what_is_done_follows_from_where_it_is(case: str) -> None:
    things, changes, expected = STEPS[case]
    made = plan(*things, pci=given(**changes), host=SEIZED)
    assert [type(step) for step in made.steps] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("rules", "pci", "host"),
    [
        (policy("rules: [{match: {kind: mouse}, action: host}]"), given(), SEIZED),
        (policy("rules: [{match: {kind: mouse}, attach: kiosk}]"), given(), SEIZED),
        (policy("rules: [{match: {kind: mouse}, attach: desk, via: pci}]"), given(), SEIZED),
        (policy("protect: [{kind: mouse}]\n" + RULE.format("take")), given(), SEIZED),
        (TO_KIOSK, replace(given(), stay_orders={BDF: StayOrder()}), SEIZED),
    ],
    ids=["host", "usb", "another guest", "protected by now", "by hand"],
)
def test_it_is_taken_back_when_nothing_asks_for_it(rules: Policy, pci: PciLedger, host: PciController) -> None:
    assert [type(step) for step in plan(HAS, rules=rules, pci=pci, host=host).steps] == [PciDetach]
    gone = replace(pci, passed={BDF: replace(WITH_IT, domid=None)})
    [back] = plan(KIOSK, rules=rules, pci=gone, host=host).steps
    assert back == ReturnToDom0("kiosk", BDF, "xhci_hcd")


def test_taking_back_is_forced_once_the_guest_did_not_agree() -> None:
    rules = policy("rules: [{match: {kind: mouse}, action: host}]")
    once = fail(Ledger(), TroubleKey.return_pci(BDF), (Cause.REFUSED, "timed out"), NOW - 30, Backoff())
    [step] = plan(HAS, rules=rules, pci=given(), host=SEIZED, troubles=once.troubles).steps
    assert isinstance(step, PciDetach) and step.force


def test_a_failed_hand_over_is_rolled_back_and_then_waits() -> None:
    once = fail(Ledger(), TroubleKey.pass_pci(BDF, 1), (Cause.REFUSED, "no"), NOW, Backoff(10))
    back = plan(KIOSK, pci=given(domid=None), host=SEIZED, troubles=once.troubles)
    assert [type(step) for step in back.steps] == [ReturnToDom0]
    waits = plan(MOUSE, KIOSK, troubles=once.troubles)
    assert (waits.steps, verdict(waits).state, verdict(waits).next_try) == ((), State.FAILING, NOW + 10)


def test_devices_that_went_along_are_shown_and_those_seen_again_not_twice() -> None:
    shown = plan(HAS, pci=given(), host=SEIZED)
    assert (verdict(shown).state, verdict(shown).guest, verdict(shown).via) == (State.PCI, "kiosk", "pci")
    here = replace(MOUSE, number=9)
    back = plan(here, KIOSK, pci=given(domid=None, intent=PciIntent.RETURN), host=SEIZED)
    assert [(v.device.number, v.state) for v in back.verdicts] == [(9, State.ATTACHING)]


def test_the_book_forgets_what_is_home_or_with_somebody_else() -> None:
    for host, things in ((HOME, [KIOSK]), (SEIZED, [KIOSK, guest("desk", 2, pci=(BDF,))])):
        seen = Snapshot({}, {g.name: g for g in things}, controllers=(host,))
        ledger = Ledger(at=NOW, pci=given())
        assert update(ledger, seen, NOW, lambda _: (), 5.0).pci.passed == {}


def test_taken_off_at_the_console_it_stays_home_unless_its_domain_was_dying() -> None:
    seen = Snapshot({}, {"kiosk": KIOSK}, controllers=(SEIZED,))
    after = update(Ledger(at=NOW, pci=given()), seen, NOW, lambda _: (), 5.0)
    assert after.pci.stay_orders == {BDF: StayOrder(NOW, 1)}
    gone = Snapshot({}, {}, controllers=(SEIZED,))
    assert update(after, gone, NOW + 1, lambda _: (), 5.0).pci.stay_orders == {}
    assert update(after, gone, NOW + 60, lambda _: (), 5.0).pci.stay_orders != {}


# --- fallback


def test_no_free_port_must_last() -> None:
    full = guest("kiosk", 1, controller(ports=1, p1="1-9"))
    rules = policy(
        "guests: {kiosk: {controller: none}}\n"
        "rules: [{match: {kind: mouse}, attach: kiosk, fallback: {via: pci, when: no_free_port}}]"
    )
    other = device("1-9", controller=OTHER, kinds=frozenset())
    first = plan(MOUSE, other, full, rules=rules)
    assert (first.steps, first.asked, first.wake) == ((), {MOUSE.key: NOW}, NOW + 10)
    later = plan(MOUSE, other, full, rules=rules, pci=replace(KNOWN, asked={MOUSE.key: NOW - 10}))
    assert [type(step) for step in later.steps] == [MakeAssignable]


@pytest.mark.parametrize(("tries", "goes"), [(2, False), (3, True)])
def test_failures_in_a_row(tries: int, goes: bool) -> None:
    rules = policy("rules: [{match: {kind: mouse}, attach: kiosk, fallback: {via: pci, when: refused}}]")
    ledger = Ledger()
    for _ in range(tries):
        ledger = fail(ledger, TroubleKey.attach(MOUSE.key, 1), (Cause.REFUSED, "no"), NOW, Backoff())
    made = plan(MOUSE, KIOSK, rules=rules, troubles=ledger.troubles)
    assert [type(step) for step in made.steps] == ([MakeAssignable] if goes else [])


def test_a_fallback_that_cannot_be_is_said_with_the_first_failure() -> None:
    rules = policy(
        "guests: {kiosk: {controller: {type: qusb}}}\n"
        "rules: [{match: {kind: mouse}, attach: kiosk, fallback: {via: pci, when: unfit}}]"
    )
    fast = device(speed="super")
    made = plan(fast, KIOSK, rules=rules, pci=replace(KNOWN, open={1: False}))
    assert (verdict(made).state, verdict(made).cause, verdict(made).via) == (State.GIVEN_UP, Cause.UNFIT_SPEED, "usb")
    assert "its controller 0000:00:14.0 cannot go instead: no_passthrough" in (verdict(made).text or "")
