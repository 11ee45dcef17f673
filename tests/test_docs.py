"""The documents are correct: every `xenplug …` command in them is parsed, and those that end by themselves are run with
an agent on a recording; policies and settings load; links, anchors and references have targets.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from tests.live_agent import DESK, agent

from xenplug.cli.main import COMMANDS, main, parse
from xenplug.core.policy.load import load
from xenplug.core.settings import load as load_settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
FOR_USERS = [path for path in PAGES if path.parent.name in ("user", "reference") and path.name != "xen-facts.md"]
FOR_USERS.append(ROOT / "README.md")
FACTS = ROOT / "docs/reference/xen-facts.md"
SCENARIO = "policies/tests/gaming-main-job.yaml"
PLACEHOLDERS = {
    "DEVICE": "1-1",
    "GUEST": "kiosk",
    "linux": "kiosk",
    "FILE": "mine.yaml",
    "PATH": "mine.yaml",
    "SCENARIO…": SCENARIO,
    "FILE…": SCENARIO,
    "[PATH…]": "policies/tests",
}
"""Placeholders of the documents, and names that only the reader's host has: the values that the test uses."""
ASK_THE_AGENT = {"status", "devices", "explain", "attach", "detach", "release", "reload", "doctor"}
ASK_THE_AGENT |= {"pause", "resume", "prefer", "history"}
"""Commands that ask the agent."""
NEED_ARGUMENTS = {"attach", "detach", "release", "explain", "simulate", "prefer", "pause", "resume", "import", "xl-cfg"}
"""Commands that the text names without their arguments."""
MICE = "version: 1\nrules: [{name: mice, match: {kind: mouse}, attach: kiosk}]\n"


def commands(path):
    """The commands of a page: one in each line of a code block, and between backticks."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^    (?:\.venv/bin/)?(xenplug [a-z].*)$", text, re.MULTILINE)
    spans = re.findall(r"`(xenplug [a-z][^`\n]*)`", text)
    for command in [*blocks, *spans]:
        words = shlex.split(re.split(r"\s+#|\s+>|\s+\||\s+&&", command)[0])
        if len(words) > 2 or words[1] not in NEED_ARGUMENTS:
            scenario = words[1] in ("simulate", "test")
            yield [SCENARIO if scenario and w == "FILE" else PLACEHOLDERS.get(w, w) for w in words[1:]]


FOUND = sorted({(path.name, *words) for path in FOR_USERS for words in commands(path)})


def test_there_are_commands_to_try():
    assert len(FOUND) > 20
    assert {words[1] for words in FOUND} <= set(COMMANDS)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with agent(tmp_path_factory.mktemp("d"), MICE) as running:
        yield running


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A reader's folder: the policy of the README and the project's own policies."""
    [policy] = re.findall(r"^```yaml\n(version: 1\n.*?)```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.yaml").write_text(policy)
    (tmp_path / "try.yaml").write_text("version: 1\n")
    (tmp_path / "usb-policy.conf").write_text("ALLOW:vid=046d pid=c016\n")
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "mine.yaml").chmod(0o644)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", FOUND, ids=" ".join)
def test_a_command_is_understood(words, here):
    parse(words[1:])


@pytest.mark.parametrize("words", [w for w in FOUND if "--watch" not in w], ids=" ".join)
def test_a_command_works(words, here, live, capsys):
    argv = list(words[1:])
    if argv[0] == "run":
        argv = [*(w for w in argv if w != "--dry-run"), "--dry-run", "--host", str(DESK)]
        argv += ["--toolstack", "simulated"] * ("simulated" not in argv)
    if argv[0] in ASK_THE_AGENT and "--policy" not in argv:
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


@pytest.mark.parametrize("path", [path for path in FOR_USERS if fenced(path)], ids=lambda path: path.name)
def test_a_complete_file_loads(path):
    """Only blocks that start with a version; the others are parts of files."""
    for text in fenced(path):
        if not text.startswith("version: 1"):
            continue
        if re.search(r"^(?:rules|guests|protect|default):", text, re.MULTILINE) and "timeline:" not in text:
            assert load({path.name: text.encode()}).problems == ()
        elif "timeline:" not in text:
            assert load_settings(text.encode(), path.name)[2] == []


def test_the_client_of_another_program(live):
    """The Python of the control interface's page, with this agent's socket; the stream is left at its first object."""
    pytest.importorskip("varlink")
    [code] = re.findall(
        r"^```python\n(.*?)```", (ROOT / "docs/reference/control-interface.md").read_text(), re.MULTILINE | re.DOTALL
    )
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


def test_every_json_key_is_described(live, capsys):
    words = set(re.findall(r"[\w]+", (ROOT / "docs/reference/control-interface.md").read_text(encoding="utf-8")))
    main(["status", "--json", "--settings", str(live.settings)])
    status = json.loads(capsys.readouterr().out)
    described = [*status["devices"], *status["guests"], *status["controllers"], status["policy"], status]
    assert len(described) > 3
    assert {key for part in described for key in part} - words == set()


def anchors(path):
    """Of headings, as GitHub makes them, and those set with <a id>."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_have_targets(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name) if name else path
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target


def test_facts_that_the_code_names_are_in_the_index():
    index = set(
        re.findall(r"^\| \[(T[0-9]+|lab [0-9]+)\]\(#[\w-]+\) \| .+ \|$", FACTS.read_text("utf-8"), re.MULTILINE)
    )
    named = set()
    for source in [*(ROOT / "agent").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]:
        named |= set(re.findall(r"\b(T[0-9]{1,2}|lab [0-9]{1,2})\b(?! [a-z]*s\b)", source.read_text(encoding="utf-8")))
    assert len(index) > 60
    assert named - index == set()


def test_the_readme_begins_with_the_two_commands():
    first, second, *_ = re.findall(r"^```(\w*)\n(.*?)```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert (first, second) == (("sh", "./dev demo\n"), ("sh", "./dev test\n"))
