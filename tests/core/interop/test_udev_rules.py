"""A policy as udev rules: the lines, the rules that are left out, and that no text of a policy leaves its quotes."""

import ctypes
import fnmatch
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplug.core.interop.udev_match import TRIPLES, UDEV_FORMS, Inexpressible, any_case, but, globs_of, terms
from xenplug.core.interop.udev_rules import render
from xenplug.core.model import Interface
from xenplug.core.policy.conditions import FORMS as POLICY_FORMS
from xenplug.core.policy.load import load
from xenplug.core.policy.patterns import InterfacePattern, TextPattern
from xenplug.core.policy.rules import Condition, Policy, Rule, Where
from xenplug.core.usb.kinds import of_triple

LIBC = ctypes.CDLL(None)
GOTO_GUEST, GOTO_END = 'GOTO="xenplug_guests_guest"', 'GOTO="xenplug_guests_end"'


def rendered(text):
    loaded = load({"p.yaml": f"version: 1\n{text}".encode()})
    assert loaded.problems == ()
    return render(loaded.policy)


def rules(text):
    """The lines for the policy's rules, without head and tail."""
    lines = rendered(text)[0].partition("# p")[2].splitlines()[1:]
    return list(itertools.takewhile(lambda line: line and not line.startswith("#"), lines))


def one(match):
    return rules(f"rules: [{{match: {{{match}}}, attach: a}}]")


@pytest.mark.parametrize(
    ("match", "lines"),
    [
        ("device: 046d:c016", ['ATTR{idVendor}=="046d", ATTR{idProduct}=="c016"']),
        ("device: [046d:c016, 046d:c017]", ['ATTR{idVendor}=="046d", ATTR{idProduct}=="c016|c017"']),
        ("device: [046d:c016, '046d:*']", ['ATTR{idVendor}=="046d"']),
        ("device: ['046d:*', 1:2]", ['ATTR{idVendor}=="046d"', 'ATTR{idVendor}=="0001", ATTR{idProduct}=="0002"']),
        ("device: '*:*'", ['ATTR{idVendor}=="?*"']),
        ("address: 1.10", ['ATTR{busnum}=="1", ATTR{devnum}=="10"']),
        ("port: [1-4, 1-5.*]", ['KERNEL=="1-4|1-5.*"']),
        (
            "path: 'pci-0000:00:14.0-usb-0:2.*'",
            ['ENV{ID_PATH}=="pci-0000:00:14.0-usb-0:2.*", ATTR{speed}=="1.5|12|480"'],
        ),
        ("controller: 0:14.0", ['SUBSYSTEMS=="pci", KERNELS=="0000:00:14.0"']),
        ("serial: A6*", ['ATTR{serial}=="[aA]6*"']),
        ("product: '[a-f]?x'", ['ATTR{product}=="[a-fA-F]?[xX]"']),
        ("class: [ef:02:01, 03]", [
            'ATTR{bDeviceClass}=="ef", ATTR{bDeviceSubClass}=="02", ATTR{bDeviceProtocol}=="01"',
            'ATTR{bDeviceClass}=="03"',
        ]),
        ("interface: [03:01:02, 08]", ['ENV{ID_USB_INTERFACES}=="*:030102:*|*:08????:*"']),
        (
            "interfaces: '03:*:*'",
            ['ENV{ID_USB_INTERFACES}=="?*", ENV{ID_USB_INTERFACES}!="*:[!0]?????:*|*:?[!3]????:*"'],
        ),
        ("kind: storage", ['ENV{ID_USB_INTERFACES}=="*:08????:*"', 'ATTR{bDeviceClass}=="08"']),
        ("speed: [low, super+]", ['ATTR{speed}=="1.5|10000|20000"']),
        ("revision: [1.10, 0299]", ['ATTR{bcdDevice}=="0110|0299"']),
        ("removable: fixed", ['ATTR{removable}=="fixed"']),
        ("port: 1-4, speed: high", ['KERNEL=="1-4", ATTR{speed}=="480"']),
    ],
)  # fmt: skip
def test_each_match_key(match, lines):
    assert one(match) == [f"{line}, {GOTO_GUEST}" for line in lines]


