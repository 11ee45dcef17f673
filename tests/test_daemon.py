"""`xenplug run` as a separate process, used through its socket and signals as by systemd and people.

Simulated guests and recorded devices, but real time, real signals, real files. xl and xenstore: tests/bench.
"""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.live_agent import DESK, SOON, LiveAgent, agent
from tests.recordings import HOSTILE, hostile

from xenplug.adapters.client import Client, RemoteError
from xenplug.cli.main import main

MICE = "version: 1\nrules:\n  - {name: mice, match: {kind: mouse}, attach: kiosk}\n"
SERIAL_TOO = MICE + "  - {name: serial, match: {kind: serial}, attach: desk}\n"
BROKEN = "version: 1\nrules:\n  - {name: mice, match: {kindd: mouse}, attach: kiosk}\n"
MANUAL = "manual override until it is unplugged; `xenplug release` ends the override\n"
STATUS = {"version", "policy", "preferred", "paused", "devices", "guests", "controllers"}
GUEST = {"name", "domid", "type", "state", "controllers", "pci"}


class Commands:
    """The commands, against one agent."""

    def __init__(self, live, capsys):
        self.live = live
        self._capsys = capsys

    def __call__(self, *argv):
        """Exit code, stdout, stderr."""
        self._capsys.readouterr()
        code = main([*argv, "--settings", str(self.live.settings)])
        return code, *self._capsys.readouterr()

    def json(self, *argv):
        code, out, err = self(*argv, "--json")
        assert err == ""
        return code, json.loads(out)

    def state_of(self, port):
        [device] = [d for d in self.json("status")[1]["devices"] if d["port"] == port]
        return device["state"], device["guest"]

    def until(self, port, *wanted):
        end = time.monotonic() + SOON
        while self.state_of(port) != wanted:
            assert time.monotonic() < end, self.state_of(port)
            time.sleep(0.05)


@pytest.fixture
def live(tmp_path):
    with agent(tmp_path, MICE) as running:
        yield running


@pytest.fixture
def commands(live, capsys):
    return Commands(live, capsys)


def test_the_commands_over_the_socket(live, commands):
    commands.until("1-1", "attached", "kiosk")
    code, status = commands.json("status")
    assert (code, set(status)) == (0, STATUS)
    assert set(status["policy"]) == {"loaded", "since", "digest", "label", "problems"}
    assert [set(guest) for guest in status["guests"]] == [GUEST]
    assert status["guests"][0]["controllers"][0]["ports"]["1"] == "1-1"
    assert [{"bdf", "driver", "guest", "since"} <= set(c) for c in status["controllers"]] == [True]
    code, listed = commands.json("devices")
    assert (code, set(listed)) == (0, {"devices"})
    assert [set(device) for device in listed["devices"]] == [set(device) for device in status["devices"]]

    code, explained = commands.json("explain", "046d:c016")
    assert (code, {"device", "decision", "rules", "plan"} <= set(explained)) == (0, True)
    assert (explained["decision"]["rule"], explained["decision"]["rule_ref"]) == ("mice", f"{live.policy}:3")
    assert explained["plan"] == [f"nothing: attached to kiosk, controller 0 port 1 [rule 'mice' ({live.policy}:3)]"]

    expected = "1-6 0403:6001 (FT232R USB UART): attached to kiosk, controller 0 port 2: " + MANUAL
    assert commands("attach", "1-6", "kiosk") == (0, expected, "")
    assert commands.state_of("1-6") == ("attached", "kiosk")
    code, answer = commands.json("detach", "1-6")
    assert (code, set(answer)) == (0, {"message"})
    assert "stays with the host: manually detached" in answer["message"]
    assert commands.state_of("1-6") == ("host", None)
    assert commands("release", "0403:6001")[0] == 0
    code, answer = commands.json("reload")
    assert (code, answer) == (0, {"message": "policy in force: 1 rule", "problems": []})

    text = commands("status")[1]
    assert "046d:c016" in text
    assert "0: qusb v2, 1 of 8 ports used" in text
    assert "USB UART" in commands("devices")[1]
    assert "  => mice" in commands("explain", "1-1")[1]


