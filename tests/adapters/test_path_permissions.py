"""What users other than root can change on the way to a file: folders above it, symlinks, and what they point to."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from xenplug import daemon
from xenplug.adapters import policy_files
from xenplug.adapters.path_permissions import Walk, faults
from xenplug.adapters.programs import found_xl, unsafe
from xenplug.cli import common
from xenplug.cli.main import Failure, main
from xenplug.core.settings import Hook, Settings
from xenplug.daemon import Options
from xenplug.service.policy_store import read_policy

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
        (writable, ["a.yaml: users other than root may write this file (mode 646)"]),
        (of_a_group, ["a.yaml: users other than root may write this file (mode 664)"]),
        (folder_above, ["TOP: users other than root may write this folder (mode 777)"]),
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
    assert problems(etc / "loop") == []
    with pytest.raises(OSError, match="symbolic links"):
        Walk().open(etc / "loop")


@pytest.mark.parametrize(
    "way", ["../etc/a.yaml", "./a.yaml", "sub/../a.yaml", "on/a.yaml", "abs/a.yaml", "up/etc/a.yaml"]
)
def test_a_walk_ends_where_the_kernels_does(etc: Path, way: str) -> None:
    (etc / "sub").mkdir()
    (etc / "on").symlink_to(".")
    (etc / "abs").symlink_to(etc)
    (etc / "up").symlink_to("sub/../..")
    (etc / "a.yaml").write_text("here")
    with closing(Walk().open(etc / way)) as opened:
        assert os.pread(opened.number, 10, 0) == b"here"
        assert opened.place == Path(os.path.realpath(etc / way))


def test_a_walk_stays_below_its_root(etc: Path) -> None:
    """As in a chroot: absolute symlinks begin there, and nothing is above it."""
    (etc / "abs").symlink_to("/a.yaml")
    (etc / "up").symlink_to("../../../a.yaml")
    for name in ("/abs", "/up", "/../a.yaml"):
        with closing(Walk(etc).open(Path(name))) as opened:
            assert opened.place == Path("/a.yaml")
    assert [place for place, _ in faults([Path("/abs")], root=etc)] == []
    etc.chmod(0o777)
    assert [place for place, _ in faults([Path("/abs")], root=etc)] == [Path("/")]


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_only_files_and_folders_are_opened(etc: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(etc / "x")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(etc / "x"))
    else:
        (etc / "x").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a regular file"):
        Walk().open(etc / "x")


def test_no_descriptor_is_left_open(etc: Path) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    for name in ("a.yaml", "gone", "a.yaml/x", "..", "loop"):
        with suppress(OSError):
            Walk().open(etc / name).close()
    assert sorted(Path("/proc/self/fd").iterdir()) == before


SWAPS = """
import ctypes, sys
one, other = (name.encode() for name in sys.argv[1:])
rename = ctypes.CDLL(None).renameat2
while not rename(-100, one, -100, other, 2):
    pass
"""
"""Exchanges two names in one step (renameat2(2), RENAME_EXCHANGE), over and over again, until one is gone."""


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """What another process on the host may do at the same time."""
    process = subprocess.Popen([sys.executable, "-I", "-c", SWAPS, one, other])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def rounds(seen: Mapping[str, int], least: int = 300) -> Iterator[int]:
    """So many, and on until each of what is looked for was seen, for a minute at most."""
    end = time.monotonic() + 60
    number = 0
    while number < least or (not all(seen.values()) and time.monotonic() < end):
        yield number
        number += 1


def test_the_file_read_is_the_file_whose_permissions_were_checked(etc: Path) -> None:
    """In a sticky folder a user replaces root's file by their own, and removes it again."""
    etc.chmod(0o1777)
    (etc / "a.yaml").write_text("version: 1\nrules: []\n")
    (etc / "his").write_text("version: 1\nrules: [{match: {kind: mouse}, attach: his}]\n")
    os.chown(etc / "his", USER, USER)
    seen = {"good": 0, "refused": 0}
    with swapping(etc / "a.yaml", etc / "his"):
        for _ in rounds(seen):
            loaded = read_policy(etc / "a.yaml", guarded=True)
            assert loaded.policy is None or not loaded.policy.rules
            seen["refused" if loaded.policy is None else "good"] += 1
    assert min(seen.values()) > 0, seen


