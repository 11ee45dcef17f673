"""`simulate` and `test`: what passes, what fails and where, and that a mistake in a scenario is one clear problem."""

import json

import pytest

from xenplug.cli.main import main

POLICY = "{version: 1, rules: [{name: mice, match: {kind: mouse}, attach: kiosk}]}"
HEAD = f"""\
version: 1
name: the mouse
policy: {POLICY}
guests: {{kiosk: {{type: pv, controllers: [{{type: qusb}}]}}}}
timeline:
"""
PLUG = '{port: 1-4, device: "046d:c016", speed: low, kind: mouse}'
GOOD = f"{HEAD}  - plug: {PLUG}\n  - expect: {{port: 1-4, state: attached, guest: kiosk}}\n"
FAILING = f"{HEAD}  - plug: {PLUG}\n  - expect: {{port: 1-4, state: attached, guest: desk}}\n"


@pytest.fixture
def write(tmp_path):
    def written(text, name="s.yaml"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return str(file)

    return written


def test_passing(write, capsys):
    file = write(GOOD)
    assert main(["test", file]) == 0
    assert capsys.readouterr() == (f"passed  {file}: the mouse\n1 passed, 0 failed\n", "")
    assert main(["test", file, "--json"]) == 0
    scenario = {"file": file, "name": "the mouse", "passed": True, "failures": []}
    assert json.loads(capsys.readouterr().out) == {"passed": 1, "failed": 0, "scenarios": [scenario]}


def test_a_failure_shows_the_line_what_was_expected_and_what_is(write, capsys):
    file = write(FAILING)
    said = f"{file}:7: guest: expected desk, is kiosk"
    assert main(["test", file]) == 1
    assert capsys.readouterr().out == f"FAILED  {file}: the mouse\n        {said}\n0 passed, 1 failed\n"
    assert main(["test", file, "--json"]) == 1
    view = json.loads(capsys.readouterr().out)
    assert (view["passed"], view["failed"], view["scenarios"][0]["failures"]) == (0, 1, [said])


def test_one_failing_among_good_ones(write, tmp_path, capsys):
    write(GOOD, "a.yaml"), write(FAILING, "b/b.yaml"), write(GOOD, "c.yaml")
    assert main(["test", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["passed", "FAILED", "passed", "2"]


def test_simulate_prints_the_events_with_times(write, capsys):
    file = write(GOOD)
    assert main(["simulate", file]) == 0
    first, *story, last, _ = capsys.readouterr().out.split("\n")[:-1]
    assert (first, last) == (f"== the mouse ({file})", "== as expected")
    assert story[0].startswith("    0.00 s")
    assert any("attached to kiosk, controller 0 port 1" in line for line in story)
    assert story[-1].endswith("ok: expect port 1-4, state attached, guest kiosk")


def test_simulate_in_json_and_failing(write, capsys):
    assert main(["simulate", write(FAILING), "--json"]) == 1
    [scenario] = json.loads(capsys.readouterr().out)["scenarios"]
    assert set(scenario) == {"file", "name", "passed", "failures", "story"}
    assert all(set(entry) == {"at", "line"} for entry in scenario["story"])
    assert main(["simulate", write(FAILING)]) == 1
    assert "== NOT as expected: " in capsys.readouterr().out


def test_folders_hold_other_files_too(write, tmp_path, monkeypatch, capsys):
    write(GOOD, "tests/good.yaml"), write(GOOD, "other.yml"), write(GOOD, ".hidden/x.yaml")
    write("version: 1\nrules: []\n", "policy.yaml"), write("on: {push: *anchor}\n", "ci.yaml")
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    assert main(["test"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "passed  other.yml: the mouse", "passed  tests/good.yaml: the mouse", "2 passed, 0 failed",
    ]  # fmt: skip


def test_a_broken_scenario_in_a_folder_is_not_passed_over(write, tmp_path, capsys):
    write(GOOD, "a.yaml"), write("version: 1\ntimeline: [\n", "b.yaml")
    assert main(["test", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith(f"{tmp_path}/b.yaml:")
    assert err.splitlines()[-1] == "xenplug: 1 scenario file could not be read; nothing was played"


def test_a_named_file_that_is_no_scenario_is_an_error(write, capsys):
    file = write("version: 1\nrules: []\n", "policy.yaml")
    assert main(["test", file]) == 1
    assert f"{file}:1:1: timeline: is missing; add it" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("name", "said"), [
    ("none", "cannot be read (No such file or directory); name a scenario file"),
    ("", "no scenario in this folder (*.yaml with a timeline:); name one that holds some"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["test", "simulate"])
def test_nothing_to_play(command, name, said, tmp_path, capsys):
    assert main([command, str(tmp_path / name)]) == 2
    assert capsys.readouterr().err == f"xenplug: {tmp_path / name}: {said}\n"


def test_a_scenario_for_other_floors_is_listed_as_skipped(write, capsys):
    file = write(GOOD.replace("timeline:", "floors: [bench, lab]\ntimeline:"))
    assert main(["test", file]) == 0
    said = f"skipped {file}: the mouse (plays only on bench and lab)\n0 passed, 0 failed, 1 skipped\n"
    assert capsys.readouterr().out == said


def timeline(text):
    return f"{HEAD}  - {text}\n"


MISTAKES = {  # what is written: where and what is said before anything is played
    timeline(f"plugg: {PLUG}"): "6:5: timeline[0].plugg: unknown key; did you mean 'plug'?",
    timeline("wait: soon"): "6:11: timeline[0].wait: 'soon' is not a duration; write a number and ms, s, m or h, like 500ms or 10s",
    timeline("expect: {port: 1-4, within: soon}"): "6:33: timeline[0].expect.within: 'soon' is not a duration",
    timeline("together: [{wait: soon}]"): "6:23: timeline[0].together[0].wait: 'soon' is not a duration",
    timeline(f"together: [{{plug: {PLUG}}}, {{wait: soon}}]"): "timeline[0].together[1].wait: 'soon' is not a duration",
    timeline("together: [{expect: {port: 1-4}}]"): "timeline[0].together[0]: expect takes time, and together is one",
    timeline('plug: {port: 1-4, device: "046d:c016", kind: mouse, interfaces: ["08:06:50"]}'):
        "6:11: timeline[0].plug: kind mouse has interfaces 03:01:02, not 08:06:50; leave one of them out",
    timeline('plug: {port: 1-4, device: "046d:c016", kind: mousse}'): "plug: 'mousse' is no kind of device; one of",
    timeline('plug: {port: 1-4, device: "046d:c016", children: [{port: 1-4.1, device: "046d:c017", kind: mousse}]}'):
        "timeline[0].plug.children[0]: 'mousse' is no kind of device",
    timeline('plug: {port: 1-4, device: "046d:c016", class: zz}'): "'zz' is not a class triple",
    timeline('plug: {port: 1-4, device: "x"}'): "timeline[0].plug.device: 'x' is not valid; write it like",
    timeline("fail: {command: usbdev-attach, how: sideways}"): "'sideways' is not known here; write refused, hang",
    timeline("lose: mind"): "'mind' is not known here; write udev or xenstore",
    timeline("expect: {}"): "6:13: timeline[0].expect: is empty; write it like",
    GOOD.replace("controllers:", "boots_in: soon, controllers:"): "4:38: guests.kiosk.boots_in: 'soon' is not a",
    GOOD.replace("timeline:", "host: {controllers: [{buses: {x: {ports: 8}}}]}\ntimeline:"):
        "5:22: host.controllers[0]: 'x' is no number of a bus; write it like 1",
    GOOD.replace("timeline:", "host: {controllers: [{bdf: x, buses: {1: {ports: 8}}}]}\ntimeline:"):
        "host.controllers[0].bdf: 'x' is not valid; write it like 0000:00:14.0",
    GOOD.replace("timeline:", 'host: {devices: [{port: 1-1, device: "046d:c016", kind: x}]}\ntimeline:'):
        "5:18: host.devices[0]: 'x' is no kind of device",
}  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_in_a_scenario(text, write, capsys):
    file = write(text)
    assert main(["test", file]) == 1
    out, err = capsys.readouterr()
    problem, last = err.splitlines()
    assert out == ""
    assert problem.startswith(f"{file}:")
    assert MISTAKES[text] in problem
    assert last == "xenplug: 1 scenario file could not be read; nothing was played"


UNPLAYABLE = {
    timeline('plug: {port: 1-44, device: "046d:c016"}'): ":6: port 1-44: bus 1 has 8 ports",
    timeline('plug: {port: 7-1, device: "046d:c016"}'): ":6: port 7-1: this host has no bus 7",
    timeline('plug: {port: 1-4, device: "046d:c016", speed: super}'): ":6: port 1-4: a super speed device does not",
    timeline('plug: {port: 1-4.1, device: "046d:c016"}'): ":6: port 1-4.1: there is no hub at 1-4",
    timeline("unplug: 1-4"): ":6: port 1-4: nothing is plugged in there",
    timeline("start: nope"): ":6: guest nope: there is none of that name",
    timeline("start: kiosk"): ":6: guest kiosk: runs already",
    timeline("command: [frobnicate]"): ":6: command frobnicate: a scenario can run attach, detach, release, reload",
    timeline("xl: [frobnicate]"): ":6: xl frobnicate: the simulated xl does not have this command",
    timeline("reload: nope.yaml"): ":6: policy nope.yaml: no such file or folder beside ",
    timeline("expect: {colour: red, within: 0s}"): ":6: unknown: colour; name a port, device, address or guest",
    timeline("expect: {guest: kiosk, stat: running, within: 0s}"): ":6: stat: no such key; did you mean 'state'?",
    timeline("command: {run: [attach, 1-4, kiosk], exit: 0}"): ":6: command attach 1-4 kiosk: expected exit 0, is 1",
    GOOD.replace("timeline:", 'host: {devices: [{port: 1-9, device: "046d:c016"}]}\ntimeline:'):
        ": port 1-9: bus 1 has 8 ports",
    GOOD.replace("kind: mouse}, attach", "kindd: mouse}, attach"): ":3:51: rules[0].match.kindd: unknown key",
    GOOD.replace(POLICY, "nope.yaml"):
        "nope.yaml:1:1: cannot be read (No such file or directory)",
}  # fmt: skip


@pytest.mark.parametrize("text", UNPLAYABLE, ids=range(len(UNPLAYABLE)))
def test_what_cannot_be_played_fails_with_its_place(text, write, capsys):
    file = write(text)
    assert main(["test", file]) == 1
    out, err = capsys.readouterr()
    failed, reason, total = out.splitlines()
    assert (failed, total, err) == (f"FAILED  {file}: the mouse", "0 passed, 1 failed", "")
    assert UNPLAYABLE[text] in reason


def test_a_policy_in_the_scenarios_folder(write, capsys):
    write("version: 1\nrules: [{match: {kind: mouse}, attach: kiosk}]\n", "policies/p.yaml")
    text = GOOD.replace(POLICY, "../policies")
    assert main(["test", write(text, "tests/s.yaml")]) == 0


def test_junit(tmp_path, capsys):
    import xml.etree.ElementTree as Tree

    text = "version: 1\nname: 'a <b> & \"c\"'\npolicy: {version: 1}\ntimeline: [{wait: 1s}%s]\n"
    (tmp_path / "good.yaml").write_text(text % "")
    (tmp_path / "worse.yaml").write_text(text % ", {expect: {port: 1-1, state: attached, within: 1s}}")
    (tmp_path / "lab.yaml").write_text(text % "" + "floors: [lab]\n")
    assert main(["test", str(tmp_path), "--junit", str(tmp_path / "out.xml")]) == 1
    suite = Tree.parse(tmp_path / "out.xml").getroot()
    assert suite.attrib == {"name": "xenplug", "tests": "3", "failures": "1", "skipped": "1"}
    assert {case.attrib["name"] for case in suite} == {'a <b> & "c"'}
    assert "expected attached" in suite.find(".//failure").attrib["message"]
    capsys.readouterr()
    assert main(["test", str(tmp_path), "--junit", str(tmp_path)]) == 2


@pytest.mark.parametrize("command", ["simulate", "test"])
def test_what_others_wrote_into_a_scenario_reaches_no_screen(write, capsys, command):
    """A repository of policies may be anybody's."""
    evil = GOOD.replace("name: the mouse", 'name: "a\\e[31mb"').replace("speed: low", 'product: "\\u202E"')
    evil = evil.replace("guest: kiosk}", 'guest: "\\e[2J"}').replace("guests: {kiosk:", 'guests: {"k\\a":')
    file = write(evil)
    assert main([command, file]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.isprintable() for line in err.splitlines())
    assert [line.partition(": ")[2].partition(": ")[0] for line in err.splitlines()[:-1]] == [
        "name", "guests", "timeline[0].plug.product", "timeline[1].expect.guest",
    ]  # fmt: skip


@pytest.mark.parametrize("wait", ["8d", "169h", "9" * 400])
def test_a_wait_without_end_is_refused(write, capsys, wait):
    assert main(["test", write(f"{GOOD}  - wait: {wait}\n")]) == 1
    assert "timeline[2].wait: " in capsys.readouterr().err
