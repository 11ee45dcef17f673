"""`check` and `config`: all problems are reported together, each with its position."""

import json
import os

import pytest

from xenplug.cli.main import main
from xenplug.core.settings import Settings, flat
from xenplug.service.policy_store import read_policy

GOOD = "version: 1\nrules:\n  - {name: mice, match: {kind: mouse}, attach: kiosk}\n"
PROBLEM = {"file", "line", "column", "path", "severity", "message"}


def problems(capsys, *argv):
    code = main([*argv, "--json"])
    view = json.loads(capsys.readouterr().out)
    assert all(set(problem) == PROBLEM for problem in view["problems"])
    return code, view["problems"]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "policies.d"
    made.mkdir()
    return made


def test_good(folder, capsys):
    (folder / "a.yaml").write_text(GOOD)
    assert main(["check", str(folder)]) == 0
    assert capsys.readouterr() == (f"{folder}: good, 1 rule\n", "")
    assert main(["check", "--policy", str(folder / "a.yaml")]) == 0
    capsys.readouterr()
    assert problems(capsys, "check", str(folder)) == (0, [])


def test_json_carries_the_digest_and_the_label_of_a_policy_that_loads(folder, capsys):
    (folder / "a.yaml").write_text(f"{GOOD}label: kiosk-2026.48\n")
    assert main(["check", "--json", "--elsewhere", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"problems": [], "digest": read_policy(folder).digest, "label": "kiosk-2026.48"}
    (folder / "b.yaml").write_text("version: 3\n")
    assert main(["check", "--json", "--elsewhere", str(folder)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (len(found["problems"]), found["digest"], found["label"]) == (1, None, None)


def test_a_broken_file_among_good_ones(folder, capsys):
    (folder / "a.yaml").write_text(GOOD)
    (folder / "b.yaml").write_text("version: 1\nrules:\n  - {match: {kindd: mouse}, attach: kiosk}\n  - {match: {}}\n")
    assert main(["check", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"{folder}/b.yaml:3:14: rules[0].match.kindd: unknown key; did you mean 'kind'?\n")
    assert len(captured.err.splitlines()) > 1
    code, found = problems(capsys, "check", str(folder))
    assert (code, {p["file"] for p in found}) == (1, {f"{folder}/b.yaml"})


def fifo(path):
    os.mkfifo(path)


def chars(path):
    path.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(("name", "make", "expected"), [
    (".", None, "contains no *.yaml; write a policy there, or name another with --policy"),
    ("none", None, "cannot be read (No such file or directory); write it, or name another with --policy"),
    ("x.yml", lambda path: path.write_text(GOOD), "not read: only *.yaml files are; rename it to .yaml"),
    ("x.yaml", fifo, "cannot be read (it is not a regular file); put a regular file there"),
    ("x.yaml", chars, "not UTF-8 text; save the file as UTF-8"),
    ("x.yaml", lambda path: path.symlink_to(path), "cannot be read"),
    ("x.yaml", lambda path: path.mkdir(), "cannot be read (it is not a regular file); put a regular file there"),
])  # fmt: skip
def test_a_path_without_a_policy_is_refused(folder, name, make, expected, capsys):
    at = folder / name if name != "x.yml" else folder
    if make:
        make(folder / name)
        at = folder
    assert main(["check", str(at)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(str(at))
    assert expected in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(folder, capsys):
    (folder / "x.yaml").write_text(GOOD)
    (folder / "x.yaml").chmod(0)
    assert main(["check", str(folder)]) == 1
    assert "Permission denied); run as a user who may read it" in capsys.readouterr().err


def test_config_by_default_and_from_a_file(tmp_path, capsys):
    file = tmp_path / "xenplug.yaml"
    file.write_text("version: 1\non_stop: detach\ntimes:\n  settle: 1500ms\n")
    assert main(["config", "--settings", str(file), "--json"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert (set(view), view["problems"]) == ({"settings", "problems"}, [])
    assert set(view["settings"]) == set(flat(Settings()))
    assert view["settings"]["times.settle"] == {"value": 1.5, "origin": f"{file}:4"}
    assert view["settings"]["times.xl"] == {"value": 60.0, "origin": "default"}
    assert main(["config", "--settings", str(file)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["on_stop", "detach", f"{file}:2"] in rows
    assert ["paths.xenstored", "-", "default"] in rows


def test_config_shows_hooks_as_they_are_written(tmp_path, capsys):
    file = tmp_path / "xenplug.yaml"
    file.write_text("version: 1\nhooks: [{run: [/bin/a, b c], on: [attached]}, {run: [/bin/d]}]\n")
    assert main(["config", "--settings", str(file), "--json"]) == 0
    hooks = json.loads(capsys.readouterr().out)["settings"]["hooks"]["value"]
    assert hooks == [{"run": ["/bin/a", "b c"], "on": ["attached"]}, {"run": ["/bin/d"], "on": []}]
    assert main(["config", "--settings", str(file)]) == 0
    assert "/bin/a 'b c' on attached; /bin/d on every change" in capsys.readouterr().out


def test_config_reports_problems(tmp_path, capsys):
    file = tmp_path / "xenplug.yaml"
    file.write_text("version: 1\ntimes: {setle: 1s, xl: soon}\n")
    assert main(["config", "--settings", str(file)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["times.setle", "times.xl"]
    assert problems(capsys, "config", "--settings", str(file))[0] == 1


@pytest.mark.parametrize("command", [["status"], ["devices"], ["run"], ["reload"]])
def test_a_command_refuses_bad_settings(tmp_path, command, capsys):
    file = tmp_path / "xenplug.yaml"
    file.write_text("version: 1\nstate: here\n")
    assert main([*command, "--settings", str(file)]) == 1
    problem, last = capsys.readouterr().err.splitlines()
    assert problem.startswith(f"{file}:2:8: state: ")
    assert last == "xenplug: the settings have 1 problem; fix them first"


@pytest.mark.parametrize(("make", "expected"), [
    (None, "no such settings file; omit --settings to use the defaults"),
    (lambda path: path.mkdir(), "cannot be read (Is a directory); name a readable file"),
    (fifo, "not a regular file; replace it with one"),
    (lambda at: at.symlink_to(at), "cannot be read (Too many levels of symbolic links); name a readable file"),
])  # fmt: skip
def test_no_settings_file(tmp_path, make, expected, capsys):
    file = tmp_path / "xenplug.yaml"
    if make:
        make(file)
    assert main(["config", "--settings", str(file)]) == 1
    assert capsys.readouterr().err == f"xenplug: {file}: {expected}\n"


DOUBTFUL = "version: 1\nrules:\n  - {match: {address: 1.6}, attach: a}\n  - {match: {address: 1.6}, attach: b}\n"


def test_a_policy_with_warnings_is_used(folder, capsys):
    (folder / "a.yaml").write_text(DOUBTFUL)
    assert main(["check", "--elsewhere", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{folder}: good, 2 rules, 3 warnings\n"
    assert err.startswith(f"{folder}/a.yaml:3:5: warning: this rule matches by bus address")
    assert main(["check", "--elsewhere", "--strict", str(folder)]) == 1
    capsys.readouterr()
    code, found = problems(capsys, "check", "--elsewhere", str(folder))
    assert (code, {p["severity"] for p in found}) == (0, {"warning"})


def test_for_github(folder, capsys):
    (folder / "a,b.yaml").write_text(DOUBTFUL + "  - {match: {kind: 100%}, action: host}\n")
    assert main(["check", "--format", "github", str(folder)]) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(
        f"::error file={folder}/a%2Cb.yaml,line=5,col=20,title=xenplug::rules[2].match.kind: '100%25'"
    )


def test_rules_are_checked_against_the_devices_of_this_host(folder, capsys, tmp_path):
    from tests.recordings import MOUSE

    (folder / "a.yaml").write_text(
        "version: 1\nprotect: [{kind: mouse}]\nrules: [{match: {device: 046d:*}, attach: a}]\n"
    )
    assert main(["check", "--host", str(MOUSE), str(folder)]) == 0
    assert "only devices that are protected on this host" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of a file")
@pytest.mark.parametrize(("owner", "mode", "expected"), [
    (1000, 0o644, "belongs to user 1000, not to root"),
    (0, 0o666, "users other than root may write this file (mode 666)"),
])  # fmt: skip
def test_files_that_others_may_write(folder, owner, mode, expected):
    from xenplug.service.policy_store import read_policy

    file = folder / "a.yaml"
    file.write_text(GOOD)
    assert read_policy(folder, guarded=True).policy
    os.chown(file, owner, 0)
    file.chmod(mode)
    assert read_policy(folder).policy
    [problem] = read_policy(folder, guarded=True).problems
    assert expected in problem.message
    file.chmod(0o644)
    os.chown(file, 0, 0)
    folder.chmod(0o777)
    [problem] = read_policy(folder, guarded=True).problems
    assert "may write this folder" in problem.message
    assert read_policy(file, guarded=True).problems
    folder.chmod(0o1777)
    assert read_policy(folder, guarded=True).policy
