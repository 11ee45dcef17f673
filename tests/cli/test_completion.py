"""The completions in interactive bash and zsh: the text typed, and the line after Tab.

An agent runs, and the shell has a terminal of its own. A line is completed by Tab and printed, never run.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.live_agent import DESK, SOON, agent

from xenplug.cli import complete

COMPLETIONS = Path(__file__).parents[2] / "packaging/completions"
POLICY = "version: 1\nrules: [{name: mice, match: {kind: mouse}, attach: [kiosk, desk]}]\n"
BASH = ["bash", "--norc", "--noprofile", "-i"]
ZSH = ["zsh", "-f", "-i"]
BEGIN = {
    "bash": f"bind 'set bell-style none'; PS1='> '; source {COMPLETIONS}/xenplug.bash",
    "zsh": f"PS1='> '; fpath=({COMPLETIONS} $fpath); autoload -Uz compinit; compinit -u -D",
}
SHELLS = [
    pytest.param(argv, id=argv[0], marks=pytest.mark.skipif(shutil.which(argv[0]) is None, reason=f"no {argv[0]} here"))
    for argv in (BASH, ZSH)
]


class Shell:
    """An interactive shell with the completions loaded."""

    def __init__(self, argv, folder, **more):
        self._master, slave = pty.openpty()
        # HOME is a temporary folder, and the xenplug of this checkout comes first on PATH.
        path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {"PATH": path, "HOME": str(folder), "TERM": "dumb", "LC_ALL": "C.UTF-8", "COLUMNS": "500", "LINES": "50"}
        env |= more
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True, cwd=folder
        )
        os.close(slave)
        self._seen = ""
        self._type(BEGIN[argv[0]] + "\nprint\x27\x27f 'ready%s\\n' 1\n")
        self._until("ready1")

    def line(self, typed):
        """The words on the line after `typed` and a Tab, as the shell splits them."""
        self._seen = ""
        # A Tab; then make the line the arguments of a printf.
        self._type(f"{typed}\t")
        self._type("\x01printf '<%s>' \x05 ; echo; echo '-'done\n")
        found = self._until(r"\n-done|\r-done")
        return re.findall(r"<([^>]*)>", found[found.rindex("<xenplug>") :])

    def offers(self, typed):
        """Everything shown after `typed` and Tabs."""
        self._seen = ""
        self._type(f"{typed}\t\t")
        time.sleep(2.5)
        self._type("\x15")
        self._type("echo '-'done\n")
        return self._until(r"\n-done|\r-done").replace(typed, "", 1)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _type(self, text):
        os.write(self._master, text.encode())

    def _until(self, pattern):
        end = time.monotonic() + SOON
        while not re.search(pattern, self._seen):
            assert time.monotonic() < end, (pattern, self._seen)
            if select.select([self._master], [], [], 0.1)[0]:
                self._seen += os.read(self._master, 65536).decode(errors="replace")
        return self._seen


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with agent(tmp_path_factory.mktemp("c"), POLICY, DESK) as running:
        yield running


@pytest.fixture(scope="module", params=SHELLS)
def shell(request, tmp_path_factory):
    made = Shell(request.param, tmp_path_factory.mktemp("home"))
    yield made
    made.close()


@pytest.mark.parametrize(("typed", "last"), [
    ("attach {} 1-5", "1-5"),
    ("attach {} 1-5 kio", "kiosk"),
    ("attach {} 046d:c01", "046d:c016"),
    ("attach {} 046d:c016 des", "desk"),
    ("attach 046d:c016 {} des", "desk"),
    ("detach {} 0781", "0781:5567"),
    ("prefer {} de", "desk"),
    ("pause {} al", "all"),
    ("resume {} 1-2.", "1-2.2"),
    ("pref", "prefer"),
    ("status --wa", "--watch"),
])  # fmt: skip
def test_a_name_is_completed(shell, live, typed, last):
    words = shell.line("xenplug " + typed.format(f"--settings {live.settings}"))
    assert words[-1] == last, words


def test_the_choices_are_shown(shell, live):
    offered = shell.offers(f"xenplug attach --settings {live.settings} 1-")
    assert set(re.findall(r"1-[\d.]*\d", offered)) >= {"1-1", "1-2", "1-2.2", "1-3", "1-4", "1-5", "1-6"}
    offered = shell.offers(f"xenplug prefer --settings {live.settings} ")
    assert re.search(r"desk.*kiosk", offered, re.DOTALL)


def test_without_an_agent_nothing_is_offered_or_printed(shell, tmp_path):
    words = shell.line(f"xenplug attach --socket {tmp_path}/none 1-")
    assert words[-1] == "1-"


@pytest.mark.parametrize("argv", SHELLS)
def test_a_name_is_not_run(argv, tmp_path):
    """A guest's name is never run as a command."""
    stub = tmp_path / "xenplug"
    names = ["desk", "k$(touch ran)", "$(touch ran)", "`touch ran`"]
    lines = "\n".join(f"{name}\tpv: $(touch ran)" for name in names)
    stub.write_text(f"#!/bin/sh\ncat <<'X'\n{lines}\nX\n")
    stub.chmod(0o755)
    shell = Shell(argv, tmp_path)
    try:
        assert shell.line("xenplug prefer k")[-1] == "k$(touch ran)"
        assert shell.line("xenplug prefer d")[-1] == "desk"
    finally:
        shell.close()
    assert not list(tmp_path.glob("**/ran"))