def test_every_match_key_of_the_policy_is_known():
    assert UDEV_FORMS.keys() == POLICY_FORMS.keys()


def test_rules_in_order_protection_first_and_only_attach_marks():
    text, left_out = rendered(
        """
rules:
  - {name: mine, match: {port: 1-1}, action: host}
  - {name: theirs, match: {port: 1-2}, attach: a}
  - {name: blocked, match: {port: 1-3}, action: block}
protect: [{port: 1-4}]
"""
    )
    lines = [line for line in text.splitlines() if line.startswith("KERNEL")]
    ports = [("1-4", GOTO_END), ("1-1", GOTO_END), ("1-2", GOTO_GUEST), ("1-3", GOTO_END)]
    assert lines == [f'KERNEL=="{port}", {goto}' for port, goto in ports]
    assert left_out == []
    assert text.count("TAG+=") == 1
    assert "RUN" not in text


def test_labels_exist_only_if_used():
    for policy in ("rules: []", "rules: [{match: {port: 1-1}, attach: a}]", "protect: [{port: 1-1}]"):
        text, _ = rendered(policy)
        assert set(re.findall(r'GOTO="(\w+)"', text)) == set(re.findall(r'LABEL="(\w+)"', text))


def test_a_protected_path_is_udevs_own():
    line = rules("protect: [{path: 'pci-0000:00:14.0-usb-0:2'}]")[0]
    assert line == f'ENV{{ID_PATH}}=="pci-0000:00:14.0-usb-0:2", {GOTO_END}'


def test_a_path_adds_a_note_about_superspeed():
    _, left_out = rendered("rules: [{match: {path: 'pci-0000:00:14.0-usb-0:2'}, attach: a}]")
    assert [line for line in left_out if "SuperSpeed" in line] == left_out != []


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("{name: r, match: {serial: 'é*'}, attach: a}", "devices that only this rule attaches are not marked"),
        ("{name: r, match: {serial: 'a|b'}, action: host}", "marked if a later rule would attach it"),
        ("{name: r, match: {product: 'a\"b'}, attach: a}", "not possible in a udev rule"),
        ("{name: r, match: {product: '$(x)'}, attach: a}", "not possible in a udev rule"),
        ("{name: r, match: {product: '%k'}, attach: a}", "not possible in a udev rule"),
        ("{name: r, match: {product: 'a\\b'}, attach: a}", "not possible in a udev rule"),
        ("{name: r, match: {product: '[^a]'}, attach: a}", "without regard to case"),
        ("{name: r, match: {interfaces: [03:01:01, 03:01:02, 08:06:50]}, attach: a}", "too many patterns"),
        ("{name: r, match: {kind: [gamepad, serial], class: [01, 02, 03, 04]}, attach: a}", "too many lines"),
    ],
)
def test_untranslatable_rules_are_left_out_with_a_reason(rule, reason):
    text, left_out = rendered(f"rules: [{rule}]")
    assert len(left_out) == 1
    assert left_out[0].startswith("r (p.yaml:2) is left out: ")
    assert reason in left_out[0]
    assert GOTO_GUEST not in text


def test_a_line_that_can_never_hold_is_not_written():
    lines = one("kind: [printer, storage], class: 08")
    assert [line for line in lines if '"07"' in line] == []
    assert f'ATTR{{bDeviceClass}}=="08", {GOTO_GUEST}' in lines


