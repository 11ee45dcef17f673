"""The commands' client, against the live server and against programs that are not an agent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.adapters.live_control import Live, live

from xenplug.adapters import client as client_module
from xenplug.adapters.client import Client, ClientError, NoAgent, NoAnswer, RemoteError
from xenplug.adapters.control import SocketFile

SOURCES = Path(client_module.__file__).parents[2]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Live]:
    with live(SocketFile(tmp_path / "c.sock")) as server:
        yield server


def test_call(agent: Live) -> None:
    client = Client(agent.path)
    assert client.call("Status") == {"status": {"version": "1", "devices": []}}
    assert client.call("Attach", device="1-4", guest="win11") == {"message": "1-4 is in win11"}
    assert len(client.call("Devices")["devices"][0]["padding"]) == 500_000
    assert client.call("org.varlink.service.GetInfo")["product"] == "xenplug"


def test_stream(agent: Live) -> None:
    events = list(Client(agent.path).stream("History", device="1-4"))
    assert events == [{"event": {"n": number, "device": "1-4"}} for number in range(3)]


def test_a_stream_that_is_left_early(agent: Live) -> None:
    stream = Client(agent.path).stream("Monitor")
    assert next(stream) == {"status": {"n": 1}}
    stream.close()
    assert agent.agent.ended.wait(5)


def test_errors_of_the_agent(agent: Live) -> None:
    client = Client(agent.path)
    with pytest.raises(RemoteError, match="1-9 is protected: it holds /; nothing gives it away") as refused:
        client.call("Attach", device="1-9", guest="g")
    assert (refused.value.error, refused.value.cause) == ("org.xenplug.Refused", "protected")
    with pytest.raises(RemoteError, match=r"MethodNotImplemented \(org.xenplug.Pause\); are agent and command of"):
        client.call("Pause", scope="all")
    with pytest.raises(RemoteError, match="journalctl"):
        client.call("Explain", device="1-4")
    with pytest.raises(RemoteError, match="MethodNotFound"):
        list(client.stream("Nothing"))


def test_no_agent(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    text = f"no agent answers at {path}; start it with systemctl start xenplug (or xenplug run)"
    with pytest.raises(NoAgent) as raised:
        Client(path).call("Status")
    assert str(raised.value) == text
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NoAgent) as raised:
        list(Client(path).stream("Monitor"))
    assert str(raised.value) == text
    with pytest.raises(NoAgent, match=r"\(AF_UNIX path too long\)"):
        Client(tmp_path / ("x" * 200)).call("Status")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: needs root")
def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are for their user only
        Path(name).chmod(0o755)
        raised = [_told_to_nobody(Path(name) / f"{mode}.sock", mode) for mode in (0o660, 0o666)]
        (Path(name) / "closed").mkdir(mode=0o700)
        raised.append(_told_to_nobody(Path(name) / "closed" / "c.sock", 0o666))
    assert raised == [
        f"the agent at {name}/432.sock answers only root and group games;"
        " use sudo, or join the group: adduser USER games",
        "Attach is for root and members of group games; use sudo, or join the group: adduser USER games",
        f"the agent at {name}/closed/c.sock answers only root; use sudo",
    ]


def _told_to_nobody(path: Path, mode: int) -> str:
    script = (
        "import os, sys; from pathlib import Path; from xenplug.adapters.client import Client, NotPermitted\n"
        "import grp; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: Client(Path(sys.argv[1])).call('Attach', device='1-1', guest='g')\n"
        "except NotPermitted as error: print(error)"
    )
    with live(SocketFile(path, mode=mode, group="games")):
        argv = [sys.executable, "-c", script, str(path)]
        return subprocess.check_output(argv, text=True, env={"PYTHONPATH": str(SOURCES)}).strip()


@contextmanager
def impostor(path: Path, answer: bytes | None) -> Iterator[Client]:
    """Listens, and answers one request with these bytes; None: with silence."""
    silence = threading.Event()

    def serve() -> None:
        line, _ = listener.accept()
        with line:
            line.recv(1000)
            if answer is None:
                silence.wait(10)
            else:
                line.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield Client(path, timeout=0.2)
        silence.set()
        thread.join(10)


@pytest.mark.parametrize("answer", [b"hello\0", b"[]\0", b'{"parameters":3}\0', b"\xff\0", b"[" * 60000 + b"\0"])
def test_invalid_answers(tmp_path: Path, answer: bytes) -> None:
    with impostor(tmp_path / "c", answer) as client, pytest.raises(NoAnswer, match="not valid Varlink"):
        client.call("Status")


@pytest.mark.parametrize("answer", [b"", b'{"parameters":{}}'])
def test_a_connection_that_is_closed(tmp_path: Path, answer: bytes) -> None:
    with impostor(tmp_path / "c", answer) as client, pytest.raises(NoAnswer, match="closed the connection"):
        client.call("Status")


def test_a_stream_that_is_cut_off(tmp_path: Path) -> None:
    first = b'{"parameters":{"status":{"n":1}},"continues":true}\0'
    with impostor(tmp_path / "c", first) as client:
        stream = client.stream("Monitor")
        assert next(stream) == {"status": {"n": 1}}
        with pytest.raises(NoAnswer):
            next(stream)


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """As long as the timeout, and no longer; then the agent is busy, not gone."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "c"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(tmp_path / "c"))
            with pytest.raises(NoAnswer, match=r"is busy.*\(0\.2 s\).*try again"):
                Client(tmp_path / "c", timeout=0.2).call("Status")
            thread = threading.Thread(target=_answer_all, args=(listener, 2))
            waiting = threading.Timer(0.2, thread.start)
            waiting.start()
            assert Client(tmp_path / "c", timeout=20).call("Status") == {"here": True}
            waiting.join()
            thread.join()


def _answer_all(listener: socket.socket, count: int) -> None:
    for _ in range(count):
        line, _ = listener.accept()
        with line, suppress(OSError):
            line.sendall(b'{"parameters":{"here":true}}\0')
            line.settimeout(0.5)
            line.recv(1000)


def test_silence(tmp_path: Path) -> None:
    with impostor(tmp_path / "c", None) as client, pytest.raises(NoAnswer, match=r"did not answer within 0\.2 s"):
        client.call("Status")


def test_an_endless_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_REPLY_BYTES", 1000)
    with impostor(tmp_path / "c", b"x" * 5000) as client, pytest.raises(ClientError, match="more than 1000 bytes"):
        client.call("Status")


def test_the_client_is_quick_to_import() -> None:
    script = "import sys, xenplug.adapters.client; print(*sys.modules)"
    loaded = subprocess.check_output(
        [sys.executable, "-c", script], text=True, env={"PYTHONPATH": str(SOURCES)}
    ).split()
    assert not {"asyncio", "yaml", "jsonschema", "pyudev", "xenplug.adapters.control"} & set(loaded)
