"""Warnings of `check`: rules that never apply, overlap, match only protected devices, or match changing values."""

from __future__ import annotations

import pytest
from hypothesis import given
from tests.core.make import device, policy
from tests.core.matching.test_match import conditions, devices

from xenplug.core.matching.implication import apart, cases, contradictory, covers
from xenplug.core.matching.lint import lint, lint_here
from xenplug.core.matching.match import matches
from xenplug.core.model import Tag


def rules(*lines: str, more: str = "") -> list[str]:
    text = more + "rules:\n" + "".join(f"  - {{{line}}}\n" for line in lines)
    return [f"{problem.line}: {problem.message}" for problem in lint(policy(text))]


TO_A, TO_B = "attach: a", "attach: b"


@pytest.mark.parametrize(
    "first, second",
    [
        ("device: 046d:*", "device: 046d:c016"),
        ('device: "*:*"', "device: 046d:*"),
        ("kind: mouse", "kind: mouse, device: 046d:c016"),
        ("kind: [mouse, keyboard]", "kind: mouse"),
        ('path: "pci-0000:00:14.0-usb-0:2.*"', 'path: "pci-0000:00:14.0-usb-0:2.1.4"'),
        ('interface: "03"', 'interface: "03:01:02"'),
        ("serial: a*", "serial: ab"),
        ("product: /mouse/", "product: USB mouse"),
        ("any: [{kind: mouse}, {kind: hub}]", "kind: mouse"),
        ("not: {device: 046d:*}", "device: 0781:5567"),
        ("below: {device: 17e9:*}", "below: {device: 17e9:4301}"),
        ("not: {kind: hub}", "not: {kind: hub}, speed: high"),
    ],
)
def test_shadowed(first, second):
    [message] = rules(f"name: one, match: {{{first}}}, {TO_A}", f"name: two, match: {{{second}}}, {TO_B}")
    assert message.startswith(
        "4: rule 'two' is shadowed, because each device that matches it matches 'one' (policy.yaml:3) first; move it up"
    )
    assert not [w for w in rules(f"match: {{{second}}}, {TO_A}", f"match: {{{first}}}, {TO_B}") if "shadowed" in w]


def test_a_rule_covered_by_several_earlier_rules():
    [message] = rules(
        f"match: {{kind: mouse}}, {TO_A}", f"match: {{kind: net}}, {TO_A}", f"match: {{kind: [net, mouse]}}, {TO_B}"
    )
    assert message.startswith(
        "5: this rule is never reached, because each device that matches it matches the one at policy.yaml:"
    )


@pytest.mark.parametrize(
    "first, second",
    [
        ("device: 046d:c016", "device: 046d:c01"),
        ("port: 1-4.*", "port: 1-4"),
        ("port: 1-1.*", "port: 1-10.2"),
        ("kind: mouse", "interface: '03:01:02'"),
        ("serial: a*", "serial: a?"),
        ("interfaces: ['03']", "interface: '03:01:02'"),
        ("not: {kind: mouse}", "kind: net"),
    ],
)
def test_not_shadowed(first, second):
    message = rules(f"match: {{{first}}}, {TO_A}", f"match: {{{second}}}, {TO_B}")
    assert not [line for line in message if "shadowed" in line or "never" in line]


PROTECTED = "device: 1:2, interfaces: ['03']"


def test_overlapping():
    one, two = "name: one, match: {device: [1:1, 1:2]}, attach: a", "name: two, match: {device: [1:2, 1:3]}, attach: b"
    [message] = rules(one, two)
    assert message.startswith(
        "4: rule 'two' overlaps with 'one' (policy.yaml:3), which comes first and decides for devices that match both"
    )
    assert rules(one, two.replace("attach: b", "attach: a")) == []
    assert (
        rules(one.replace("match: {", "match: {speed: high, "), two.replace("match: {", "match: {speed: low, ")) == []
    )


@pytest.mark.parametrize(
    "line, message",
    [
        ("match: {kind: mouse, not: {kind: mouse}}, action: host", "this rule matches no device"),
        ("match: {kind: hub}, action: block", "hubs are never attached to a guest or blocked"),
        ("match: {kind: hub, speed: high}, attach: a", "hubs are never attached to a guest or blocked"),
        ("match: {class: '09'}, action: block", "hubs are never attached to a guest or blocked"),
        ("match: {interfaces: ['09:00:*']}, attach: a", "hubs are never attached to a guest or blocked"),
        ("match: {any: [{kind: hub}, {interface: '09'}]}, attach: a", "hubs are never attached to a guest or blocked"),
        ("match: {address: 1.6}, action: host", "matches by bus address"),
        ("match: {not: {port: 1-4}}, action: host", "matches by port"),
        (f"match: {{{PROTECTED}}}, attach: a", "is protected (policy.yaml:2)"),
        (f"match: {{{PROTECTED}, kind: mouse}}, action: block", "is protected (policy.yaml:2)"),
    ],
)
def test_findings_of_one_rule(line, message):
    [found] = rules(line, more=f"protect: [{{{PROTECTED}}}]\n")
    assert message in found
    assert "; " in found