def test_the_settings_read_are_those_whose_permissions_were_checked(etc: Path) -> None:
    etc.chmod(0o1777)
    (etc / "a.yaml").write_text("version: 1\non_stop: keep\n")
    (etc / "his").write_text("version: 1\non_stop: detach\n")
    os.chown(etc / "his", USER, USER)
    args = argparse.Namespace(settings=etc / "a.yaml", guarded=True)
    seen = {"good": 0, "refused": 0}
    with swapping(etc / "a.yaml", etc / "his"):
        for _ in rounds(seen):
            try:
                assert common.settings_of(args).on_stop == "keep"
                seen["good"] += 1
            except Failure:
                seen["refused"] += 1
    assert min(seen.values()) > 0, seen


def test_a_folder_is_read_as_it_was_or_as_it_is(etc: Path) -> None:
    for name in ("one", "two"):
        (etc / name).mkdir()
        for number in range(6):
            (etc / name / f"{number}.yaml").write_text(name)
    seen = {"one": 0, "two": 0}
    with swapping(etc / "one", etc / "two"):
        for _ in rounds(seen):
            files, problems = policy_files.read(etc / "one")
            assert problems == []
            [text] = set(files.values())
            seen[text.decode()] += 1
    assert min(seen.values()) > 0, seen


def hooked(etc: Path, program: Path) -> list[str]:
    """The command line of an agent whose settings name a hook; there is no xenstored for it here."""
    text = f"version: 1\nstate: {etc}/state\npaths: {{xenstored: {etc}/none}}\nhooks: [{{run: [{program}]}}]\n"
    (etc / "a.yaml").write_text(text)
    return ["run", "--settings", str(etc / "a.yaml"), "--policy", str(etc / "p.yaml")]


@pytest.mark.parametrize("change", [given, writable, of_a_group, folder_above, link_to_a_users_folder])
@pytest.mark.parametrize("what", ["hook", "xl"])
def test_the_agent_runs_no_program_of_others(
    etc: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None], what: str
) -> None:
    own = etc.parent / "own"
    with tempfile.TemporaryDirectory() as name:
        own = Path(name)
        argv = hooked(own, etc / "a.yaml")
        if what == "xl":
            text = f"version: 1\nstate: {own}/state\npaths: {{xenstored: {own}/none}}\n"
            (own / "a.yaml").write_text(f"{text}toolstack: {{xl: {etc}/a.yaml}}\n")
        assert main(argv) == 1
        assert "not safe" not in capsys.readouterr().err
        change(etc)
        assert main(argv) == 1
        said = capsys.readouterr().err
        assert "so the agent does not run it; `ch" in said
        assert "the programs that the settings name (hooks, `toolstack.xl`) are not safe; fix this first" in said


def test_an_xl_on_path_is_looked_at_where_it_is_found(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (etc / "bin").mkdir()
    (etc / "bin/xl").touch(0o755)
    monkeypatch.setenv("PATH", f":.:relative:{etc}/none:{etc}/bin:/usr/bin")
    monkeypatch.chdir(etc / "bin")
    assert found_xl("xl") == f"{etc}/bin/xl"
    assert unsafe(Settings()) == []
    (etc / "bin").chmod(0o777)
    assert [str(place) for place, _ in unsafe(Settings())] == [f"{etc}/bin"]
    monkeypatch.setenv("PATH", ".:")
    assert found_xl("xl") == "xl"


def test_a_reload_refuses_programs_that_others_may_change_by_now(etc: Path) -> None:
    (etc / "p.yaml").write_text("version: 1\n")
    options, settings = Options(etc / "p.yaml"), Settings(hooks=(Hook((str(etc / "a.yaml"),)),))
    assert daemon.read_safe_policy(options, settings, guarded=True).policy
    (etc / "a.yaml").chmod(0o757)
    [problem] = daemon.read_safe_policy(options, settings, guarded=True).problems
    assert "so the agent does not run it; `chmod go-w" in problem.message


def test_the_agent_does_not_start_with_settings_of_others(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_the_agent_does_not_start_with_a_ledger_that_others_may_write(
    etc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds manual overrides."""
    state = theirs(etc)
    (etc / "a.yaml").write_text(f"version: 1\nstate: {state}\npaths: {{xenstored: {etc}/none}}\n")
    assert main(["run", "--settings", str(etc / "a.yaml")]) == 1
    said = capsys.readouterr().err
    assert f"{state}: the folder belongs to user {USER}" in said
    assert "the folder of the ledger (setting `state`) is not safe; fix this first" in said
    assert not (state / "agent.lock").exists()
