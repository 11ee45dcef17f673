"""The package's scripts and its example hook, run with programs that note what they were asked to do."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"
SNIPPET = Path("/usr/share/debhelper/autoscripts/postinst-systemd-restartnostart")


class Host:
    """Programs that write down their arguments, and a script of the package that finds its files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        (root / "bin").mkdir()
        (root / "run/systemd/system").mkdir(parents=True)
        for name in ("systemctl", "deb-systemd-invoke", "xenplug", "systemd-run"):
            self.program(name)

    def program(self, name: str, then: str = "exit 0") -> None:
        place = self.root / "bin" / name
        place.write_text(f'#!/bin/sh\n{{ printf %s {name}; printf "\\t%s" "$@"; echo; }} >>{self.log}\n{then}\n')
        place.chmod(0o755)

    def running(self, *, active: bool) -> None:
        self.program("systemctl", f'[ "$1" != is-active ] || exit {0 if active else 3}')

    def run(self, script: Path, *argv: str, **env: str) -> list[list[str]]:
        """What the programs were called with."""
        copy = self.root / script.name
        copy.write_text(re.sub(r"(?<![\w.])/run/", f"{self.root}/run/", script.read_text()))
        self.log.write_text("")
        path = f"{self.root}/bin:/usr/bin:/bin"
        done = subprocess.run(
            ["/bin/sh", copy, *argv], env={"PATH": path, **env}, capture_output=True, text=True, check=False, timeout=20
        )
        assert done.returncode == 0, done.stderr
        self.said = done.stderr
        return [line.split("\t") for line in self.log.read_text().splitlines()]


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


PRERM, POSTINST = PACKAGING / "debian/xenplug.prerm", PACKAGING / "debian/xenplug.postinst"


def test_removal_returns_the_devices_and_stops_the_agent(host):
    host.running(active=True)
    calls = host.run(PRERM, "remove")
    assert calls[1:] == [["xenplug", "detach", "--all"], ["deb-systemd-invoke", "stop", "xenplug.service"]]


@pytest.mark.parametrize("ledger", [False, True])
def test_removal_starts_no_agent_that_was_stopped(host, ledger):
    host.running(active=False)
    if ledger:
        (host.root / "run/xenplug").mkdir()
        (host.root / "run/xenplug/ledger.json").touch()
    calls = host.run(PRERM, "remove")
    assert not [call for call in calls if "start" in call or call[0] == "xenplug"]
    assert ("what it attached stays attached" in host.said) is ledger


@pytest.mark.parametrize("argv", [("upgrade", "2"), ("deconfigure", "in-favour", "x", "2"), ("failed-upgrade", "1")])
def test_nothing_is_detached_unless_removed(host, argv):
    host.running(active=True)
    assert host.run(PRERM, *argv) == []


@pytest.mark.parametrize(
    ("argv", "ran", "starts"),
    [
        (("configure", ""), False, True),
        (("configure", "0.1"), True, False),  # an upgrade; debhelper's part restarts it if it runs
        (("configure", "0.1"), False, True),  # removed, not purged, installed again
        (("abort-upgrade", "0.1"), True, False),
        (("abort-remove", ""), True, False),
        (("triggered", "x"), False, False),
    ],
)
def test_the_agent_is_started_once(host, argv, ran, starts):
    if ran:
        (host.root / "run/xenplug").mkdir()
    calls = host.run(POSTINST, *argv)
    assert calls == ([["deb-systemd-invoke", "start", "xenplug.service"]] if starts else [])


@pytest.mark.skipif(not SNIPPET.exists(), reason="needs debhelper")
def test_debhelper_only_restarts_an_agent_that_runs():
    """What debhelper adds to the script with the options in debian/rules."""
    assert "--no-start --restart-after-upgrade" in (PACKAGING / "debian/rules").read_text()
    assert "start #UNITFILES#" not in SNIPPET.read_text()
    assert "restart-after-upgrade" in Path(shutil.which("dh_installsystemd") or "").read_text()


# the example hook

TEXTS = [
    "mouse",
    "$HOME ${HOME} $$ $",
    "<b>bold</b> <img src='x'> & &amp; &lt;",
    r"a\nb \\ \x41 \101 \\",
    "`id` $(id) ; rm -rf * | \"quoted\" 'single' ! %n %% #",
    "-h --version",
    "",
    "€ ü 日本",
]


def expanded(word: str, env: dict[str, str]) -> str:
    """A word of a command as systemd reads it (systemd.service(5), COMMAND LINES)."""
    if re.fullmatch(r"\$\w+", word):
        return env.get(word[1:], "")
    return re.sub(r"\$(?:\$|\{(\w+)\})", lambda found: env.get(found[1], "") if found[1] else "$", word)


def shown(text: str) -> str:
    """A body as notify-send (g_strcompress) and a notification server with markup show it."""
    plain = re.sub(r"\\([0-7]{1,3}|.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), text)
    assert not re.search(r"<[^>]*>|&(?!amp;|lt;|gt;)", plain)
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


@pytest.mark.parametrize("text", TEXTS)
def test_the_notice_shows_what_the_device_says(host, text, monkeypatch):
    host.program("id", "echo 1000")
    (host.root / "run/user/1000").mkdir(parents=True)
    monkeypatch.chdir(host.root / "run/user/1000")
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind("bus")  # the whole path would be too long
        calls = host.run(PACKAGING / "examples/usb-notice", "alice", XENPLUG_EVENT="attached", XENPLUG_LINE=text)
    [call] = [call for call in calls if call[0] == "systemd-run"]
    command = [expanded(word, {"HOME": "/root", "PATH": "x"}) for word in call[call.index("--") + 1 :]]
    assert command[-3:-1] == ["--", "USB: attached"]
    assert shown(command[-1]) == text
