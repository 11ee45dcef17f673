"""However many connections and requests one user makes, other users keep theirs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.adapters.live_control import MONITOR, STATUS, Live, live, one

from xenplug.adapters.client import Client
from xenplug.adapters.control import Limits, SocketFile
from xenplug.adapters.control_slots import Places, RequestQueue, Seat, Work
from xenplug.adapters.control_socket import Peer


class Room:
    """Slots that the test counts."""

    def __init__(self, most: int) -> None:
        self.places = Places(most)
        self.left: list[str] = []

    def come(self, name: str, uid: int, acts: bool = False) -> Seat:
        seat = Seat(Peer(1, uid, frozenset()), acts, lambda: self.left.append(name))
        if not self.places.admit(seat):
            self.left.append("refused " + name)
        return seat


def test_the_user_with_most_connections_loses_the_idlest_one() -> None:
    room = Room(8)
    seats = [room.come(f"a{n}", 1000) for n in range(3)] + [room.come("b0", 1001)]
    room.places.used(seats[0])
    room.come("b1", 1001)
    assert room.left == ["a1"]
    room.come("c0", 1002)
    assert room.left[1:] in (["a2"], ["b0"])


def test_a_user_can_only_lose_their_own_connections() -> None:
    room = Room(8)
    room.come("b0", 1001)
    for number in range(100):
        room.come(f"a{number}", 1000)
    assert len(room.left) == 97
    assert "b0" not in room.left


def test_peers_that_may_act_always_get_a_slot() -> None:
    room = Room(8)
    for number in range(50):
        room.come(f"a{number}", 1000 + number)
    for number in range(20):
        room.come(f"root{number}", 0, acts=True)
    assert not any("refused root" in name for name in room.left)
    room.come("late", 1000)
    assert room.left[-1] == "refused late", "no reader drives out one who may act"


def test_a_call_that_acts_is_not_cut_off() -> None:
    room = Room(2)
    seats = [room.come(f"root{number}", 0, acts=True) for number in range(2)]
    with seats[0].at(Work.CALL):
        room.come("root2", 0, acts=True)
        assert room.left == ["root1"]
    with seats[0].at(Work.STREAM):
        room.come("root3", 0, acts=True)
        assert room.left == ["root1", "root2"]


def test_each_user_gets_a_turn() -> None:
    order: list[str] = []

    async def ask(turns: RequestQueue, name: str, uid: int, acts: bool = False) -> None:
        await turns.wait(Seat(Peer(1, uid, frozenset()), acts, lambda: None))
        order.append(name)

    async def run() -> None:
        turns = RequestQueue()
        first = asyncio.create_task(ask(turns, "first", 1000))
        await first
        waiting = [asyncio.create_task(ask(turns, f"a{n}", 1000)) for n in range(30)]
        waiting += [asyncio.create_task(ask(turns, f"b{n}", 1001)) for n in range(2)]
        waiting += [asyncio.create_task(ask(turns, f"root{n}", 0, acts=True)) for n in range(2)]
        await asyncio.sleep(0)
        waiting[3].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())
    assert order[:3] == ["first", "root0", "root1"]
    assert order[3:7] in (["a0", "b0", "a1", "b1"], ["b0", "a0", "b1", "a1"])
    assert len(order) == 1 + 29 + 2 + 2


def test_a_long_turn_is_followed_by_an_equal_pause() -> None:
    async def run() -> float:
        turns, seat = RequestQueue(), Seat(Peer(1, 0, frozenset()), True, lambda: None)
        loop = asyncio.get_running_loop()
        await turns.wait(seat)
        until = loop.time() + 0.1
        while loop.time() < until:
            pass
        ended = loop.time()
        await turns.wait(seat)
        return loop.time() - ended

    assert asyncio.run(run()) >= 0.09


CROWD = """
import os, socket, sys, time
path, uid, count, request = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode() + b"\\0"
os.setgroups([]); os.setgid(uid); os.setuid(uid)
lines = []
for _ in range(count):
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    lines.append(line)
    try:
        line.sendall(request)
        line.recv(1000)
    except OSError:
        pass
print("here", flush=True)
while "loop" in sys.argv:
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    line.close()
time.sleep(60)
"""


@contextmanager
def crowd(path: Path, uid: int, count: int, request: bytes, *more: str) -> Iterator[None]:
    """A process of this user that holds this many connections; with "loop" it opens new ones all the time."""
    argv = [sys.executable, "-c", CROWD, str(path), str(uid), str(count), request.rstrip(b"\0").decode(), *more]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"here\n"
            yield
        finally:
            process.kill()


@pytest.fixture
def agent() -> Iterator[Live]:
    """One that everyone may read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with live(SocketFile(Path(name) / "c.sock", mode=0o666), Limits(connections=64)) as running:
            yield running


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users: needs root")
@pytest.mark.parametrize("request_", [STATUS, MONITOR], ids=["idle", "following"])
def test_other_readers_get_a_slot(agent: Live, request_: bytes) -> None:
    with crowd(agent.path, 65534, 60, request_), crowd(agent.path, 65533, 1, STATUS):
        with agent.connect() as line:
            line.sendall(STATUS)
            assert "status" in one(line)["parameters"]
        assert agent.works()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users: needs root")
def test_readers_that_connect_all_the_time_do_not_block_root(agent: Live) -> None:
    with ExitStack() as stack:
        for uid in (65534, 65533):
            for _ in range(2):
                stack.enter_context(crowd(agent.path, uid, 10, STATUS, "loop"))
        for _ in range(30):
            assert Client(agent.path, timeout=20).call("Status")["status"]["version"] == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users: needs root")
@pytest.mark.parametrize(("long", "unread"), [(10**6, 0), (1, 10**6)], ids=["of all devices", "of one that has none"])
def test_a_long_history_on_many_connections_does_not_block_others(agent: Live, long: int, unread: int) -> None:
    """Each of these streams alone takes many seconds; no other client waits for the end of one."""
    agent.agent.long, agent.agent.unread = long, unread
    history = b'{"method":"org.xenplug.History","parameters":{},"more":true}'
    argv = [sys.executable, "-c", READER, str(agent.path), history.decode()]
    readers = [subprocess.Popen(argv) for _ in range(8)]
    try:
        for _ in range(20):
            assert Client(agent.path, timeout=20).call("Status")["status"]["version"] == "1"
        assert all(reader.poll() is None for reader in readers)
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


READER = """
import os, socket, sys
line = socket.socket(socket.AF_UNIX)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
line.connect(sys.argv[1])
line.sendall(sys.argv[2].encode() + b"\\0")
while line.recv(1 << 16):
    pass
"""
