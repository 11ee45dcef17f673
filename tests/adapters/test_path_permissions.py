"""What users other than root can change on the way to a file: folders above it, symlinks, and what they point to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xenplug.adapters.path_permissions import LINKS, faults, way
from xenplug.cli.main import main

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
USER = 4711


@pytest.fixture
def etc() -> Iterator[Path]:
    """Root's folder with root's file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "etc")
        folder.mkdir(0o755)
        (folder / "a.yaml").touch(0o644)
        yield folder


def theirs(folder: Path) -> Path:
    """A user's folder, with a file of root's in it."""
    other = folder.parent / "home"
    other.mkdir()
    (other / "a.yaml").touch(0o644)
    os.chown(other, USER, USER)
    return other


def problems(path: Path) -> list[str]:
    return [f"{place.name}: {words.partition(',')[0].partition(';')[0]}" for place, words in faults([path])]


def test_roots_own(etc: Path) -> None:
    assert problems(etc / "a.yaml") == []
    assert problems(etc) == []
    assert problems(etc / "gone.yaml") == []


def given(etc: Path) -> None:
    os.chown(etc / "a.yaml", USER, 0)


def writable(etc: Path) -> None:
    (etc / "a.yaml").chmod(0o646)


def of_a_group(etc: Path) -> None:
    os.chown(etc / "a.yaml", 0, USER)
    (etc / "a.yaml").chmod(0o664)


def folder_above(etc: Path) -> None:
    etc.parent.chmod(0o777)


def link_to_a_users_folder(etc: Path) -> None:
    (etc / "a.yaml").unlink()
    (etc / "a.yaml").symlink_to(theirs(etc) / "a.yaml")


def link_over_a_users_folder(etc: Path) -> None:
    """It ends at a file of root's; on the way the user may point it anywhere."""
    home = theirs(etc)
    (etc / "real.yaml").touch(0o644)
    (home / "on").symlink_to(etc / "real.yaml")
    (etc / "a.yaml").unlink()
    (etc / "a.yaml").symlink_to("../home/on")


def a_users_link_in_a_sticky_folder(etc: Path) -> None:
    etc.chmod(0o1777)
    (etc / "real.yaml").touch(0o644)
    (etc / "a.yaml").unlink()
    (etc / "a.yaml").symlink_to("real.yaml")
    os.chown(etc / "a.yaml", USER, USER, follow_symlinks=False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (given, ["a.yaml: the file belongs to user 4711"]),
        (writable, ["a.yaml: others than root may write this file (mode 646)"]),
        (of_a_group, ["a.yaml: others than root may write this file (mode 664)"]),
        (folder_above, ["TOP: others than root may write this folder (mode 777)"]),
        (link_to_a_users_folder, ["home: the folder belongs to user 4711"]),
        (link_over_a_users_folder, ["home: the folder belongs to user 4711"]),
        (a_users_link_in_a_sticky_folder, ["a.yaml: the symlink belongs to user 4711"]),
    ],
)
def test_unsafe_permissions_are_reported(etc: Path, change: Callable[[Path], None], expected: list[str]) -> None:
    change(etc)
    assert problems(etc / "a.yaml") == [line.replace("TOP", etc.parent.name) for line in expected]


def test_links_without_end(etc: Path) -> None:
    (etc / "loop").symlink_to("loop")
    assert len(list(way(etc / "loop"))) < LINKS * 4
    assert problems(etc / "loop") == []


def test_the_agent_does_not_start_over_settings_of_others(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They name hooks, which it would run as root."""
    settings = etc / "a.yaml"
    settings.write_text(f"version: 1\nstate: {etc}/state\npaths: {{xenstored: {etc}/none}}\n")
    os.chown(settings, USER, 0)
    assert main(["run", "--settings", str(settings)]) == 1
    said = capsys.readouterr().err
    assert f"{settings}: the file belongs to user {USER}, not to root, so the agent does not read it; `chown" in said
    assert not (etc / "state").exists()
    os.chown(settings, 0, 0)
    assert main(["run", "--settings", str(settings)]) == 1  # there is no xenstored here
    assert "belongs to" not in capsys.readouterr().err


def test_nor_over_a_ledger_that_others_may_write(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It holds manual overrides."""
    state = theirs(etc)
    (etc / "a.yaml").write_text(f"version: 1\nstate: {state}\npaths: {{xenstored: {etc}/none}}\n")
    assert main(["run", "--settings", str(etc / "a.yaml")]) == 1
    said = capsys.readouterr().err
    assert f"{state}: the folder belongs to user {USER}" in said
    assert "the folder of the ledger (setting `state`) is not safe; mend that first" in said
    assert not (state / "agent.lock").exists()
