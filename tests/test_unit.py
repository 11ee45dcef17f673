"""The systemd unit: SECURITY.md gives a reason for everything that `systemd-analyze security` reports as open."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "packaging/xenplug.service"
WORDS = {
    "CapabilityBoundingSet_CAP_DAC_FOWNER_IPC_OWNER": "CAP_DAC_READ_SEARCH",
    "CapabilityBoundingSet_CAP_CHOWN_FSETID_SETFCAP": "CAP_CHOWN",
    "SystemCallFilter_privileged": "@privileged",
    "UserOrDynamicUser": "User=",
    "RootDirectoryOrRootImage": "RootDirectory=",
}
"""The names in SECURITY.md's table that differ from the last part of systemd's name."""

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def analysed(*more: str) -> str:
    argv = ["systemd-analyze", "security", "--offline=true", *more, str(UNIT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if "Overall exposure" not in done.stdout and not done.stdout.startswith("["):
        pytest.skip(f"this systemd cannot analyse a file: {done.stderr.strip()}")
    return done.stdout


def section() -> str:
    text = (ROOT / "SECURITY.md").read_text()
    return text[text.index("## The systemd unit") :].partition("\n## ")[0]


def test_each_thing_that_stays_open_is_justified() -> None:
    table = "\n".join(line for line in section().splitlines() if line.startswith("|"))
    unnamed = []
    for entry in json.loads(analysed("--json=short")):
        if entry["set"] is False:
            name = entry["json_field"]
            word = WORDS.get(name) or re.sub(r"^(CapabilityBoundingSet|RestrictAddressFamilies)_", "", name)
            unnamed += [] if word in table else [entry["name"]]
    assert unnamed == []


def test_the_exposure_level_is_the_documented_one() -> None:
    documented = re.search(r"\*\*([0-9.]+) [A-Z]+\*\* \(systemd ([0-9]+)", section())
    assert documented
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    if version.split()[1] != documented[2]:
        pytest.skip(f"the figure is of systemd {documented[2]}")
    assert re.search(r"exposure level for xenplug\.service: ([0-9.]+)", analysed())[1] == documented[1]  # type: ignore[index]
