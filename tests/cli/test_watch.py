"""`status --watch` on a pty, and without a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from tests.live_agent import SOON, agent

SOURCE = Path(__file__).parents[2] / "agent"
MICE = "version: 1\nrules: [{name: mice, match: {kind: mouse}, attach: kiosk}]\n"
NONE = "version: 1\nrules: [{name: other, match: {device: 1234:5678}, attach: desk}]\n"


class Screen:
    """`status --watch` with a terminal of `rows` by `columns`."""

    def __init__(self, live, **environ):
        self.master, slave = pty.openpty()
        self.size(24, 100)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.seen = ""
        argv = [sys.executable, "-m", "xenplug", "status", "--watch", "--socket", str(live.socket)]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "TERM": "xterm", "LC_ALL": "C.UTF-8"} | environ
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True)

    def size(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, pattern):
        end = time.monotonic() + SOON
        while not re.search(pattern, self.seen, re.DOTALL):
            assert time.monotonic() < end, (pattern, self.seen)
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        return self.seen

    def forget(self):
        self.seen = ""

    def press(self, keys):
        os.write(self.master, keys)

    def end(self):
        code = self.process.wait(SOON)
        if select.select([self.master], [], [], 0.1)[0]:
            self.seen += os.read(self.master, 65536).decode(errors="replace")
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.master)
        os.close(self.slave)
        return code


@pytest.fixture
def live(tmp_path):
    with agent(tmp_path, MICE) as running:
        yield running


@pytest.fixture
def screen(live):
    made = Screen(live)
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_it_follows_changes_and_sizes_and_restores_the_terminal(live, screen):
    seen = screen.until(r"attached.*kiosk")
    assert seen.startswith("\x1b[?1049h")
    assert "\x1b[32m" in seen
    live.policy.write_text(NONE)
    live.send(signal.SIGHUP)
    screen.until(r"desk")

    screen.forget()
    screen.size(6, 60)
    os.killpg(screen.process.pid, signal.SIGWINCH)
    screen.until(r"more lines; make the terminal taller.*q quits")
    assert screen.seen.split("\x1b[H")[-1].count("\r\n") == 5

    screen.press(b"\x1b[A")  # an arrow key is not Escape
    screen.press(b"x")
    time.sleep(0.1)
    assert screen.process.poll() is None
    screen.press(b"q")
    assert screen.end() == 0
    assert screen.seen.endswith("\x1b[?1049l")


@pytest.mark.parametrize("leave", [b"\x03", b"\x1b", b"Q"])
def test_other_keys_that_quit(screen, leave):
    screen.until("q quits")
    screen.press(leave)
    assert screen.end() == 0


def test_sigterm_restores_the_terminal(screen):
    screen.until("q quits")
    screen.process.terminate()
    assert screen.end() == 130
    assert screen.seen.endswith("\x1b[?1049l")


def test_no_color_is_respected(live):
    screen = Screen(live, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*m", screen.until("q quits"))
    screen.press(b"q")
    assert screen.end() == 0


def test_it_waits_for_an_agent_that_goes_away(live, screen):
    screen.until(r"attached.*kiosk")
    screen.forget()
    live.end(signal.SIGKILL)
    screen.until("no agent answers at|closed the connection")
    screen.forget()
    live.start()
    screen.until(r"q quits")
    screen.press(b"q")
    assert screen.end() == 0


def without_terminal(live, *more):
    argv = [sys.executable, "-m", "xenplug", "status", "--watch", "--socket", str(live.socket), *more]
    env = os.environ | {"PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                            text=True, preexec_fn=interruptible)  # fmt: skip


def interruptible():
    """A shell starts background jobs with SIGINT ignored, and the child inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_without_a_terminal_one_status_after_the_other(live):
    process = without_terminal(live)
    assert process.stdout.readline().startswith("PORT")
    while process.stdout.readline() != "\n":
        pass
    live.end(signal.SIGKILL)
    out, err = process.communicate(timeout=SOON)
    assert "\x1b" not in out
    assert (process.returncode, err.count("\n")) == (1, 1)


def test_json_has_one_status_per_line(live):
    process = without_terminal(live, "--json")
    assert json.loads(process.stdout.readline())["policy"]["loaded"]
    live.policy.write_text(NONE)
    live.send(signal.SIGHUP)
    assert json.loads(process.stdout.readline())["version"]
    process.send_signal(signal.SIGINT)
    assert process.wait(SOON) == 130
    process.communicate()


def test_without_an_agent(tmp_path):
    class NoAgent:
        socket = tmp_path / "none"

    screen = Screen(NoAgent)
    screen.until("no agent answers at .*; start it with")
    assert screen.end() == 1
    assert "\x1b" not in screen.seen