MODULES = ("json", "encodings", "sitecustomize", "usercustomize", "collections", "argparse", "xenplug", "socket", "os")


@pytest.mark.parametrize("argv", SHELLS)
@pytest.mark.parametrize("path", ["", ".", "{}", ":", "..:./x:{}"])
def test_tab_runs_nothing_of_the_current_folder(argv, path, live, tmp_path):
    """Otherwise a user who can write there becomes root at root's next Tab."""
    hostile, mark = tmp_path / "here", tmp_path / "ran"
    hostile.mkdir()
    for name in MODULES:
        (hostile / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
        (hostile / name).mkdir()
        (hostile / name / "__init__.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
    for tool in ("python3", "python", "cat", "sh"):
        (hostile / tool).write_text(f"#!/bin/sh\necho {tool} >>{mark}\n")
        (hostile / tool).chmod(0o755)
    shell = Shell(argv, hostile, PYTHONPATH=path.format(hostile), PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin")
    try:
        assert shell.line(f"xenplug prefer --settings {live.settings} de")[-1] == "desk"
        assert shell.line(f"xenplug attach --settings {live.settings} 046d:c01")[-1] == "046d:c016"
    finally:
        shell.close()
    assert not mark.exists(), mark.read_text()


def test_the_words_of_a_status(live):
    """The lines for the completions: one per word, with a tab before the description, whatever the names contain."""
    device = {"port": "1-1", "device": "046d:c016", "names": ["a\tb\x1b[2J"], "product": None, "guest": "k\nx"}
    status = {
        "devices": [device, device | {"port": "1-2"}],
        "guests": [{"name": "a\tb\nc", "type": "pv", "state": "running"}],
        "controllers": [{"bdf": "0000:00:14.0", "guest": None}, {"bdf": "0000:00:15.0", "guest": "kiosk"}],
    }
    assert list(complete.lines(status, "devices")) == [
        "1-1\t046d:c016 a\\tb\\x1b[2J in k\\nx",
        "1-2\t046d:c016 a\\tb\\x1b[2J in k\\nx",
    ]
    assert list(complete.lines(status, "guests")) == ["a\\tb\\nc\tpv running"]
    assert list(complete.lines(status, "controllers")) == ["0000:00:15.0\tcontroller of kiosk"]


def test_no_completion_starts_python():
    """Only xenplug itself, which imports its own packages first."""
    for file in COMPLETIONS.iterdir():
        assert not re.search(r"python[0-9]?\b", re.sub(r"#.*|PYTHON[A-Z]+=\S*", "", file.read_text())), file