def test_detach_all(live, commands):
    """As on removal of the package: no device that the agent attached stays with a guest."""
    commands.until("1-1", "attached", "kiosk")
    assert commands("attach", "1-6", "kiosk")[0] == 0
    code, answer = commands.json("detach", "--all")
    assert (code, set(answer), len(answer["messages"])) == (0, {"messages", "failures"}, 2)
    assert {d["guest"] for d in commands.json("devices")[1]["devices"]} == {None}
    assert commands("detach", "--all") == (0, "no device is attached to a guest\n", "")
    for wrong in ([], ["1-1", "--all"]):
        assert commands("detach", *wrong)[0] == 2


@pytest.mark.parametrize(("argv", "expected"), [
    (["attach", "1-6", "nope"], "no guest named 'nope' is running; see `xl list`"),
    (["attach", "9-9", "kiosk"], "no device '9-9' is plugged in; `xenplug devices` lists ports, addresses and tags"),
    (["attach", "1-2", "kiosk"], "1-2 05ac:1006 (Keyboard Hub) is protected: a hub; devices behind it can go"),
    (["detach", "\x1b[31m"], r"no device '\x1b[31m' is plugged in"),
    (["release", "9.9"], "no device '9.9' is plugged in"),
    (["explain", "1-77"], "no device '1-77' is plugged in"),
])  # fmt: skip
def test_refusals(shared, argv, expected):
    code, out, err = shared(*argv)
    assert (code, out) == (1, "")
    [line] = err.splitlines()
    assert line.startswith(f"xenplug: {expected}")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    with agent(tmp_path_factory.mktemp("r"), MICE) as running:
        yield running


@pytest.fixture
def shared(refusing, capsys):
    return Commands(refusing, capsys)


def test_the_client_gets_the_cause(refusing):
    with pytest.raises(RemoteError) as refused:
        Client(refusing.socket).call("Attach", device="1-2", guest="kiosk")
    assert refused.value.cause == "protected"


def test_reload(live, commands):
    """A better policy moves what must move; a broken one changes nothing and is reported everywhere; ^C is SIGTERM."""
    commands.until("1-1", "attached", "kiosk")
    live.policy.write_text(SERIAL_TOO)
    live.send(signal.SIGHUP)
    received = live.hear("STATUS=policy in force: 2 rules")
    assert [line.partition("=")[0] for line in received][-4:] == ["RELOADING", "MONOTONIC_USEC", "READY", "STATUS"]
    commands.until("1-6", "attached", "desk")  # a guest that only the new policy names

    live.policy.write_text(BROKEN)
    live.send(signal.SIGHUP)
    last = "the policy has 1 problem; the last good policy stays in force"
    live.hear(f"STATUS={last}")
    code, status = commands.json("status")
    assert (code, status["policy"]["loaded"]) == (1, True)
    assert [p["path"] for p in status["policy"]["problems"]] == ["rules[0].match.kindd"]
    expected = f"policy: {live.policy}:3:26: rules[0].match.kindd: unknown key; did you mean 'kind'?"
    first, second, *_ = commands("status")[1].splitlines()
    assert first == expected
    assert second.endswith("stays in force; fix this one, then run `xenplug reload`")
    assert commands("reload") == (1, f"{last}\n", f"{expected.removeprefix('policy: ')}\n")
    assert commands.state_of("1-1") == ("attached", "kiosk")

    live.policy.write_text(MICE)
    assert commands("reload") == (0, "policy in force: 1 rule\n", "")
    commands.until("1-6", "host", None)
    assert live.end(signal.SIGINT) == 0


def test_sigterm_ends_it_cleanly(live):
    assert live.socket.exists()
    for _ in range(20):
        live.send(signal.SIGHUP)
    assert live.end() == 0
    assert not live.socket.exists()
    live.hear("STOPPING=1")
    assert "Traceback" not in live.log


def test_a_second_agent_refuses(refusing):
    live = refusing
    done = subprocess.run(live.argv(), capture_output=True, text=True, timeout=SOON, check=False)
    assert done.returncode == 1
    pid = live.process.pid
    expected = f"another agent, process {pid}, holds this lock; stop it first (systemctl stop xenplug)"
    assert done.stderr == f"xenplug: {live.folder}/state/agent.lock: {expected}\n"
    assert Client(live.socket).call("Status")