def test_a_more_specific_triple_of_another_kind_is_excluded():
    """02:02:ff is RNDIS, a network adapter; every other 02:02 is a serial port."""
    line = one("kind: serial")[0]
    assert line.startswith('ENV{ID_USB_INTERFACES}=="*:0202[!f]?:*|*:0202?[!f]:*"')


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.sampled_from(sorted(set(TRIPLES.values()))))
def test_the_globs_of_a_kind_are_core_kinds(class_, subclass, protocol, kind):
    triple = Interface(class_, subclass, protocol)
    text = str(triple).replace(":", "")
    assert any(fnmatch.fnmatchcase(text, "".join(glob)) for glob in globs_of(kind)) == (of_triple(triple) == kind)


digits = st.sampled_from(["03", "08", "01", "3f"])
triples = st.tuples(digits, digits, digits).map(":".join)
patterns = st.one_of(digits, st.tuples(digits, digits).map(":".join), triples)


@given(st.lists(triples, max_size=4), st.lists(patterns, min_size=1, max_size=2))
def test_interfaces_means_every_one_of_them(there, allowed):
    try:
        [(some, none_outside)] = UDEV_FORMS["interfaces"]([str(InterfacePattern.parse(p)) for p in allowed])
    except Inexpressible:
        return
    value = "".join(f":{t.replace(':', '')}" for t in there) + (":" if there else "")
    outside = re.fullmatch(r'ENV\{ID_USB_INTERFACES\}!="(.*)"', none_outside)[1].split("|")
    assert some == 'ENV{ID_USB_INTERFACES}=="?*"'
    says = bool(value) and not any(fnmatch.fnmatchcase(value, glob) for glob in outside)
    asked = [InterfacePattern.parse(p) for p in allowed]
    assert says == (bool(there) and all(any(p.admits(t) for p in asked) for t in there))


def test_the_complement_of_everything_is_empty():
    assert but(("0",) * 6, [("?",) * 6]) == []


@given(st.text("abcxyzAZ019 *?-_.", min_size=1, max_size=8).filter(str.strip), st.text("abcxyzABZ019 -_.", max_size=8))
def test_any_case_matches_like_the_policy(glob, value):
    pattern = TextPattern.parse(glob)
    assert fnmatch.fnmatchcase(value, any_case(str(pattern))) == pattern.admits(value)


@given(st.text("abzAZ09[]!^-?*.", min_size=1, max_size=8), st.text("abcxyzABZ0189.-]![^", max_size=6))
def test_a_set_has_the_same_meaning_in_udev_or_is_left_out(glob, value):
    """Compared with the C library's fnmatch(3), which udev uses: it reads ^, ranges and brackets differently."""
    pattern = TextPattern.parse(glob)
    try:
        written = any_case(str(pattern))
    except Inexpressible:
        return
    assert (LIBC.fnmatch(written.encode(), value.encode(), 0) == 0) == pattern.admits(value)


@pytest.mark.parametrize(
    "glob", ["[]]*", "[!]]*", "[^a]", "[z-a]", "[9-a]", "[A-_]", "[ß]", "[.-a]", "[:alpha:]", "a]"]
)
def test_a_set_with_another_meaning_in_udev_is_left_out(glob):
    with pytest.raises(Inexpressible, match=r"without regard to case|another meaning"):
        any_case(glob)


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(["serial", "product", "manufacturer"]))
def test_no_text_of_a_policy_leaves_its_quotes(name, glob, key):
    """For any name and globs of a rule: comments stay on one line, and each line has only quoted expressions."""
    condition = Condition(key, (TextPattern.parse(glob or "*"),))
    text, _ = render(Policy(rules=(Rule(name, Where(name, 1), (condition,), "attach", ("a",)),)))
    expression = r'[A-Z]+(\{\w+\})?(==|!=|=|\+=)"[^"\\$%\n]*"'
    for line in text.split("\n"):
        assert re.fullmatch(rf"#.*[^\\]|#|{expression}(, {expression})*|", line)


def test_terms_are_exact_about_the_side_of_a_path():
    condition = Condition("path", (POLICY_FORMS["path"]("pci-0000:00:14.0-usb-0:2"),))
    assert terms(condition, protect=True) != terms(condition)
