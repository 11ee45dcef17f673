"""The control server over its real socket: the wire format, what clients send wrong, and what it costs the agent."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.adapters.live_control import MONITOR, STATUS, Live, live, one, replies

from xenplug.adapters.control import Limits, SocketFile

SERVICE = "org.varlink.service"
QUICK = Limits(message=65536, connections=8, message_time=0.3, write_time=0.3)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Live]:
    with live(SocketFile(tmp_path / "c.sock"), QUICK) as server:
        yield server


def call(method: str, parameters: Any = None, **flags: Any) -> bytes:
    message = {"method": method, **flags} | ({} if parameters is None else {"parameters": parameters})
    return json.dumps(message).encode() + b"\0"


def fault(name: str, **parameters: str) -> dict[str, Any]:
    return {"error": f"{SERVICE}.{name}", "parameters": parameters}


# --- the wire format


def test_service_interface(agent: Live) -> None:
    [info] = agent.ask(call(f"{SERVICE}.GetInfo"))
    assert set(info["parameters"]) == {"vendor", "product", "version", "url", "interfaces"}
    assert info["parameters"]["interfaces"] == [SERVICE, "org.xenplug"]
    for name in info["parameters"]["interfaces"]:
        [described] = agent.ask(call(f"{SERVICE}.GetInterfaceDescription", {"interface": name}))
        assert f"\ninterface {name}\n" in described["parameters"]["description"]


def test_requests_of_a_connection_are_answered_in_order(agent: Live) -> None:
    many = [call("org.xenplug.Attach", {"device": f"1-{number}", "guest": "g"}) for number in (1, 2)]
    first, second, third = agent.ask(b"".join(many) + STATUS)
    assert first["parameters"]["message"] == "1-1 is in g"
    assert second["parameters"]["message"] == "1-2 is in g"
    assert "status" in third["parameters"]


def test_connections_do_not_wait_for_each_other(agent: Live) -> None:
    with agent.connect() as slow:
        slow.sendall(call("org.xenplug.Attach", {"device": "1-1", "guest": "g"}))
        assert agent.agent.attaching.wait(5)
        assert agent.works()
        assert one(slow)["parameters"]["message"] == "1-1 is in g"


def test_a_request_in_pieces(agent: Live) -> None:
    with agent.connect() as line:
        for byte in STATUS:
            line.sendall(bytes([byte]))
        assert "status" in one(line)["parameters"]


def test_a_stream_says_continues_until_its_last_reply(agent: Live) -> None:
    got = agent.ask(call("org.xenplug.History", {"device": "1-4"}, more=True) + STATUS)
    assert [reply.get("continues") for reply in got] == [True, True, True, None, None]
    assert [reply["parameters"].get("event", {}).get("n") for reply in got[:4]] == [0, 1, 2, None]
    assert "status" in got[4]["parameters"]


def test_oneway_is_done_and_not_answered(agent: Live) -> None:
    attach = call("org.xenplug.Attach", {"device": "1-1", "guest": "g"}, oneway=True)
    wrong = call("org.xenplug.Attach", {"device": 1}, oneway=True) + call("org.nobody.X", 5, oneway=True)
    [reply] = agent.ask(attach + wrong + STATUS)
    assert "status" in reply["parameters"]
    assert agent.agent.calls == [("Attach", {"device": "1-1", "guest": "g"})]


def test_more_of_a_single_reply_is_a_single_reply(agent: Live) -> None:
    [reply] = agent.ask(call("org.xenplug.Status", more=True))
    assert "continues" not in reply


def test_optional_parameters(agent: Live) -> None:
    for parameters, answer in ((None, "None"), ({}, "None"), ({"guest": None}, "None"), ({"guest": "g"}, "g")):
        [reply] = agent.ask(call("org.xenplug.Prefer", parameters))
        assert reply["parameters"]["message"] == answer


def test_refused(agent: Live) -> None:
    [reply] = agent.ask(call("org.xenplug.Attach", {"device": "1-9", "guest": "g"}))
    assert reply["error"] == "org.xenplug.Refused"
    assert reply["parameters"] == {
        "cause": "protected",
        "reason": "1-9 is protected: it holds /; nothing gives it away",
    }


# --- invalid requests

FAULTS = {
    "no interface": (call("Status"), fault("InterfaceNotFound", interface="")),
    "empty": (call(""), fault("InterfaceNotFound", interface="")),
    "another interface": (call("org.nobody.Status"), fault("InterfaceNotFound", interface="org.nobody")),
    "another method": (call("org.xenplug.Fly"), fault("MethodNotFound", method="org.xenplug.Fly")),
    "ends in a dot": (call("org.xenplug."), fault("MethodNotFound", method="org.xenplug.")),
    "not built": (
        call("org.xenplug.Pause", {"scope": "all"}),
        fault("MethodNotImplemented", method="org.xenplug.Pause"),
    ),
    "upgrade": (call("org.xenplug.Status", upgrade=True), fault("MethodNotImplemented", method="org.xenplug.Status")),
    "unknown description": (
        call(f"{SERVICE}.GetInterfaceDescription", {"interface": "x"}),
        fault("InterfaceNotFound", interface="x"),
    ),
    "stream without more": (call("org.xenplug.Monitor"), fault("ExpectedMore")),
    "missing": (call("org.xenplug.Attach", {"device": "1-1"}), fault("InvalidParameter", parameter="guest")),
    "unknown": (call("org.xenplug.Status", {"x": 1}), fault("InvalidParameter", parameter="x")),
    "number": (call("org.xenplug.Explain", {"device": 1.10}), fault("InvalidParameter", parameter="device")),
    "null": (call("org.xenplug.Explain", {"device": None}), fault("InvalidParameter", parameter="device")),
    "list": (call("org.xenplug.Explain", {"device": ["1-1"]}), fault("InvalidParameter", parameter="device")),
    "NUL": (call("org.xenplug.Explain", {"device": "1-1\0"}), fault("InvalidParameter", parameter="device")),
    "half a surrogate": (
        call("org.xenplug.Explain", {"device": "\ud83d"}),
        fault("InvalidParameter", parameter="device"),
    ),
    "parameters a list": (call("org.xenplug.Status", []), fault("InvalidParameter", parameter="parameters")),
    "parameters a text": (call("org.xenplug.Status", "x"), fault("InvalidParameter", parameter="parameters")),
    "parameters false": (call("org.xenplug.Status", False), fault("InvalidParameter", parameter="parameters")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_answered_and_the_connection_stays(agent: Live, name: str) -> None:
    sent, expected = FAULTS[name]
    first, second = agent.ask(sent + STATUS)
    assert first == expected
    assert "status" in second["parameters"]


CLOSED = {
    "nothing": b"",
    "only NUL": b"\0",
    "no NUL": STATUS[:-1],
    "not JSON": b"hello\0",
    "HTTP": b"GET / HTTP/1.1\r\n\r\n\0",
    "not UTF-8": b'{"method":"\xff\xfe"}\0',
    "UTF-16": '{"method":"org.xenplug.Status"}'.encode("utf-16")[:7] + b"\0",
    "an array": b"[]\0",
    "a number": b"1\0",
    "null": b"null\0",
    "no method": b"{}\0",
    "method a number": b'{"method":1}\0',
    "more a text": b'{"method":"org.xenplug.Status","more":"yes"}\0',
    "oneway a number": b'{"method":"org.xenplug.Status","oneway":1}\0',
    "oneway and more": b'{"method":"org.xenplug.Monitor","oneway":true,"more":true}\0',
    "deep": b"[" * 60000 + b"\0",
    "deep objects": b'{"a":' * 12000 + b"\0",
    "huge number": b'{"method":' + b"9" * 50000 + b"}\0",
    "oversized": b'{"method":"' + b"a" * 70000 + b'"}\0',
    "oversized, unended": b"x" * 1_000_000,
}


@pytest.mark.parametrize("name", CLOSED)
def test_an_invalid_message_closes_the_connection(agent: Live, name: str) -> None:
    assert agent.ask(CLOSED[name] + (STATUS if CLOSED[name].endswith(b"\0") else b"")) == []
    assert agent.works()


def test_a_method_name_never_reaches_the_reader_raw(agent: Live) -> None:
    with agent.connect() as line:
        line.sendall(call("org.xenplug.\x1b[2J\u202e"))
        assert line.recv(1000).isascii()


def test_a_handlers_bug_is_an_error_reply_and_a_logged_traceback(agent: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        bugs = agent.ask(call("org.xenplug.Explain", {"device": "1-1"}) + call("org.xenplug.Reload") + STATUS)
    assert [reply.get("error") for reply in bugs] == [*["org.xenplug.InternalError"] * 2, None]
    assert "ZeroDivisionError" in caplog.text


# --- the load of clients


def test_an_incomplete_message_has_a_time(agent: Live) -> None:
    with agent.connect() as line:
        line.sendall(STATUS[:5])
        began = time.monotonic()
        assert replies(line) == []
        assert time.monotonic() - began < 5


def test_a_client_may_be_idle_between_requests(agent: Live) -> None:
    with agent.connect() as line:
        time.sleep(0.5)  # more than message_time
        line.sendall(STATUS)
        assert "status" in one(line)["parameters"]


def test_a_client_that_does_not_read_is_dropped(agent: Live) -> None:
    big = call("org.xenplug.Devices")
    with agent.connect() as line:
        line.sendall(big * 100)
        time.sleep(0.8)  # more than write_time
        assert agent.works()
        data = 0
        with suppress(ConnectionResetError):
            while got := line.recv(2**20):
                data += len(got)
        assert data < 3 * 500_000  # 100 replies asked for


def test_connections_are_bounded(agent: Live) -> None:
    held = [agent.connect() for _ in range(8)]
    for line in held:
        line.sendall(STATUS)
        assert "status" in one(line)["parameters"]
    held[0].sendall(STATUS)
    one(held[0])
    assert agent.works()
    assert replies(held[1]) == [], "the idlest gave way"
    for line in [held[0], *held[2:]]:
        line.sendall(STATUS)
        assert "status" in one(line)["parameters"]
    for line in held:
        line.close()


def test_a_flood_of_requests_leaves_the_agent_time(agent: Live) -> None:
    with agent.connect() as line:
        threading.Thread(target=_flood, args=(line,), daemon=True).start()
        began = time.monotonic()
        for _ in range(5):
            assert agent.works()
        assert time.monotonic() - began < 2


def _flood(line: socket.socket) -> None:
    with suppress(OSError):  # the test is over
        line.sendall(STATUS * 3000)


def test_a_call_is_completed_when_its_client_disconnects(agent: Live) -> None:
    with agent.connect() as line:
        line.sendall(call("org.xenplug.Attach", {"device": "1-1", "guest": "g"}))
        assert agent.agent.attaching.wait(5)
    assert agent.agent.attached.wait(5)
    assert agent.works()


def test_a_quiet_stream_ends_when_its_client_disconnects(agent: Live) -> None:
    with agent.connect() as line:
        line.sendall(MONITOR + STATUS * 10)
        assert one(line) == {"parameters": {"status": {"n": 1}}, "continues": True}
        assert agent.agent.monitoring.wait(5)
        assert not agent.agent.ended.is_set()
    assert agent.agent.ended.wait(5)


def test_a_quiet_stream_stays_when_its_client_only_ends_sending(agent: Live) -> None:
    with agent.connect() as line:
        line.sendall(MONITOR)
        line.shutdown(socket.SHUT_WR)
        one(line)
        assert not agent.agent.ended.wait(0.2)
    assert agent.agent.ended.wait(5)


def test_stop_ends_streams_and_removes_the_socket(tmp_path: Path) -> None:
    with live(SocketFile(tmp_path / "c.sock")) as agent:
        line = agent.connect()
        line.sendall(MONITOR)
        one(line)
    assert replies(line) == []
    line.close()
    assert list(tmp_path.iterdir()) == []


# --- who may act


AS_NOBODY = """
import os, socket, sys
path, request, *groups = sys.argv[1:]
os.setgroups([int(group) for group in groups])
os.setgid(65534)
os.setuid(65534)  # here, not by the caller: the interpreter itself may lie where nobody can read
line = socket.socket(socket.AF_UNIX)
line.connect(path)
line.sendall(request.encode() + b"\\0")
print(line.recv(9999).rstrip(b"\\0").decode())
"""


def as_nobody(path: Path, request: bytes, *groups: str) -> dict[str, Any]:
    """The reply to another user's process, or {"failed": its last words}."""
    argv = [sys.executable, "-c", AS_NOBODY, str(path), request.rstrip(b"\0").decode(), *groups]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout) if done.stdout.strip() else {}


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: needs root")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others can enter; pytest's own are for their user only."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@needs_root
def test_acting_is_for_root_and_the_group(open_folder: Path) -> None:
    attach = call("org.xenplug.Attach", {"device": "1-1", "guest": "g"})
    with live(SocketFile(open_folder / "c.sock", mode=0o666, group="daemon")) as agent:
        refused = as_nobody(agent.path, attach)
        assert refused["error"] == "org.xenplug.Refused"
        assert refused["parameters"]["cause"] == "not_permitted"
        assert "group daemon" in refused["parameters"]["reason"]
        assert "status" in as_nobody(agent.path, STATUS)["parameters"]
        assert "parameters" in as_nobody(agent.path, attach, "1")
        assert "parameters" in agent.ask(attach)[0]
        assert len(agent.agent.calls) == 2