def test_kill_9_and_restart(live, commands):
    live.end(signal.SIGKILL)
    assert live.socket.exists()  # a killed agent cannot remove it
    code, _, err = commands("status")
    expected = f"no agent answers at {live.socket}; start it with systemctl start xenplug (or xenplug run)"
    assert (code, err) == (1, f"xenplug: {expected}\n")
    live.start()
    commands.until("1-1", "attached", "kiosk")


def test_a_policy_that_does_not_load_at_the_start(tmp_path, capsys):
    with agent(tmp_path, BROKEN) as live:
        commands = Commands(live, capsys)
        code, out, _ = commands("status")
        lines = out.splitlines()
        assert code == 1
        assert lines[0].startswith(f"policy: {live.policy}:3:26: rules[0].match.kindd: unknown key")
        assert lines[1] == "policy: none in force, nothing is attached; fix it, then run `xenplug reload`"
        _, status = commands.json("status")
        assert not status["policy"]["loaded"]
        assert {d["guest"] for d in status["devices"]} == {None}
        live.policy.write_text(MICE)
        assert commands("reload")[0] == 0
        commands.until("1-1", "attached", "kiosk")  # the guests are known only now
        assert commands("status")[0] == 0
        live.policy.unlink()
        code, _, err = commands("reload")
        assert (code, err.count("cannot be read (No such file or directory); write it")) == (1, 1)


def test_dry_run_prints_the_steps_and_changes_nothing(tmp_path):
    live = LiveAgent(tmp_path)
    live.policy.write_text(MICE)
    before = {path.name for path in tmp_path.iterdir()}
    done = subprocess.run(live.argv("--dry-run"), capture_output=True, text=True, timeout=SOON, check=False)
    live.close()
    assert done.returncode == 0
    assert "INFO would attach 1-1 046d:c016 (Optical USB Mouse) to kiosk, controller 0 port 1\n" in done.stderr
    assert "attached to" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == before


def test_strings_of_devices_are_harmless_in_the_log_and_over_the_socket(tmp_path, capsys):
    host = hostile(tmp_path / "x.umockdev", b" ".join(HOSTILE.values()))
    with agent(tmp_path, MICE, host) as live:
        commands = Commands(live, capsys)
        commands.until("1-1", "attached", "kiosk")
        for argv in (["status"], ["devices"], ["explain", "1-1"], ["detach", "1-1"], ["release", "1-1"]):
            code, out, err = commands(*argv)
            assert (code, err) == (0, "")
            assert all(line.isprintable() for line in out.split("\n"))
        commands.json("status")
        assert live.end() == 0
    assert live.log.count("policy in force: 1 rule\n") == 2  # once after reading, once when ready
    assert live.log.count("attached to kiosk") >= 1
    assert all(line.isprintable() and line.startswith("INFO ") for line in live.log.splitlines())


@pytest.mark.parametrize(("more", "expected"), [
    (["--host", "nope"], "nope: cannot be read (No such file or directory); name a .umockdev recording"),
    (["--host", "."], ".: cannot be read (Is a directory); name a .umockdev recording"),
    (["--host", "bad"], "bad:1: not a line of a umockdev recording; record again"),
    (["--guests", "nope"], "nope: cannot be read (No such file or directory); name a file of guests"),
    (["--guests", "odd"], "odd:1:11: a.type: 'pw' is not known here; write pv, pvh or hvm"),
    (["--guests", "slow"], "slow:1:25: a.boots_in: 'soon' is not a duration; write a number and ms, s, m or h"),
    (["--guests", "bad"], "bad:1:1: "),
])  # fmt: skip
def test_inputs_that_prevent_a_start(more, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").write_text("what\n")
    (tmp_path / "odd").write_text("a: {type: pw}\n")
    (tmp_path / "slow").write_text("a: {type: pv, boots_in: soon}\n")
    live = LiveAgent(tmp_path)
    live.policy.write_text(MICE)
    live.close()
    assert main([*live.argv()[3:], *more]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"xenplug: {expected}")


def test_guests_of_a_file(tmp_path, capsys):
    (tmp_path / "guests").write_text("kiosk: {type: pv, state: stopped}\nother: {type: hvm}\n")
    live = LiveAgent(tmp_path)
    live.policy.write_text(MICE)
    try:
        live.start("--guests", str(tmp_path / "guests"))
        _, status = Commands(live, capsys).json("status")
        assert {g["name"]: g["state"] for g in status["guests"]} == {"kiosk": "stopped", "other": "running"}
    finally:
        live.close()


def test_without_xen_simulated_is_named(tmp_path, capsys):
    settings = tmp_path / "xenplug.yaml"
    settings.write_text(f"version: 1\nstate: {tmp_path}/state\npaths: {{xenstored: {tmp_path}/none}}\n")
    for more in ([], ["--dry-run"]):
        argv = ["run", "--settings", str(settings), "--policy", str(tmp_path), *more]
        assert main(argv) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"xenplug: xenstore: no socket at {tmp_path}/none")
        assert line.endswith("use --toolstack simulated")


