"""The socket file of the control socket, and its peers: the system calls for control.py.

`open_listener` creates the socket with its final permissions before any process can connect, replaces a socket that a
dead agent left, and refuses if a running agent answers there. `peer_of` reads a peer's credentials from the kernel. If
two agents start at the same time, files.lock, which the daemon takes first, keeps them apart.
"""

from __future__ import annotations

import array
import grp
import os
import pwd
import shutil
import socket
import stat
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from xenplug.adapters.host_system import this_host

SO_PEERGROUPS = 59
"""The peer's supplementary groups, Linux 4.13 (include/uapi/asm-generic/socket.h); the socket module lacks it."""
PATH_BYTES = 97
"""The maximum of a Unix address (107 bytes), less the private folder in which the socket is created."""


class SocketProblem(Exception):
    """The control socket cannot be made; the text says why and what to do."""


class AlreadyRunning(SocketProblem):
    """A running agent answers at this path."""


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The path of the socket, its mode, owner and group. Without owner or group: those of the agent's process."""

    path: Path
    mode: int = 0o660
    owner: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """A client's process at the time it connected."""

    pid: int
    uid: int
    groups: frozenset[int]


def open_listener(place: SocketFile) -> socket.socket:
    """A non-blocking listening socket at this path. Raises SocketProblem."""
    path = place.path
    if len(os.fsencode(path)) > PATH_BYTES:
        raise SocketProblem(f"{path}: too long for a socket (more than {PATH_BYTES} bytes); name a shorter path")
    owner, group = _user_id(place.owner), _group_id(place.group)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _refuse_running(path)
        return _listen(path, place.mode, owner, group)
    except OSError as error:
        raise SocketProblem(
            f"{path}: cannot make the control socket ({error.strerror}); run the agent as root, or set another path,"
            " owner and group for the socket"
        ) from error


def _listen(path: Path, mode: int, owner: int, group: int) -> socket.socket:
    """Create it in a private folder (mkdtemp: 0700), so that no other process can reach or replace it before it is
    ready.
    """
    private = Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made = private / path.name
        listener.bind(os.fspath(made))
        made.chmod(mode)  # before chown: the hardened agent may not change another user's file
        os.chown(made, owner, group)
        listener.setblocking(False)
        listener.listen(64)
        made.rename(path)
    except OSError:
        listener.close()
        raise
    finally:
        shutil.rmtree(private, ignore_errors=True)
    return listener


def _refuse_running(path: Path) -> None:
    """Raise if an agent answers at `path`, or something other than a socket is there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketProblem(f"{path}: a file that is not a socket is here; remove it or set another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:  # its queue of connections is full: it runs
            raise AlreadyRunning(_already(path, "")) from None
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except PermissionError:
            return  # another owner's socket, and no CAP_DAC_OVERRIDE; files.lock finds a running agent
        raise AlreadyRunning(_already(path, f" (process {_credentials(probe)[0]})"))


def _already(path: Path, who: str) -> str:
    return (
        f"{path}: another agent{who} answers here; stop it first ({this_host().service('stop')}), or set another path"
    )


def close_listener(listener: socket.socket, path: Path, inode: int) -> None:
    """Close, and remove the socket file if it is still this listener's."""
    listener.close()
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except OSError:
        return  # the socket or its folder is gone already


def may_act(peer: Peer, path: Path) -> bool:
    """Whether a peer may do more than read: root, the socket's owner, or a member of the socket's group."""
    try:
        socket_file = path.stat()
    except OSError:
        return peer.uid == 0
    return peer.uid in (0, socket_file.st_uid) or socket_file.st_gid in peer.groups


def peer_of(connection: socket.socket) -> Peer:
    """The other end's credentials at the time it connected. Raises OSError if they cannot be read."""
    pid, uid, gid = _credentials(connection)
    return Peer(pid, uid, frozenset({gid, *_supplementary(connection, uid)}))


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    """pid, uid, gid: struct ucred of unix(7)."""
    pid, uid, gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


def _supplementary(connection: socket.socket, uid: int) -> list[int]:
    """The groups of the process; from the group database only if the kernel cannot report them (over 256 groups)."""
    try:
        return array.array("I", connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)).tolist()
    except OSError:
        try:
            user = pwd.getpwuid(uid)
        except KeyError:
            return []
        return os.getgrouplist(user.pw_name, user.pw_gid)


def group_name(gid: int) -> str:
    """The group's name, or its number if it has no name."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _user_id(name: str | None) -> int:
    if name is None or (name.isascii() and name.isdigit()):
        return int(name or -1)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise SocketProblem(f"socket owner {name}: no such user; make it with {this_host().make_user(name)}") from None


def _group_id(name: str | None) -> int:
    if name is None or (name.isascii() and name.isdigit()):
        return int(name or -1)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise SocketProblem(
            f"socket group {name}: no such group; make it with {this_host().make_group(name)}"
        ) from None