WORDS = "admits to dom0 any device that claims to match; add `path:`, `descriptors:` or `interfaces:`"
PATH = "path: pci-0000:00:14.0-usb-0:1"


@pytest.mark.parametrize(
    "entry, warned",
    [
        ("device: 1:2", True),
        ("device: 1:2, serial: X", True),
        ("device: 1:2, not: {interface: '08'}", True),
        ("kind: keyboard, removable: fixed", True),
        (f"any: [{{device: 1:2}}, {{{PATH}}}]", True),
        (f"not: {{{PATH}}}", True),
        ("below: {device: 17e9:4301}", True),
        ("below: {interfaces: ['09']}", True),
        (f"device: 1:2, {PATH}", False),
        ("device: 1:2, interfaces: ['03']", False),
        (f"device: 1:2, descriptors: 'sha256:{'0' * 64}'", False),
        (f"below: {{{PATH}}}", False),
        (f"any: [{{device: 1:2, interfaces: ['03']}}, {{{PATH}}}]", False),
        ("controller: '00:14.0'", False),
    ],
)
def test_entries_that_admit_devices_by_their_own_claims(entry, warned):
    protect = f"protect: [{{{entry}}}]\n"
    block = "match: {kind: printer}, action: block"
    expected = [f"2: this entry of protect {WORDS}"] if warned else []
    assert rules(block, more=protect) == expected
    assert rules(block.replace("action: block", TO_A), more=protect) == []
    assert rules(block.replace("action: block", TO_A), more="default: block\n" + protect) == [
        line.replace("2:", "3:", 1) for line in expected
    ]
    by_rule = rules(f"match: {{{entry}}}, action: host", more="default: block\n")
    assert by_rule == ([f"4: this rule {WORDS}"] if warned else [])
    assert rules(f"match: {{{entry}}}, action: host") == []


def test_an_address_pins_nothing():
    """A device can be enumerated again until it has the number."""
    found = rules("match: {kind: printer}, action: block", more="protect: [{device: 1:2, address: 1.6}]\n")
    assert any(WORDS in line for line in found)


def test_a_guest_that_no_rule_names():
    [message] = rules("match: {kind: mouse}, attach: win11", more="guests: {win10: {}}\n")
    assert message == "2: no rule attaches anything to 'win10'; did you mean 'win11'?"


def here(text, *present, guests=()):
    return [problem.message for problem in lint_here(policy(text), present, guests)]


def test_this_host():
    twins = device("1-1"), device("1-2", 6)
    assert (
        "matches 2 devices 046d:c016 on this host (1-1 and 1-2)"
        in here("rules: [{match: {device: 046d:*}, attach: a}]", *twins)[0]
    )
    assert here("rules: [{match: {device: 046d:*}, attach: a, ambiguous: all}]", *twins) == []
    assert here("rules: [{match: {device: 046d:*, serial: x}, attach: a}]", *twins) == []
    assert here("rules: [{match: {kind: mouse}, attach: a}]", device(), device("1-2", 7, tag=Tag("1:2"))) == []
    [message] = here("protect: [{port: 1-1}]\nrules: [{match: {kind: mouse}, attach: a}]", device())
    assert message.startswith("this rule matches only devices that are protected on this host (1-1: policy.yaml:2)")
    [message] = here("rules: [{match: {kind: mouse}, attach: [win11, linux]}]", guests=["win10", "linux"])
    assert message == "this rule names the guest 'win11', which this host does not have; did you mean 'win10'?"


@given(conditions, conditions, devices)
def test_covers_is_sound(wide, narrow, one):
    if matches(narrow, one):
        assert matches(wide, one) or not covers(wide, narrow)
        assert not contradictory(narrow)
        assert not (matches(wide, one) and apart(wide, narrow))
    assert matches(narrow, one) == any(matches(case, one) for case in cases(narrow))


def test_ten_thousand_rules_are_checked_in_seconds():
    lines = "".join(f"  - {{match: {{device: {n:04x}:0001, product: '*x{n}*'}}, attach: a}}\n" for n in range(3000))
    assert lint(policy("rules:\n" + lines)) == []
