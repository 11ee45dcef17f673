"""What the documents tell a user to type is typed here, so that it stays true: every `xenplug …` is understood, and all
that end by themselves are run, against an agent on a recording.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.live_agent import DESK, agent

from xenplug.cli.main import COMMANDS, _parse, main
from xenplug.core.policy.load import load
from xenplug.core.settings import load as load_settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OURS = [path for path in PAGES if path.name not in ("design.md", "xen-facts.md")]
"""The design is a plan, and the facts are of Xen."""
SCENARIO = "policies/tests/gaming-main-job.yaml"
STANDS_FOR = {
    "DEVICE": "1-1",
    "GUEST": "kiosk",
    "linux": "kiosk",
    "FILE": "mine.yaml",
    "PATH": "mine.yaml",
    "SCENARIO…": SCENARIO,
    "FILE…": SCENARIO,
    "[PATH…]": "policies/tests",
}
"""What a document leaves open, or what only the reader's host has."""
ASKS = {"status", "devices", "explain", "attach", "detach", "release", "reload", "doctor"}
ASKS |= {"pause", "resume", "prefer", "history"}
"""Commands that ask the agent."""
NEED_MORE = {"attach", "detach", "release", "explain", "simulate", "prefer", "pause", "resume", "import", "xl-cfg"}
"""Commands that prose names without their arguments."""
MICE = "version: 1\nrules: [{name: mice, match: {kind: mouse}, attach: kiosk}]\n"


def told(path):
    """The commands of a page: in code blocks by the line, and between backticks."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^    (?:\.venv/bin/)?(xenplug [a-z].*)$", text, re.MULTILINE)
    spans = re.findall(r"`(xenplug [a-z][^`\n]*)`", text)
    for command in [*blocks, *spans]:
        words = shlex.split(re.split(r"\s+#|\s+>|\s+\||\s+&&", command)[0])
        if len(words) > 2 or words[1] not in NEED_MORE:
            scenario = words[1] in ("simulate", "test")
            yield [SCENARIO if scenario and w == "FILE" else STANDS_FOR.get(w, w) for w in words[1:]]


FOUND = sorted({(path.name, *words) for path in OURS for words in told(path)})


def test_there_are_commands_to_try():
    assert len(FOUND) > 20
    assert {words[1] for words in FOUND} <= set(COMMANDS)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with agent(tmp_path_factory.mktemp("d"), MICE) as running:
        yield running


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A reader's folder: the policy of the README, and the project's own beside it."""
    [policy] = re.findall(r"^```yaml\n(version: 1\n.*?)```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.yaml").write_text(policy)
    (tmp_path / "try.yaml").write_text("version: 1\n")
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "mine.yaml").chmod(0o644)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", FOUND, ids=" ".join)
def test_a_command_is_understood(words, here):
    _parse(words[1:])


@pytest.mark.parametrize("words", [w for w in FOUND if "--watch" not in w], ids=" ".join)
def test_a_command_works(words, here, live, capsys):
    argv = list(words[1:])
    if argv[0] == "run":
        argv = [*(w for w in argv if w != "--dry-run"), "--dry-run", "--host", str(DESK)]
        argv += ["--toolstack", "simulated"] * ("simulated" not in argv)
    if argv[0] in ASKS and "--policy" not in argv:
        argv += ["--settings", str(live.settings)]
    if (argv[0] == "explain" and "--policy" in argv) or argv[0] == "init":
        argv += ["--host", str(DESK)]
    if argv[0] in ("run", "check", "udev-rules", "xl-cfg") and "mine.yaml" not in argv and "--policy" not in argv:
        argv += ["--policy", "mine.yaml"]
    code = main(argv)
    out, err = capsys.readouterr()
    assert code in ((0, 1) if argv[0] in ("doctor", "status") else (0,)), err
    assert "Traceback" not in err
    assert out or err or argv[0] == "run"


def fenced(path):
    return re.findall(r"^```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", [path for path in OURS if fenced(path)], ids=lambda path: path.name)
def test_a_file_shown_in_full_is_read(path):
    """Those that begin with their version; the rest are parts of files."""
    for text in fenced(path):
        if not text.startswith("version: 1"):
            continue
        if re.search(r"^(?:rules|guests|protect|default):", text, re.MULTILINE) and "timeline:" not in text:
            assert load({path.name: text.encode()}).problems == ()
        elif "timeline:" not in text:
            assert load_settings(text.encode(), path.name)[2] == []


def test_the_client_of_another_program(live):
    """The Python of docs/control.md, with this agent's socket; the stream is left at its first word."""
    pytest.importorskip("varlink")
    [code] = re.findall(r"^```python\n(.*?)```", (ROOT / "docs/control.md").read_text(), re.MULTILINE | re.DOTALL)
    printed: list[tuple[object, ...]] = []

    class Enough(Exception):
        pass

    def show(*words: object) -> None:
        printed.append(words)
        if isinstance(words[0], list):
            raise Enough

    with pytest.raises(Enough):
        exec(code.replace("/run/xenplug/control.sock", str(live.socket)), {"print": show})
    assert len(printed) > 1


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (path.parent / target).exists(), target


def test_the_readme_begins_with_the_two_commands():
    first, second, *_ = re.findall(r"^```(\w*)\n(.*?)```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert (first, second) == (("sh", "./dev demo\n"), ("sh", "./dev test\n"))
