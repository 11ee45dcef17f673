"""The socket as a file: permissions, stale and living predecessors, and places where it cannot be."""

from __future__ import annotations

import grp
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.adapters.live_control import live

from xenplug.adapters import control_socket
from xenplug.adapters.control_socket import (
    AlreadyRunning,
    Peer,
    SocketFile,
    SocketProblem,
    close_listener,
    group_name,
    may_act,
    open_listener,
    peer_of,
)

SOURCES = Path(control_socket.__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root gives files away")


def as_user(uid: int, groups: list[int], act: str) -> str:
    """The output of a process with this user and these groups, and its errors."""
    script = (
        "import os, socket, sys, grp, tempfile; from pathlib import Path\n"
        "from xenplug.adapters.control_socket import SocketFile, open_listener\n"
        f"os.setgroups({groups}); os.setgid({uid}); os.setuid({uid})\n{act}"
    )
    argv, env = [sys.executable, "-c", script], {"PYTHONPATH": str(SOURCES)}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=30, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_the_mode_is_as_set_under_any_umask(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "c.sock"
    old = os.umask(mask)
    try:
        listener = open_listener(SocketFile(path))
    finally:
        os.umask(old)
    with listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert [file.name for file in tmp_path.iterdir()] == ["c.sock"]


def test_the_folder_is_made(tmp_path: Path) -> None:
    with open_listener(SocketFile(tmp_path / "run" / "c.sock")):
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755


@needs_root
def test_owner_and_group(tmp_path: Path) -> None:
    with open_listener(SocketFile(tmp_path / "c.sock", owner="daemon", group="games")):
        made = (tmp_path / "c.sock").stat()
        assert (made.st_uid, made.st_gid) == (1, grp.getgrnam("games").gr_gid)


@needs_root
def test_owner_and_group_by_number(tmp_path: Path) -> None:
    with open_listener(SocketFile(tmp_path / "c.sock", owner="4711", group="4712")):
        made = (tmp_path / "c.sock").stat()
        assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (4711, 4712, 0o660)


def test_unknown_owner_and_group(tmp_path: Path) -> None:
    for place in (SocketFile(tmp_path / "c", owner="no-such-user"), SocketFile(tmp_path / "c", group="no-such-group")):
        with pytest.raises(SocketProblem, match=r"no such .*; make it with"):
            open_listener(place)
    assert list(tmp_path.iterdir()) == []


def test_a_dead_agents_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    open_listener(SocketFile(path)).close()
    assert path.exists()
    with live(SocketFile(path)) as agent:
        assert agent.works()


@needs_root
def test_a_dead_agents_socket_that_root_may_not_connect_to_is_replaced(tmp_path: Path) -> None:
    """As in the unit: root without CAP_DAC_OVERRIDE and CAP_FOWNER."""
    path = tmp_path / "c.sock"
    script = (
        "from pathlib import Path; from xenplug.adapters.control_socket import SocketFile, open_listener\n"
        f"open_listener(SocketFile(Path({str(path)!r}), owner='4711', group='4712'))\n"
    )
    bounds = "-dac_override,-fowner"
    argv = ["setpriv", "--bounding-set", bounds, "--inh-caps", bounds, sys.executable, "-c", script]
    for _ in range(2):
        done = subprocess.run(argv, env={"PYTHONPATH": str(SOURCES)}, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (4711, 0o660)


def test_a_running_agent_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with live(SocketFile(path)) as agent:
        with pytest.raises(AlreadyRunning) as raised:
            open_listener(SocketFile(path))
        assert agent.works()
    assert f"another agent (process {os.getpid()}) answers here; stop it first" in str(raised.value)


def test_a_running_agent_that_accepts_no_connection(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(AlreadyRunning):
            open_listener(SocketFile(path))


@pytest.mark.parametrize("kind", ["file", "folder", "symlink"])
def test_a_file_that_is_not_a_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c.sock"
    if kind == "file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/etc/passwd")
    with pytest.raises(SocketProblem, match="not a socket is here; remove it"):
        open_listener(SocketFile(path))


def test_invalid_places(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SocketProblem, match="cannot make the control socket"):
        open_listener(SocketFile(tmp_path / "file" / "c.sock"))
    with pytest.raises(SocketProblem, match="too long for a socket"):
        open_listener(SocketFile(tmp_path / ("x" * 100)))


@needs_root
def test_a_failure_leaves_no_files() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, 65534, 65534)
        said = as_user(65534, [], f"open_listener(SocketFile(Path({name!r}, 'c.sock'), group='root'))")
        assert "cannot make the control socket (Operation not permitted); run the agent as root" in said
        assert list(Path(name).iterdir()) == []


def test_close_keeps_another_agents_socket(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    listener = open_listener(SocketFile(path))
    inode = path.stat().st_ino
    path.rename(tmp_path / "old")  # keeps the inode number in use
    with open_listener(SocketFile(path)):
        close_listener(listener, path, inode)
        assert path.exists()
    close_listener(listener, tmp_path / "gone" / "c.sock", inode)


def test_who_may_act(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with open_listener(SocketFile(path)):
        owner, group = path.stat().st_uid, path.stat().st_gid
        assert may_act(Peer(1, 0, frozenset()), path)
        assert may_act(Peer(1, owner, frozenset()), path)
        assert may_act(Peer(1, 4711, frozenset({9, group})), path)
        assert not may_act(Peer(1, 4711, frozenset({group + 1})), path)
    assert not may_act(Peer(1, 4711, frozenset({group})), tmp_path / "gone")


def test_peer_of() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_of(one) == Peer(os.getpid(), os.getuid(), frozenset({os.getgid(), *os.getgroups()}))


@needs_root
@pytest.mark.parametrize(("uid", "groups"), [(65534, os.getgrouplist("nobody", 65534)), (54321, [])])
def test_a_peer_of_very_many_groups_has_those_of_the_database(uid: int, groups: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with open_listener(SocketFile(Path(name, "c"), mode=0o666)) as listener:
            act = f"s = socket.socket(socket.AF_UNIX); s.connect({name!r} + '/c')"
            assert as_user(uid, list(range(3000, 3400)), act) == ""
            connection, _ = listener.accept()
            with connection:
                peer = peer_of(connection)
    assert peer.groups == frozenset({uid, *groups})


def test_group_name() -> None:
    assert group_name(0) == "root"
    assert group_name(54321) == "54321"
