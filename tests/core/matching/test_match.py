"""Which rule matches a device: every key, absent values, the index, protection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.make import device, policy

from xenplug.core.matching.match import KEYS, Matcher, matches, protects
from xenplug.core.model import Bdf, BusId, Device, Interface, Speed, Tag
from xenplug.core.policy.conditions import FORMS
from xenplug.core.policy.rules import Condition, Policy, Rule, Where
from xenplug.core.usb.hubs import linked_all

FULL = device(
    "1-4.2",
    6,
    tag=Tag("046d:c016"),
    path="pci-0000:00:14.0-usb-0:4.2",
    device_class=Interface(0xEF, 2, 1),
    interfaces=(Interface(3, 1, 2), Interface(3, 0, 0)),
    kinds=frozenset({"mouse", "keyboard"}),
    speed=Speed.FULL,
    serial="A1B2",
    manufacturer="Logitech",
    product="Optical Wheel Mouse",
    revision="1.10",
    removable="fixed",
    fingerprint=f"sha256:{'0f' * 32}",
)
BARE = Device(FULL.port, 1, 6, Tag("046d:c016"))
"""A device without any optional value."""


def rule(index: int, *conditions: Condition) -> Rule:
    return Rule(f"rule {index}", Where("policy.yaml", index + 1), conditions, "host")


def fits(text: str, here: Device) -> bool:
    return Matcher(policy(f"rules: [{{match: {text}, action: host}}]")).decide(here).rule is not None


@pytest.mark.parametrize(
    "key, yes, no",
    [
        ("device", "046D:C016", "046d:c017"),
        ("device", "046d:*", "046e:*"),
        ("device", '"*:*"', "1:*"),
        ("address", "1.6", "1.60"),
        ("address", "001.006", "1.5"),
        ("port", "1-4.2", "1-4"),
        ("port", "1-4.*", "1-4.2.*"),
        ("path", '"pci-0000:00:14.0-usb-0:4.2"', '"pci-0000:00:14.0-usb-0:4"'),
        ("path", '"pci-0000:00:14.0-usb-0:4.*"', '"pci-0000:00:14.0-usb-0:4.2.*"'),
        ("controller", '"0000:00:14.0"', '"0000:00:14.1"'),
        ("serial", "a1b?", "a1"),
        ("manufacturer", "LOGI*", "tech"),
        ("product", '"*wheel*"', "wheel*"),
        ("class", '"ef:02:01"', '"ef:02:02"'),
        ("interface", '"03:00:00"', '"08:*:*"'),
        ("interfaces", '["03:*:*"]', '["03:01:*"]'),
        ("kind", "keyboard", "storage"),
        ("speed", "full", "high"),
        ("revision", "1.10", "1.11"),
        ("removable", "fixed", "removable"),
        ("descriptors", f"sha256:{'0F' * 32}", f"sha256:{'0e' * 32}"),
    ],
    ids=lambda value: str(value),
)
def test_every_key(key, yes, no):
    assert fits(f"{{{key}: {yes}}}", FULL)
    assert not fits(f"{{{key}: {no}}}", FULL)
    first, second = yes.strip("[]"), no.strip("[]")
    assert fits(f"{{{key}: [{second}, {first}]}}", FULL), "a list means any of them"


def test_every_key_can_be_matched():
    assert set(FORMS) == set(KEYS)


ANYTHING = {
    "path": '["pci-0000:00:14.0-usb-0:4.*", "pci-0000:00:14.0-usb-0:4"]',
    "controller": '"0000:00:14.0"',
    "serial": '"*"',
    "manufacturer": '"*"',
    "product": '"*"',
    "interface": '["00", "03", "08", "ff"]',
    "interfaces": '["00", "03", "08", "ff"]',
    "kind": "[mouse, keyboard, storage, hub]",
    "speed": "[low, full, high, super, super+]",
    "revision": "0.00",
}


@pytest.mark.parametrize("key", ANYTHING)
def test_an_absent_value_never_matches(key):
    assert not fits(f"{{{key}: {ANYTHING[key]}}}", BARE)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{not: {kind: storage}}", True),
        ("{not: {kind: mouse}}", False),
        ("{kind: mouse, not: {serial: '*'}}", False),
        ("{not: {kind: mouse, speed: low}}", True),
        ("{any: [{kind: storage}, {speed: full}]}", True),
        ("{any: [{kind: storage}, {speed: low}]}", False),
        ("{kind: mouse, any: [{device: 1234:*}, {not: {speed: low}}]}", True),
        ("{not: {any: [{kind: storage}, {kind: hub}]}}", True),
        ("{not: {not: {kind: mouse}}}", True),
        ("{below: {device: 17e9:*}}", True),
        ("{below: {device: 1234:*}}", True),
        ("{below: {device: 17e9:*, below: {device: 1234:*}}}", True),
        ("{below: {device: 1234:*, below: {device: 17e9:*}}}", False),
        ("{below: {port: 1-4}}", True),
        ("{below: {kind: mouse}}", False),
        ("{not: {below: {device: 17e9:*}}}", False),
        ("{product: /wheel mouse$/}", True),
        ("{product: /^wheel/}", False),
        ("{product: [/^wheel/, opt*]}", True),
        ("{serial: '/^[a-b0-9]{4}$/'}", True),
    ],
)
def test_not_any_below_and_regular_expressions(text, expected):
    dock = device("1-4", 2, tag=Tag("1234:0001"), hub=True, kinds=frozenset({"hub"}))
    hub = device("1-4.2", 3, tag=Tag("17e9:4301"), hub=True, kinds=frozenset({"hub"}))
    all_ = {d.port: d for d in (dock, hub, replace(FULL, port=BusId("1-4.2.1")))}
    assert fits(text, linked_all(all_)[BusId("1-4.2.1")]) is expected


def test_a_device_on_a_root_port_is_below_nothing():
    assert not fits('{below: {device: "*:*"}}', FULL)
    assert fits('{not: {below: {device: "*:*"}}}', FULL)


@pytest.mark.parametrize(
    "text, admitted",
    [
        ('{not: {path: "pci-0000:00:14.0-usb-0:2"}}', False),
        ('{not: {path: "pci-0000:00:14.0-usb-0:7"}}', False),
        ('{not: {not: {path: "pci-0000:00:14.0-usb-0:2"}}}', False),
        ('{not: {any: [{path: "pci-0000:00:14.0-usb-0:2"}, {kind: storage}]}}', False),
    ],
)
def test_an_unknown_path_matches_no_negation(text, admitted):
    assert fits(text, SUPER) is admitted


def test_interfaces_means_every_one_of_them():
    pure = replace(FULL, interfaces=(Interface(3, 1, 1),))
    disguised = replace(FULL, interfaces=(Interface(3, 1, 1), Interface(8, 6, 0x50)))
    for text in ('{interfaces: ["03:*:*"]}', '{kind: keyboard, interfaces: ["03:*:*"]}'):
        assert fits(text, pure)
        assert not fits(text, disguised)
    assert fits('{interfaces: ["03:*:*", "08:*:*"]}', disguised)


def test_all_given_keys_must_hold():
    assert fits("{device: 046d:c016, speed: full, kind: mouse}", FULL)
    assert not fits("{device: 046d:c016, speed: low, kind: mouse}", FULL)


def test_the_first_matching_rule_wins():
    rules = policy(
        "rules:\n"
        "  - {name: other, match: {device: 1234:*}, action: block}\n"
        "  - {name: kind, match: {kind: mouse}, attach: one}\n"
        "  - {name: tag, match: {device: 046d:c016}, attach: two}\n"
        "  - {name: vendor, match: {device: 046d:*}, attach: three}\n"
    )
    won = Matcher(rules).decide(FULL)
    assert (won.rule and won.rule.name, won.action, won.guests) == ("kind", "attach", ("one",))
    won = Matcher(replace(rules, rules=rules.rules[:1] + rules.rules[2:])).decide(FULL)
    assert won.rule and won.rule.name == "tag"


@pytest.mark.parametrize("default", ["host", "block"])
def test_the_default_applies_without_a_matching_rule(default):
    decision = Matcher(policy(f"default: {default}")).decide(FULL)
    assert (decision.action, decision.rule, decision.guests) == (default, None, ())


# the index agrees with a linear search

VENDORS, PRODUCTS = ["046d", "0781"], ["c016", "5567"]
TEXTS: dict[str, Any] = {
    "device": st.sampled_from([*(f"{v}:{p}" for v in VENDORS for p in [*PRODUCTS, "*"]), "*:*"]),
    "speed": st.sampled_from(["low", "high"]),
    "kind": st.sampled_from(["mouse", "storage"]),
    "port": st.sampled_from(["1-1", "1-2", "1-1.*"]),
    "path": st.sampled_from([f"pci-0000:00:14.0-usb-0:{port}" for port in ("1", "2", "1.*")]),
    "address": st.sampled_from(["1.5", "1.6"]),
    "controller": st.sampled_from(["0000:00:14.0", "0000:00:14.1"]),
    "serial": st.sampled_from(["x*", "y", "X1", "/[xy]1?/", "/1$/", "[x]1"]),
    "product": st.sampled_from(["mouse", "*mouse*", "/mou|key/"]),
    "interface": st.sampled_from(["03", "03:01:02", "08", "03:*:02"]),
    "interfaces": st.sampled_from(["03", "03:01:02", "08"]),
    "class": st.sampled_from(["00", "ef:02"]),
    "removable": st.sampled_from(["fixed", "unknown"]),
    "revision": st.sampled_from(["1.10", "0200"]),
}


@st.composite
def a_condition(draw: st.DrawFn) -> Condition:
    key = draw(st.sampled_from(sorted(TEXTS)))
    return Condition(key, tuple(FORMS[key](t) for t in draw(st.lists(TEXTS[key], min_size=1, max_size=3))))


plain = st.lists(a_condition(), max_size=3, unique_by=lambda c: c.key).map(tuple)
nested = st.builds(
    lambda key, groups: Condition(key, (), tuple(groups if key == "any" else groups[:1])),
    st.sampled_from(["not", "any", "below"]),
    st.lists(plain.filter(bool), min_size=1, max_size=3),
)
conditions = st.lists(a_condition() | nested, max_size=3, unique_by=lambda c: c.key).map(tuple)
policies = st.lists(conditions, max_size=8).map(
    lambda all_: Policy(rules=tuple(rule(index, *found) for index, found in enumerate(all_)))
)
devices = st.builds(
    lambda port, vendor, product, speed, kind, serial: device(
        port,
        tag=Tag(f"{vendor}:{product}"),
        speed=speed,
        kinds=frozenset(kind),
        serial=serial,
        product=serial and f"{kind and kind[0]} Mouse",
        interfaces=(Interface(3, 1, 2), Interface(8, 6, 80))[: len(kind)],
        revision=serial and "1.10",
        parent=device("1-1", hub=True, tag=Tag("046d:c016")) if "." in port else None,
    ),
    st.sampled_from(["1-1", "1-2", "1-1.4"]),
    st.sampled_from([*VENDORS, "1d6b"]),
    st.sampled_from(PRODUCTS),
    st.sampled_from([Speed.LOW, Speed.HIGH, None]),
    st.sampled_from([(), ("mouse",), ("storage", "mouse")]),
    st.sampled_from([None, "x1", "y"]),
)


@given(policies, devices)
def test_the_index_agrees_with_a_linear_search(rules, here):
    naive = next((r for r in rules.rules if matches(r.conditions, here)), None)
    assert Matcher(rules).decide(here).rule is naive


@given(conditions, devices)
def test_more_keys_never_match_more(found, here):
    if matches(found, here):
        assert all(matches(found[:n], here) for n in range(len(found)))


# protection


def protected(text: str, here: Device) -> bool:
    [entry] = policy(f"protect: [{text}]").protect
    return protects(entry, here)


SUPER = replace(FULL, speed=Speed.SUPER, path=None, plain_path="pci-0000:00:14.0-usb-0:2")


@pytest.mark.parametrize(
    "text, here, expected",
    [
        ('{path: "pci-0000:00:14.0-usb-0:2"}', SUPER, True),
        ('{path: "pci-0000:00:14.0-usb-0:2.*"}', replace(SUPER, plain_path="pci-0000:00:14.0-usb-0:2.1"), True),
        ('{path: "pci-0000:00:14.0-usb-0:3"}', SUPER, False),
        ('{path: "pci-0000:00:14.0-usb-0:4.2"}', FULL, True),
        ('{path: "pci-0000:00:14.0-usb-0:2"}', BARE, False),
        ('{path: "pci-0000:00:14.0-usb-0:2", speed: high}', SUPER, False),
        ("{device: 046d:*}", SUPER, True),
    ],
    ids=["plain path", "below the plain path", "elsewhere", "own path", "no path", "other key fails", "tag"],
)
def test_a_path_protects_by_the_plain_path_too(text, here, expected):
    assert protected(text, here) is expected


def test_a_rule_never_matches_the_plain_path():
    assert not fits('{path: "pci-0000:00:14.0-usb-0:2"}', SUPER)


def test_protection_returns_the_entry_that_matches():
    matcher = Matcher(policy("protect: [{device: 1234:*}, {kind: mouse}, {controller: 0000:00:14.0}]"))
    found = matcher.protection(FULL)
    assert found and [c.key for c in found.conditions] == ["kind"]
    assert matcher.protection(replace(BARE, controller=Bdf("0000:00:1a.0"))) is None


@pytest.mark.parametrize(
    "hub, believed",
    [("fixed", "fixed"), ("removable", "unknown"), ("unknown", "unknown")],
)
def test_a_replaceable_hub_cannot_report_fixed_ports(hub, believed):
    above = device("1-4", 2, hub=True, removable=hub)
    here = device("1-4.1.1", removable="fixed", parent=device("1-4.1", 3, hub=True, removable="fixed", parent=above))
    for value in ("fixed", "removable", "unknown"):
        decision = Matcher(policy(f"rules: [{{match: {{removable: {value}}}, attach: kiosk}}]")).decide(here)
        assert (decision.rule is not None) is (value == believed)
    if believed == "unknown":
        kept = Matcher(policy("protect: [{removable: fixed}]\nrules: [{match: {not: {removable: fixed}}, attach: a}]"))
        assert kept.protection(here)
        assert kept.decide(here).rule is None
    assert Matcher(policy("rules: [{match: {removable: fixed}, attach: a}]")).decide(replace(here, parent=None)).rule
