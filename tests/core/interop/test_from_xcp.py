"""usb-policy.conf: the imported policy attaches what the original allows, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.make import device

from xenplug.core.interop import from_xcp as xcp
from xenplug.core.matching.match import Matcher
from xenplug.core.model import Device, Interface, Tag
from xenplug.core.policy import write
from xenplug.core.policy.load import load

SHIPPED = """\
# When you change this file, run 'xe pusb-scan' to confirm
DENY: vid=17e9 # All DisplayLink USB displays
DENY: class=02 # Communications and CDC-Control
ALLOW:vid=056a pid=0315 class=03 # Wacom Intuos tablet
ALLOW:vid=056a pid=0314 class=03 # Wacom Intuos tablet
DENY: class=03 subclass=01 prot=01 # HID Boot keyboards
DENY: class=03 subclass=01 prot=02 # HID Boot mice
DENY: class=0a # CDC-Data
DENY: class=0b # Smartcard
DENY: class=e0 # Wireless controller
DENY: class=ef subclass=04 # Miscellaneous network devices
ALLOW: # Otherwise allow everything else
"""
"""As XenServer ships it, in the main."""


def imported(text: str) -> Matcher:
    lines, bad = xcp.read(text, "usb-policy.conf")
    lines, _ = xcp.carried(lines, "usb-policy.conf")
    assert not bad
    policy = "version: 1\n" + write.section("rules", (write.rule(entry) for entry in xcp.rules(lines, "vm")))
    loaded = load({"p": policy.encode()})
    assert loaded.policy, loaded.problems
    return Matcher(loaded.policy)


def allows(lines: list[xcp.Line], one: Device) -> bool:
    """The original algorithm of usb_scan.py (Policy.check), where interfaces of hubs are never allowed."""
    has = {"vid": one.tag[:4], "pid": one.tag[5:], "rel": (one.revision or "").replace(".", "").zfill(4)}
    for interface in one.interfaces:
        here = (interface.class_, interface.subclass, interface.protocol)
        fits = (
            line
            for line in lines
            if all(has[key] == value for key, value in line.devices)
            and all(want in (None, is_) for want, is_ in zip(line.triple, here, strict=True))
        )
        first = next(fits, None)
        if first is None or not first.allow or interface.class_ == 9:
            return False
    return True


@pytest.mark.parametrize(
    "tag, interfaces, allowed",
    [
        ("046d:c016", [(3, 1, 2)], False),
        ("056a:0315", [(3, 1, 2)], True),
        ("056a:0315", [(3, 1, 2), (2, 2, 1)], False),
        ("056a:0999", [(3, 1, 2)], False),
        ("0781:5567", [(8, 6, 80)], True),
        ("17e9:4301", [(8, 6, 80)], False),
        ("0bda:1234", [(3, 0, 0), (8, 6, 80)], True),
        ("0bda:1234", [(3, 0, 0), (0xE0, 1, 1)], False),
        ("0bda:1234", [(9, 0, 0)], False),
        ("0bda:1234", [(0xEF, 4, 1)], False),
        ("0bda:1234", [(0xEF, 2, 1)], True),
    ],
)
def test_the_shipped_file(tag, interfaces, allowed):
    one = device(tag=Tag(tag), interfaces=tuple(Interface(*triple) for triple in interfaces))
    assert bool(imported(SHIPPED).decide(one).guests) is allowed
    assert allows(xcp.read(SHIPPED, "f")[0], one) is allowed


numbers = st.sampled_from(["01", "02", "03", "09"])
pairs = st.fixed_dictionaries(
    {},
    optional={
        "vid": st.sampled_from(["046d", "0781"]),
        "pid": st.sampled_from(["c016", "5567"]),
        "rel": st.sampled_from(["0110", "0200"]),
        "class": numbers,
        "subclass": numbers,
        "prot": numbers,
    },
).map(lambda keys: {k: v for k, v in keys.items() if k != "pid" or "vid" in keys})
files = st.lists(st.tuples(st.sampled_from(["ALLOW", "deny"]), pairs), max_size=5).map(
    lambda lines: "\n".join(f"{action}: " + " ".join(f"{k}={v}" for k, v in keys.items()) for action, keys in lines)
)
triples = st.builds(Interface, *[st.sampled_from([0, 1, 2, 3, 9])] * 3)


@given(
    files, st.lists(triples, min_size=1, max_size=3), st.sampled_from(["046d:c016", "046d:5567", "1:2"]), st.booleans()
)
@settings(max_examples=60)
def test_the_same_devices_are_allowed_and_denied(text, interfaces, tag, old):
    one = device(tag=Tag(tag.replace("1:2", "0001:0002")), interfaces=tuple(interfaces))
    one = replace(one, revision="1.10" if old else "2.00")
    lines, _ = xcp.read(text, "f")
    attached, may = bool(imported(text).decide(one).guests), allows(lines, one)
    assert attached is may or (may and xcp.carried(lines, "f")[1]), "what cannot be expressed is denied and reported"


BAD = "permit: vid=046d|ALLOW vid=046d|DENY: vid=46d|DENY: class=3|DENY: vid=046d vid=046d|DENY: a=01|DENY: a: b"


@pytest.mark.parametrize("line", BAD.split("|"))
def test_invalid_lines_are_reported(line):
    _, [problem] = xcp.read(f"# x\n{line}\n", "f")
    assert (problem.line, problem.severity) == (2, "error")
    assert "; " in problem.message


def test_a_pid_without_vid_is_widened_or_omitted_with_a_warning():
    lines, notes = xcp.carried(xcp.read("DENY: pid=c016\nALLOW: pid=5567\nALLOW:\n", "f")[0], "f")
    assert [note.line for note in notes] == [1, 2]
    assert [(line.number, line.allow) for line in lines] == [(1, False), (3, True)]


NESTED = "ALLOW: subclass=01\nALLOW: prot=01\nDENY: subclass=02\nDENY: prot=02\nDENY: class=08\nALLOW:\n"


def test_too_many_nested_exceptions_deny():
    """Each level needs 255 patterns inside each pattern of the one before."""
    lines, notes = xcp.carried(xcp.read(NESTED, "f")[0], "f")
    assert [(note.line, note.severity) for note in notes] == [(6, "warning")]
    assert list(xcp.rules(lines, "vm")) == []
