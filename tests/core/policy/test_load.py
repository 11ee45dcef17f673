"""Policy files -> Policy, or all problems at once, each with its remedy."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.mutation import mutated

from xenplug.core.documents import document
from xenplug.core.matching import match
from xenplug.core.model import ControllerType, Use
from xenplug.core.policy.conditions import FORMS, NESTED
from xenplug.core.policy.guests import CONTROLLER_PORTS, USUAL_VERSION, name_fault
from xenplug.core.policy.load import load, load_node
from xenplug.core.policy.rules import ControllerSpec, Fallback, GuestPolicy, Policy, Where

ERRORS = Path(__file__).parents[2] / "data" / "policy-errors"
BAD = sorted(ERRORS.glob("*.yaml"))


def policy(text):
    loaded = load({"p.yaml": text.encode()})
    assert loaded.problems == ()
    return loaded.policy


def problems_of(*texts):
    files = {f"{index}.yaml": text.encode() for index, text in enumerate(texts)}
    loaded = load(files)
    assert loaded.policy is None or not loaded.problems
    return [str(problem) for problem in loaded.problems]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_error_messages(path):
    """The .txt next to each bad policy has its messages. `python -m tests.core.policy.test_load` updates them."""
    if not yaml.__with_libyaml__:
        pytest.skip("the columns of some syntax errors are libyaml's")
    assert messages(path) == path.with_suffix(".txt").read_text("utf-8")


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_both_yaml_parsers_report_the_same_lines(path, monkeypatch):
    monkeypatch.setattr(document, "LOADER", yaml.SafeLoader)
    lines = [line.split(":")[1] for line in messages(path).splitlines()]
    expected = path.with_suffix(".txt").read_text("utf-8").splitlines()
    assert lines == [line.split(":")[1] for line in expected]


def messages(path):
    return "".join(f"{problem}\n" for problem in load({path.name: path.read_bytes()}).problems)


FULL = """version: 1
guests:
  win11: {controller: {type: devicemodel, version: 3, ports: 15}}
  kiosk: {controller: {type: qusb}, max_controllers: 2}
  appliance: {controller: none}
  plain: {}
protect:
  - {device: "046d:c31c"}
auto_protect: [storage]
rules:
  - name: gaming mouse
    match: {device: 046d:c016}
    attach: win11
    move: on_stop
  - match: {kind: [keyboard, mouse], address: 1.10}
    attach: [win11, my vm]
  - name: no storage
    match: {kind: storage}
    action: block