@pytest.mark.parametrize(("settings", "expected"), [
    ("state: /proc/none", "xenplug: /proc/none: No such file or directory; run it as root, or with --settings FILE"),
    ("control: {socket: /proc/none/c}", "xenplug: /proc/none/c: cannot make the control socket (No such file"),
    ("control: {group: nosuchgroup}", "xenplug: socket group nosuchgroup: no such group; make it with groupadd"),
])  # fmt: skip
def test_unusable_paths(settings, expected, tmp_path, capsys):
    live = LiveAgent(tmp_path)
    live.policy.write_text(MICE)
    live.close()
    rest = "" if settings.startswith("state") else f"state: {tmp_path}/state\n"
    live.settings.write_text(f"version: 1\n{rest}{settings}\n")
    assert main(live.argv()[3:]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith(expected)
    assert "Traceback" not in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_message_to_another_user_says_how_to_get_access(refusing):
    live = refusing
    live.folder.chmod(0o711)
    for parent in list(live.folder.parents)[:2]:
        parent.chmod(0o711)
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *live.argv()[:3]]
    asked = subprocess.run([*argv, "status", "--socket", str(live.socket)], capture_output=True, text=True, check=False,
                           timeout=SOON)  # fmt: skip
    assert asked.returncode == 1
    assert asked.stderr == f"xenplug: the agent at {live.socket} answers only root; use sudo\n"


def test_the_desk_is_what_these_tests_think(shared):
    assert DESK.exists()
    assert [d["port"] for d in shared.json("devices")[1]["devices"]] == [
        "1-1", "1-2", "1-2.2", "1-3", "1-4", "1-5", "1-6",
    ]  # fmt: skip


ANYBODY = """
import json, os, sys, traceback
from pathlib import Path
from xenplug.adapters.client import Client
client = Client(Path(sys.argv[1]))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(client.call(sys.argv[2], **json.loads(sys.argv[3])))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("readers", ["group", "all"])
def test_everyone_may_read_where_the_settings_say_so_and_nobody_acts(readers):
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        live = LiveAgent(Path(name))
        live.policy.write_text(MICE)
        text = live.settings.read_text()
        live.settings.write_text(text.replace("control: {", f"control: {{readers: {readers}, owner: daemon, "))
        try:
            live.start()
            made = live.socket.stat()
            assert (made.st_uid, made.st_mode & 0o777) == (1, 0o666 if readers == "all" else 0o660)

            def anybody(method, **parameters):
                run = [sys.executable, "-c", ANYBODY, str(live.socket), method, json.dumps(parameters)]
                return subprocess.run(run, capture_output=True, text=True, check=False, timeout=SOON)

            assert (anybody("Status").returncode == 0) is (readers == "all")
            refused = anybody("Attach", device="1-6", guest="kiosk")
            assert refused.returncode != 0
            if readers == "all":
                assert "Attach is for root and members of group root" in refused.stderr
        finally:
            live.close()


def test_files_that_are_removed_come_back(tmp_path):
    """The socket, the lock and the folders, within a rescan; one message for each, and nothing ends the agent."""
    live = LiveAgent(tmp_path)
    live.policy.write_text(MICE)
    live.settings.write_text(live.settings.read_text() + "times: {rescan: 1s}\n")
    try:
        live.start()
        live.socket.unlink()
        shutil.rmtree(tmp_path / "state")
        until(lambda: live.socket.exists() and (tmp_path / "state/agent.lock").exists())
        assert Client(live.socket).call("Status")["status"]["devices"]
        assert stat.S_IMODE(live.socket.stat().st_mode) == 0o660
    finally:
        live.close()
    assert live.log.count("the control socket was removed") == 1
    assert live.log.count("the folder was removed while the agent ran") == 1
    assert "Traceback" not in live.log


def until(holds):
    end = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
