"""`devices` and `explain` without an agent, and the devices' own texts on a terminal."""

import json
import os
import subprocess

import pytest
from tests.adapters.usbtree import Tree
from tests.live_agent import DESK, RECORDINGS
from tests.recordings import HOSTILE, hostile

from xenplug.cli.main import main

DEVICE = {
    "port", "address", "path", "device", "serial", "manufacturer", "product", "names", "speed", "class", "interfaces",
    "kinds", "controller", "drivers", "state", "cause", "reason", "guest", "wanted", "guest_controller", "guest_port",
    "used", "via", "rule", "rule_ref", "since", "attempts", "next_try",
}  # fmt: skip
ADDED = {"by_hand", "removable", "revision", "authorized", "in_use", "descriptors"}
POLICY = """\
version: 1
protect: [{device: "0781:5567"}]
rules:
  - {name: mice, match: {kind: mouse, product: "*USB*"}, attach: [win11, kiosk]}
  - {name: all low ones, match: {speed: low}, attach: kiosk}
"""


def facts(capsys, *argv):
    assert main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def policy(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


@pytest.mark.parametrize("recording", sorted(RECORDINGS.glob("*.umockdev")), ids=lambda path: path.stem)
def test_every_recording(recording, capsys):
    view = facts(capsys, "devices", "--host", recording)
    assert set(view) == {"devices", "note"}
    assert bool(view["devices"]) == (recording.stem != "host")
    assert all(set(device) == DEVICE | ADDED for device in view["devices"])
    assert all(device["state"] is None for device in view["devices"])
    assert main(["devices", "--host", str(recording)]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    if recording.stem == "host":
        assert header == "no USB device is plugged in"
        return
    assert header.split() == ["PORT", "ADDRESS", "DEVICE", "SPEED", "KIND", "WHERE", "NAME"]
    assert [row.split()[0] for row in rows] == [device["port"] for device in view["devices"]]


def test_a_table_is_aligned_and_without_colour(capsys, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["devices", "--host", str(DESK)])
    header, *rows = capsys.readouterr().out.splitlines()
    at = header.index("NAME")
    assert all(row[at - 2 : at] == "  " and row[at] != " " for row in rows)
    assert all(row.isprintable() for row in rows)


@pytest.mark.parametrize(("make", "expected"), [
    (None, "cannot be read (No such file or directory); name a .umockdev recording, or udev"),
    (lambda path: path.mkdir(), "cannot be read (Is a directory); name a .umockdev recording, or udev"),
    (lambda path: path.write_text(""), "1: contains no device; write one with `umockdev-record"),
    (lambda path: path.write_text("P: /devices/x\nQ?\n"), "2: not a line of a umockdev recording; record again"),
])  # fmt: skip
def test_no_recording(make, expected, tmp_path, policy, capsys):
    if make:
        make(tmp_path / "x")
    for command in (["devices"], ["explain", "1-1", "--policy", str(policy)]):
        assert main([*command, "--host", str(tmp_path / "x")]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"xenplug: {tmp_path}/x:")
        assert expected in line


def test_this_host_without_an_agent(tmp_path, capsys):
    """The devices come from sysfs; what only an agent knows is null, with a note."""
    (tmp_path / "sys").mkdir()
    settings = tmp_path / "xenplug.yaml"
    settings.write_text(f"version: 1\ncontrol: {{socket: {tmp_path}/none}}\npaths: {{sys: {tmp_path}/sys}}\n")
    view = facts(capsys, "devices", "--settings", settings)
    assert view["devices"] == []
    assert view["note"].startswith(f"states are unknown: no agent answers at {tmp_path}/none; start it")
    assert main(["devices", "--settings", str(settings)]) == 0
    out, err = capsys.readouterr()
    assert out == "no USB device is plugged in\n"
    assert err == f"xenplug: {view['note']}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees what other processes have open")
def test_explain_names_who_holds_the_device(tmp_path, policy, capsys):
    tree = Tree(tmp_path)
    tree.plug("1-1", 7)
    node = tree.write("dev/bus/usb/001/007", "")
    settings = tmp_path / "xenplug.yaml"
    settings.write_text(f"version: 1\npaths: {{sys: {tmp_path}/sys, dev: {tmp_path}/dev}}\n")
    argv = ("explain", "1-1", "--policy", policy, "--settings", settings)
    assert facts(capsys, *argv)["held_by"] == []
    with node.open() as opened, subprocess.Popen(["sleep", "60"], stdin=opened) as process:
        [held] = facts(capsys, *argv)["held_by"]
        assert main([*map(str, argv)]) == 0
        process.kill()
    assert (held["pid"], held["command"], held["nodes"]) == (process.pid, "sleep", [str(node)])
    assert f"held by: sleep (process {process.pid}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["1-1", "1.2", "pci-0000:00:14.0-usb-0:1", "046d:c016", "046D:C016"])
def test_explain_by_every_name(name, policy, capsys):
    view = facts(capsys, "explain", name, "--host", DESK, "--policy", policy)
    assert set(view) == {"device", "decision", "rules", "plan", "note", "protected", "held_by"}
    assert view["held_by"] is None
    assert set(view["device"]) >= DEVICE - {"wanted", "via", "rule", "rule_ref"}
    assert view["decision"] == {
        "action": "attach", "guests": ["win11", "kiosk"], "via": "usb", "rule": "mice", "rule_ref": f"{policy}:4",
        "inherited": False,
    }  # fmt: skip
    assert [set(rule) for rule in view["rules"]] == [{"name", "rule_ref", "matched", "keys"}] * 2
    assert [rule["matched"] for rule in view["rules"]] == [True, True]
    keys = view["rules"][0]["keys"]
    assert all(set(key) == {"key", "expected", "actual", "holds"} for key in keys)
    assert {"key": "kind", "expected": ["mouse"], "actual": ["mouse"], "holds": True} in keys
    assert view["plan"] is None


def test_explain_as_text(policy, capsys):
    assert main(["explain", "1-2.2", "--host", str(DESK), "--policy", str(policy)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1-2.2  05ac:024f  Apple Keyboard",
        f"     mice ({policy}:4)",
        "        no  kind: expected mouse, is keyboard",
        "        no  product: expected *usb*, is Apple Keyboard",
        f"  => all low ones ({policy}:5)",
        "        yes speed: expected low, is low",
        "decision: attach to kiosk (rule all low ones)",
        "the plan is unknown: no agent was asked",
    ]


@pytest.mark.parametrize(("device", "expected"), [
    ("1-5", "protected: it stays with the host whatever the rules say"),
    ("1-2", "protected: it stays with the host whatever the rules say"),
    ("1-6", "decision: host (no rule matches: the default)"),
])  # fmt: skip
def test_explain_a_device_that_stays(device, expected, policy, capsys):
    assert main(["explain", device, "--host", str(DESK), "--policy", str(policy)]) == 0
    assert expected in capsys.readouterr().out.splitlines()


def test_explain_an_absent_device(policy, capsys):
    assert main(["explain", "9-9\x1b", "--host", str(DESK), "--policy", str(policy)]) == 1
    expected = "no device '9-9\\x1b' is plugged in; `xenplug devices` lists ports, addresses and tags"
    assert capsys.readouterr().err == f"xenplug: {expected}\n"


def test_explain_without_a_policy(tmp_path, capsys):
    assert main(["explain", "1-1", "--host", str(DESK), "--policy", str(tmp_path / "none")]) == 1
    problem, last = capsys.readouterr().err.splitlines()
    assert problem.startswith(f"{tmp_path}/none:1:1: cannot be read")
    assert last == "xenplug: the policy has 1 problem; fix them first"


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_raw_reaches_a_terminal(name, tmp_path, policy, capsys):
    host = hostile(tmp_path / "x.umockdev", HOSTILE[name])
    for command in (["devices"], ["explain", "1-1", "--policy", str(policy)]):
        assert main([*command, "--host", str(host)]) == 0
        out = capsys.readouterr().out
        assert out.endswith("\n")
        assert all(line.isprintable() for line in out.split("\n"))
    [device] = facts(capsys, "devices", "--host", host)["devices"]
    for key in ("serial", "manufacturer", "product"):
        assert device[key].isprintable(), key
        assert len(device[key]) <= 126


def test_quotes_stay_as_they_are(tmp_path, capsys):
    host = hostile(tmp_path / "x.umockdev", HOSTILE["quotes"])
    [device] = facts(capsys, "devices", "--host", host)["devices"]
    assert device["product"] == HOSTILE["quotes"].decode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path, capsys):
    (tmp_path / "x").write_text("")
    (tmp_path / "x").chmod(0)
    assert main(["devices", "--host", str(tmp_path / "x")]) == 1
    assert "Permission denied" in capsys.readouterr().err
