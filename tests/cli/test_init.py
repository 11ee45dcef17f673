"""`init`: its policy loads, passes its own test and has the guests that were named; no file is overwritten."""

from __future__ import annotations

import pytest
from tests.recordings import MOUSE

from xenplug.adapters.recording import read
from xenplug.cli.main import main
from xenplug.core.matching.match import Matcher
from xenplug.core.policy.load import load
from xenplug.core.usb.device import describe

RECORDINGS = [path for path in sorted(MOUSE.parent.glob("*.umockdev")) if read(path)]


def devices(path):
    return [d for d in map(describe, read(path)) if d and not d.hub]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_all_to_one_guest(path, tmp_path, capsys):
    file = tmp_path / "usb.yaml"
    orders = [f"--give={d.port}=win 11" for d in devices(path)]
    assert main(["init", str(file), "--host", str(path), *orders]) == 0
    assert "xenplug run --dry-run --policy" in capsys.readouterr().out
    policy = load({"usb.yaml": file.read_bytes()}).policy
    assert policy
    assert all(Matcher(policy).decide(d).guests == ("win 11",) for d in devices(path))
    assert main(["test", str(tmp_path)]) == 0, capsys.readouterr()
    assert main(["check", str(file), "--host", str(path), "--elsewhere"]) == 0
    assert capsys.readouterr().err == ""


def test_without_a_terminal_the_policy_attaches_nothing(tmp_path, capsys, monkeypatch):
    file = tmp_path / "usb.yaml"
    assert main(["init", str(file), "--host", str(MOUSE)]) == 0
    policy = load({"usb.yaml": file.read_bytes()}).policy
    assert policy
    assert policy.rules == ()
    assert "attach: GUEST" in file.read_text()
    assert not (tmp_path / "usb-test.yaml").exists()
    assert main(["init", str(file), "--host", str(MOUSE)]) == 1
    assert "exists already; " in capsys.readouterr().err
    assert main(["init", str(file), "--host", str(MOUSE), "--force"]) == 0


def test_it_asks_at_a_terminal(tmp_path, capsys, monkeypatch):
    answers = iter(["7", "kiosk"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: next(answers, ""))
    assert main(["init", str(tmp_path / "usb.yaml"), "--host", str(MOUSE)]) == 0
    assert "digits only" in capsys.readouterr().out
    assert load({"x": (tmp_path / "usb.yaml").read_bytes()}).policy.rules[0].guests == ("kiosk",)


@pytest.mark.parametrize(("order", "code", "expected"), [
    ("046d:c016", 2, "no guest; write DEVICE=GUEST"),
    ("9-9=a", 1, "no device '9-9' is plugged in"),
    ("046d:c016=7", 2, "digits only"),
])  # fmt: skip
def test_bad_assignments(order, code, expected, tmp_path, capsys):
    assert main(["init", str(tmp_path / "x"), "--host", str(MOUSE), "--give", order]) == code
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