@needs_root
def test_readers_cannot_block_peers_that_may_act(open_folder: Path) -> None:
    with live(SocketFile(open_folder / "c.sock", mode=0o666, group="daemon"), QUICK) as agent:
        held = [agent.connect() for _ in range(8)]
        for line in held:
            line.sendall(STATUS)
            one(line)
        refused = as_nobody(agent.path, STATUS)
        assert not refused or re.match("ConnectionReset|BrokenPipe", refused["failed"])
        assert agent.works()
        for line in held:
            line.close()


@needs_root
def test_the_mode_keeps_others_out(open_folder: Path) -> None:
    with live(SocketFile(open_folder / "c.sock")) as agent:
        assert "PermissionError" in as_nobody(agent.path, STATUS)["failed"]


# --- random input


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=300), st.lists(st.sampled_from([STATUS, b"{", b"\0", b'{"method":', b"\xff"])).map(b"".join)
    )
)
def test_any_bytes(agent: Live, data: bytes) -> None:
    agent.ask(data)
    assert agent.works()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(["Status", "Devices", "Attach", "Prefer", "History", "GetInfo", ""])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=NAMES,
    parameters=JSON,
    flags=st.dictionaries(st.sampled_from(["more", "oneway", "upgrade", "x"]), JSON | st.booleans()),
)
def test_any_json(agent: Live, method: str, parameters: Any, flags: dict[str, Any]) -> None:
    agent.ask(call(f"org.xenplug.{method}", parameters, **flags))
    assert agent.works()
