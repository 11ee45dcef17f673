"""The entry point: help, usage errors, exit codes, and errors of one line."""

import importlib
import json
import os
import subprocess
import sys
from importlib.resources import files

import pytest
from tests.live_agent import DESK

from xenplug import __version__
from xenplug.cli.main import COMMANDS, Failure, main

TO_A_DEVICE = ("attach", "detach", "release", "explain")


def run(*words, **more):
    """A real process."""
    argv = [sys.executable, "-m", "xenplug", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, **more)


def one_line(text):
    """The one line of an error: a fact and, after a semicolon, the remedy."""
    [line] = text.splitlines()
    assert line.startswith("xenplug: ")
    assert "; " in line
    return line


def test_version_and_overview(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"xenplug {__version__}\n")
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(command in out and words in out for command, words in COMMANDS.items())


def test_no_command_shows_the_overview_and_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    captured = capsys.readouterr()
    assert (ended.value.code, captured.err) == (0, "")
    assert captured.out.startswith(f"usage: xenplug {command}")


@pytest.mark.parametrize(("argv", "expected"), [
    (["chekc"], "did you mean 'check'?"),
    (["frobnicate"], "`xenplug --help` lists them"),
    (["--jsn"], "unknown argument '--jsn'"),
    (["\x1b[31m"], r"'\x1b[31m'"),
    (["devices", "--jsno"], "did you mean '--json'?"),
    (["devices", "--js"], "unknown argument '--js'"),  # abbreviations would change their meaning as options are added
    (["check", "a", "b"], "unknown argument 'b'"),
    (["schema", "polcy"], "choose from 'policy', 'scenario', 'settings'"),
    (["run", "--toolstack", "kvm"], "choose from 'xl', 'simulated'"),
    (["run", "--guests", "x"], "--guests needs --toolstack simulated"),
    (["run", "--host", "x"], "--host FILE needs --toolstack simulated or --dry-run"),
    (["simulate"], "required: SCENARIO"),
    *(([command], "required: DEVICE") for command in TO_A_DEVICE),
])  # fmt: skip
def test_usage_errors(argv, expected, capsys):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in one_line(captured.err)


def test_a_bug_prints_a_traceback_and_exits_3(monkeypatch, capsys):
    monkeypatch.setattr(importlib.import_module("xenplug.cli.schema"), "run", lambda args: 1 // 0)
    assert main(["schema"]) == 3
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert err.splitlines()[-1] == f"xenplug: this is a bug in xenplug {__version__}; please report the lines above"


def test_interrupted(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("xenplug.cli.schema"), "run", interrupted)
    assert main(["schema"]) == 130
    assert capsys.readouterr() == ("", "")


def test_an_error_stays_one_line_whatever_it_quotes(monkeypatch, capsys):
    def failed(args):
        raise Failure("a\x1b[31m\nb\udcff; do c")

    monkeypatch.setattr(importlib.import_module("xenplug.cli.schema"), "run", failed)
    assert main(["schema"]) == 1
    assert one_line(capsys.readouterr().err) == r"xenplug: a\x1b[31m\nb\udcff; do c"


def test_as_a_process():
    done = run("devices", "--host", DESK, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["devices"]) == 7
    assert one_line(run("devices", "--host", "nope").stderr)


def test_a_closed_pipe_is_not_a_bug():
    argv = f"{sys.executable} -m xenplug schema; echo $? >&2"
    done = subprocess.run(["bash", "-c", f"({argv}) | true"], capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr in ("0\n", "1\n")  # by whether it was written before the pipe was closed


def test_a_terminal_that_is_not_utf8(tmp_path):
    text = DESK.read_text().replace("A: product=Optical USB Mouse", "A: product=Mäuschen 鼠")
    (tmp_path / "x.umockdev").write_text(text)
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    for form in ([], ["--json"]):
        argv = [sys.executable, "-m", "xenplug", "devices", "--host", str(tmp_path / "x.umockdev"), *form]
        done = subprocess.run(argv, capture_output=True, timeout=20, check=True, env=environment)
        assert b"\\u9f20" in done.stdout
    assert json.loads(done.stdout.decode("latin-1"))["devices"][0]["product"] == "Mäuschen 鼠"


@pytest.mark.parametrize("name", ["policy", "scenario", "settings"])
def test_schema_is_the_packaged_one(name, capsys):
    assert main(["schema", name]) == 0
    packaged = (files("xenplug.core") / "schemas" / f"{name}.json").read_text()
    assert json.loads(capsys.readouterr().out) == json.loads(packaged)


def test_schema_of_the_policy_by_default(capsys):
    main(["schema"])
    assert json.loads(capsys.readouterr().out)["title"] == "xenplug policy"
