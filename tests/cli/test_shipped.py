"""Shipped files agree with the code: completions, man pages, unit, policies, scenarios, docs."""

import io
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from tools.reference_pages import PAGES

from xenplug.cli import scenarios
from xenplug.cli.main import COMMANDS, parse
from xenplug.core.documents.document import schema
from xenplug.core.matching.match import KEYS
from xenplug.core.planning.steps import Cause, State
from xenplug.scenario.simulated_floor import play
from xenplug.service.policy_store import read_policy

ROOT = Path(__file__).parents[2]
POLICIES = sorted((ROOT / "policies").glob("*.yaml"))
SCENARIOS = sorted([*(ROOT / "policies/tests").glob("*.yaml"), *(ROOT / "tests/scenarios").glob("*.yaml")])
MANUAL = (ROOT / "packaging/man/xenplug.1").read_text()
COMPLETIONS = [ROOT / "packaging/completions/xenplug.bash", ROOT / "packaging/completions/_xenplug"]


def options(command):
    """The long options of a command, from its help text."""
    text = io.StringIO()
    with redirect_stdout(text), pytest.raises(SystemExit):
        parse([command, "--help"])
    return set(re.findall(r"^  (?:-\w.*, )?(--[\w-]+)", text.getvalue(), re.MULTILINE)) - {"--help"}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_shipped_policy_is_good_and_has_scenarios(path):
    assert read_policy(path).problems == ()
    assert len([s for s in SCENARIOS if s.name.startswith(f"{path.stem}-")]) >= 3


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path):
    [scenario] = scenarios.read([path])
    assert play(scenario, lambda _at, _line: None).failures == []


@pytest.mark.parametrize("path", COMPLETIONS, ids=lambda path: path.name)
def test_completions_know_every_command_and_option(path):
    words = set(re.findall(r"[\w-]+", path.read_text()))
    assert set(COMMANDS) <= words
    assert {o for command in COMMANDS for o in options(command)} <= words


def test_bash_completes_what_each_command_takes():
    for command in COMMANDS:
        asked = f"COMP_WORDS=(xenplug {command} --); COMP_CWORD=2; _xenplug"
        script = f'source "{COMPLETIONS[0]}"; {asked}; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) - {"--help"} == options(command), command


def test_the_manual_names_every_command():
    assert {c for c in COMMANDS if not re.search(rf"^\.It (Xo\n\.)?Cm {c}\b", MANUAL, re.MULTILINE)} == set()


@pytest.mark.parametrize("document", ["packaging/man/xenplug-policy.5", "docs/user/policy.md"])
def test_the_policy_is_described_in_full(document):
    words = set(re.findall(r"\w+", (ROOT / document).read_text()))
    policy = schema("policy")
    keys = {*policy["properties"], *policy["$defs"]["rule"]["properties"], *policy["$defs"]["guest"]["properties"]}
    assert keys | set(KEYS) | set(policy["$defs"]["kind"]["enum"]) <= words


def test_all_states_and_causes_are_described():
    words = set(re.findall(r"`(\w+)`", (ROOT / "docs/user/operating.md").read_text()))
    assert {*State, *Cause} <= words


def test_all_verbs_are_described():
    words = set(re.findall(r"\w+", (ROOT / "docs/user/scenarios.md").read_text()))
    scenario = schema("scenario")
    assert scenario["$defs"]["event"]["properties"].keys() <= words
    assert scenario["$defs"]["device"]["properties"].keys() <= words


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name):
    assert (ROOT / "docs/reference" / name).read_text() == PAGES[name](), "python -m tools.reference_pages"


def test_the_unit_starts_an_existing_command():
    unit = (ROOT / "packaging/xenplug.service").read_text()
    command = re.search(r"^ExecStart=/usr/bin/xenplug (.*)$", unit, re.MULTILINE)[1].split()
    assert subprocess.run([sys.executable, "-m", "xenplug", command[0], "--help"], check=False, env={
        "PYTHONPATH": str(ROOT / "agent")}, capture_output=True).returncode == 0  # fmt: skip


def test_the_policies_in_the_docs_load(tmp_path):
    from xenplug.core.policy.load import load

    text = (ROOT / "docs/user/recipes.md").read_text("utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 8
    for block in blocks:
        policy = block if block.startswith("version:") else f"version: 1\n{block}"
        assert load({"recipe": policy.encode()}).problems == (), block