default: block
"""


def test_every_key_of_a_policy():
    loaded = policy(FULL)
    mouse, second, storage = loaded.rules
    assert (mouse.name, mouse.action, mouse.guests, mouse.move) == ("gaming mouse", "attach", ("win11",), "on_stop")
    assert (mouse.where, str(mouse.where)) == (Where("p.yaml", 11, 5), "p.yaml:11")
    assert (second.name, second.guests, second.move) == ("p.yaml:15", ("win11", "my vm"), None)
    assert [(c.key, [str(p) for p in c.patterns]) for c in second.conditions] == [
        ("kind", ["keyboard", "mouse"]),
        ("address", ["1.10"]),
    ]
    assert (storage.action, storage.guests) == ("block", ())
    assert [(p.where.line, str(p.conditions[0].patterns[0])) for p in loaded.protect] == [(8, "046d:c31c")]
    assert loaded.auto_protect == {Use.STORAGE}
    assert loaded.default == "block"
    assert dict(loaded.guests) == {
        "win11": GuestPolicy(ControllerSpec(ControllerType.DEVICEMODEL, 3, 15)),
        "kiosk": GuestPolicy(ControllerSpec(ControllerType.QUSB, 2, 31), max_controllers=2),
        "appliance": GuestPolicy(own_only=True),
        "plain": GuestPolicy(),
    }


@pytest.mark.parametrize("text", ["version: 1\n", "version: '1'\nrules: []\n", '"version": "1"\n'])
def test_defaults(text):
    assert policy(text) == Policy()


def test_auto_protect_can_be_empty():
    assert policy("version: 1\nauto_protect: []\n").auto_protect == frozenset()


def test_values_of_a_wrong_shape_are_read_as_far_as_possible():
    odd = "version: 1\nrules: [{match: {device: [[x], y]}, attach: [[a], '1']}, {}]\n"
    assert [problem.split(": ")[1] for problem in problems_of(odd)] == [
        "rules[0].match.device[0]",
        "rules[0].match.device[1]",
        "rules[0].attach[0]",
        "rules[0].attach[1]",
        "rules[1].match",
        "rules[1]",
    ]


def test_no_files_no_rules():
    assert load({}).policy == Policy()


def test_files_are_combined_in_order():
    first = "version: 1\nprotect: [{kind: hub}]\nrules: [{match: {kind: mouse}, attach: a}]\n"
    second = "version: 1\nprotect: [{kind: net}]\nrules: [{match: {kind: mouse}, attach: b}]\nguests: {b: {}}\n"
    loaded = load({"b.yaml": first.encode(), "a.yaml": second.encode()}).policy
    assert [rule.name for rule in loaded.rules] == ["b.yaml:3", "a.yaml:3"]
    assert [entry.where.file for entry in loaded.protect] == ["b.yaml", "a.yaml"]
    assert list(loaded.guests) == ["b"]


def test_names_must_be_unique_over_all_files():
    once = "version: 1\nguests: {win11: {}}\ndefault: host\nauto_protect: [network]\n"
    named = "rules: [{name: mouse, match: {kind: mouse}, attach: win11}]\n"
    assert problems_of(once + named, once + named) == [
        "1.yaml:2:10: guests.win11: 'win11' is described twice, first at 0.yaml:2; keep one",
        "1.yaml:3:1: default: is set twice, first at 0.yaml:3; keep one",
        "1.yaml:4:1: auto_protect: is set twice, first at 0.yaml:4; keep one",
        "1.yaml:5:16: rules[0].name: 'mouse' is also the name of the rule at 0.yaml:5; rename one",
    ]


def test_rules_without_a_name_are_named_by_position():
    rules = "version: 1\nrules: [{match: {kind: hub}, action: host}, {match: {kind: net}, action: host}]\n"
    assert [rule.name for rule in policy(rules).rules] == ["p.yaml:2", "p.yaml:2:45"]


def test_a_policy_inside_another_document():
    outer = (
        "name: x\npolicy:\n  version: 1\n  rules:\n    - {match: {kind: hub}, action: host}\n    - {match: {kind: x}}\n"
    )
    node, _ = document.parse(outer.encode(), "s.yaml")
    assert [str(problem) for problem in load_node(node.find(["policy"]), "s.yaml").problems] == [
        "s.yaml:6:7: rules[1]: lacks 'attach' or 'action'; write one of them",
        "s.yaml:6:22: rules[1].match.kind: 'x' is not a kind of device; write one of audio, bluetooth, gamepad, hub, "
        "keyboard, mouse, net, phone, printer, serial, smartcard, storage, video",
    ]
    node.find(["policy", "rules"]).value.pop()
    assert load_node(node.find(["policy"]), "s.yaml").policy.rules[0].name == "s.yaml:5"


def test_all_problems_of_bad_files_are_reported():
    bad = "version: 1\nrules:\n  - {match: {device: x}, attach: '1'}\n  - {name: \"\\e\", match: {serial: '" + "x" * 300
    problems = problems_of("version: 1\n", bad + "'}, action: hots}\n", "rules: 'x\n")
    assert [problem.split(": ")[1] for problem in problems] == [
        "rules[0].match.device",
        "rules[0].attach",
        "rules[1].name",
        "rules[1].match.serial",
        "rules[1].action",
        "the quote opened here is never closed; close it",
    ]
    assert "is 300 characters long" in problems[3]


@pytest.mark.parametrize("name", ["win11", "my vm", "ünïcode", "a" * 63, "7of9", "vm-1", "domain-0", "--incoming"[2:]])
def test_valid_guest_names(name):
    assert name_fault(name) is None


@pytest.mark.parametrize(
    "name", ["", "7", "042", "-v", "--incoming", "a/b", "a\nb", " a", "a ", "a" * 64, "ä" * 32, "Domain-0", "\udcff"]
)
def test_invalid_guest_names(name):
    assert "; " in name_fault(name)


@pytest.mark.parametrize("kind, version", CONTROLLER_PORTS)
def test_every_controller_libxl_makes(kind, version):
    """Types, versions and numbers of ports: libxl_usb.c, libxl__device_usbctrl_setdefault."""
    limits = CONTROLLER_PORTS[kind, version]
    for ports in range(1, 33):
        text = f"version: 1\nguests: {{a: {{controller: {{type: {kind}, version: {version}, ports: {ports}}}}}}}\n"
        loaded = load({"f": text.encode()}).policy
        assert (loaded is not None) == (limits.least <= ports <= limits.most)
    usual = policy(f"version: 1\nguests: {{a: {{controller: {{type: {kind}, version: {version}}}}}}}\n")
    assert usual.guests["a"].controller == ControllerSpec(kind, version, limits.usual)
    assert (kind, USUAL_VERSION[kind]) in CONTROLLER_PORTS


def test_schema_reader_and_matcher_know_the_same_keys():
    properties = document.schema("policy")["$defs"]["match"]["properties"]
    assert list(FORMS) == list(match.KEYS)
    assert set(properties) == {*FORMS, *NESTED}


def test_schema_and_reader_know_the_same_words():
    from xenplug.core.model import Speed
    from xenplug.core.policy.patterns import KINDS

    parts = document.schema("policy")["$defs"]
    assert parts["kind"]["enum"] == list(KINDS)
    assert parts["speed"]["enum"] == list(Speed)
    assert parts["controller"]["properties"]["type"]["enum"] == ["devicemodel", "qusb", "pv"]
    assert sorted(document.schema("policy")["properties"]["auto_protect"]["items"]["enum"]) == sorted(Use)


forms = st.text("0123456789abcdefxX:.*-_ pciusbv", max_size=12) | st.sampled_from(
    ["046d:c016", "0x46D:*", "1.6", "1-4.*", "pci-0000:00:14.0-usb-0:4.2", "00:14.0", "03:01", "1.10", "0x0110"]
)


@given(st.sampled_from(list(FORMS)), forms)
@settings(max_examples=300, deadline=None)
def test_the_schema_accepts_every_readable_value(key, text):
    from jsonschema import Draft202012Validator

    schema = {"$defs": document.schema("policy")["$defs"], "$ref": "#/$defs/match"}
    try:
        FORMS[key](text)
    except ValueError:
        return
    assert Draft202012Validator(schema).is_valid({key: text})


@given(st.lists(mutated(), min_size=1, max_size=2))
@settings(max_examples=150, deadline=None)
def test_mutated_policies_load_or_are_refused(texts):
    loaded = load({f"{index}.yaml": text for index, text in enumerate(texts)})
    assert (loaded.policy is None) == bool(loaded.problems)
    assert list(loaded.problems) == sorted(loaded.problems, key=lambda p: (p.file, p.line, p.column))
    assert all("; " in problem.message for problem in loaded.problems)


@pytest.mark.parametrize(
    ("text", "via", "siblings", "fallback"),
    [
        ("attach: win11", "usb", "refuse", None),
        ("attach: win11, via: pci", "pci", "refuse", None),
        ("attach: win11, via: pci, siblings: take", "pci", "take", None),
        ("attach: win11, fallback: {via: pci, when: unfit}", "usb", "refuse", Fallback(frozenset({"unfit"}))),
        (
            "attach: win11, fallback: {via: pci, when: [refused, no_frontend], siblings: same_guest}",
            "usb",
            "refuse",
            Fallback(frozenset({"refused", "no_frontend"}), "same_guest"),
        ),
    ],
)
def test_whole_controllers(text, via, siblings, fallback):
    rule = policy(f"version: 1\nrules: [{{match: {{kind: video}}, {text}}}]").rules[0]
    assert (rule.via, rule.siblings, rule.fallback) == (via, siblings, fallback)


if __name__ == "__main__":
    for bad in BAD:
        bad.with_suffix(".txt").write_text(messages(bad), "utf-8")
