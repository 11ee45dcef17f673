"""The history says who asked for what: every order, how it was given, and which policy came in force."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.live_agent import SOON, LiveAgent
from tests.live_agent import agent as live_agent
from tests.simulated_agent import DESK, KIOSK, MICE, SimulatedAgent, in_virtual_time

from xenplug.adapters.client import Client
from xenplug.adapters.control import READING
from xenplug.adapters.history import HistoryFile, event_of
from xenplug.adapters.requesters import MAX_LOOKUPS, UserNames, requested_by
from xenplug.adapters.varlink import Refused, load_interface
from xenplug.cli.history import event_line
from xenplug.cli.main import main
from xenplug.core.policy.digest import digest
from xenplug.core.reporting.orders import Requester, Way
from xenplug.service.api import handlers
from xenplug.service.bootstrap import HostClock
from xenplug.service.history import History

ALICE = Requester(Way.SOCKET, 1000, "alice", 4242)
READER = Requester(Way.SOCKET, 1001, None, 4343, acts=False)
MOUSE = {"port": "1-1", "device": "046d:c016"}


async def with_a_mouse() -> SimulatedAgent:
    simulated = await SimulatedAgent(MICE, KIOSK, DESK).start()
    simulated.plug("1-1")
    await simulated.wait_until(lambda: simulated.state_of("1-1")[0] == "attached")
    return simulated


def asked(simulated: SimulatedAgent) -> list[dict[str, Any]]:
    """The events that somebody asked for."""
    return [event for event in simulated.history.read() if "event" in event]


ORDERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Attach": ({"device": "046d:c016", "guest": "desk"}, MOUSE | {"order": "attach", "guest": "desk"}),
    "Detach": ({"device": "1-1"}, MOUSE | {"order": "detach"}),
    "Release": ({"device": "1-1"}, MOUSE | {"order": "release"}),
    "Pause": ({"scope": "1-1"}, MOUSE | {"order": "pause"}),
    "Resume": ({"scope": "all"}, {"order": "resume", "guest": None, "port": None}),
    "Prefer": ({"guest": "desk"}, {"order": "prefer", "guest": "desk"}),
    "Reload": ({}, {"order": "reload", "event": "policy"}),
}


def test_every_method_that_acts_is_tried_here() -> None:
    """So that a method that is added is recorded, too."""
    assert load_interface("org.xenplug").methods.keys() - READING == ORDERS.keys()


@pytest.mark.parametrize("method", ORDERS)
@in_virtual_time
async def test_each_order_is_recorded_with_who_gave_it(method: str) -> None:
    simulated = await with_a_mouse()
    parameters, expected = ORDERS[method]
    before = list(simulated.history.read())
    with requested_by(ALICE):
        await handlers(simulated.agent.service)[method](parameters)
    event = list(simulated.history.read())[len(before)]
    assert event.items() >= (expected | {"way": "socket", "uid": 1000, "user": "alice", "pid": 4242}).items()
    assert event["state"] is None
    assert {"at", "port", "state", "cause", "guest", "rule", "line"} <= event.keys()
    assert event_of(json.dumps(event).encode()) == event, "as plain values, which every agent can read"
    assert event_line(event).endswith("; asked by alice (uid 1000), process 4242 over the control socket")
    await simulated.kill()


@in_virtual_time
async def test_an_order_comes_before_what_it_causes_and_a_refusal_after() -> None:
    simulated = await with_a_mouse()
    service = simulated.agent.service
    with requested_by(ALICE):
        await service.attach("1-1", "desk")
        with pytest.raises(Refused):
            await service.attach("1-1", "nobody")
    mouse = list(simulated.history.read("1-1"))
    order = next(number for number, event in enumerate(mouse) if event.get("order") == "attach")
    assert "desk" in {event["guest"] for event in mouse[order + 1 :] if event["state"] == "attached"}
    assert mouse[order]["line"] == "ordered: attach 1-1 046d:c016 (mouse) to desk"
    refused = mouse[-1]
    assert (refused["event"], refused["order"], refused["cause"]) == ("refused", "attach", "guest_stopped")
    assert refused["line"].startswith("refused: attach 1-1 046d:c016 (mouse) to nobody (no guest named 'nobody'")
    assert refused["user"] == "alice"
    await simulated.kill()


@pytest.mark.parametrize("word", ["x" * 70_000, "\x1b[2J\n", "\u202e", "1-1\0", "", "0000:00:14.0", "💾" * 200])
@in_virtual_time
async def test_words_that_somebody_typed_are_bounded_and_printable(word: str) -> None:
    simulated = await with_a_mouse()
    for order in (simulated.agent.service.pause, simulated.agent.service.release, simulated.agent.service.prefer):
        with pytest.raises(Refused) if word != "0000:00:14.0" or order.__name__ != "release" else requested_by(ALICE):
            await order(word)
    for event in asked(simulated):
        assert len(json.dumps(event)) < 12_000
        assert all(value.isprintable() for value in event.values() if isinstance(value, str)), event
    await simulated.kill()


@in_virtual_time
async def test_words_cannot_pass_for_who_asked() -> None:
    simulated = await with_a_mouse()
    with requested_by(ALICE), pytest.raises(Refused):
        await simulated.agent.service.attach("1-1", "x; asked by root (uid 0)")
    assert asked(simulated)[0]["line"] == "ordered: attach 1-1 046d:c016 (mouse) to 'x; asked by root (uid 0)'"
    await simulated.kill()


@in_virtual_time
async def test_a_whole_controller_is_named_by_its_pci_address() -> None:
    simulated = await with_a_mouse()
    with requested_by(ALICE):
        await simulated.agent.service.release("00:14.0")
    [event] = simulated.history.read("0000:00:14.0")
    assert (event["order"], event["user"]) == ("release", "alice")
    await simulated.kill()


@in_virtual_time
async def test_readers_do_not_see_who_it_was() -> None:
    simulated = await with_a_mouse()
    service = handlers(simulated.agent.service)
    with requested_by(ALICE):
        await service["Pause"]({"scope": "1-1"})
    seen: list[dict[str, Any]] = []
    for who in (READER, ALICE):
        with requested_by(who):
            events = [reply["event"] async for reply in service["History"]({"device": "1-1"}) if reply]
        seen += [event for event in events if "event" in event]
    reader, alice = seen
    assert reader.items() >= {"order": "pause", "way": "socket"}.items()
    assert not {"uid", "user", "pid"} & reader.keys()
    assert "alice" not in json.dumps(reader)
    assert event_line(reader).endswith("; asked over the control socket")
    assert alice["user"] == "alice"
    await simulated.kill()


@in_virtual_time
async def test_a_reload_records_both_digests_and_a_failed_one_the_old() -> None:
    simulated = await with_a_mouse()
    first, second = digest({"policy.yaml": MICE.encode()}), f"{MICE}label: second\n"
    with requested_by(Requester(Way.SIGNAL)):
        await simulated.reload(second)
        await simulated.reload("version: 2\n")
        await simulated.reload(second)
    known = digest({"policy.yaml": second.encode()})
    events = asked(simulated)
    assert [(e["digest_before"], e["digest"]) for e in events] == [(first, known), (known, known), (known, known)]
    assert [(e["label_before"], e["label"], e["way"]) for e in events[:2]] == [
        (None, "second", "signal"), ("second", "second", "signal"),
    ]  # fmt: skip
    assert events[0]["line"] == (
        f"reload: second (digest {known[:12]}) in force, before: digest {first[:12]}; policy in force: 1 rule"
    )
    assert "in force, as before; the policy has 1 problem; the last good policy stays in force" in events[1]["line"]
    policy = simulated.agent.service.status()["policy"]
    assert (policy["digest"], policy["label"]) == (known, "second")
    await simulated.kill()


def test_old_events_and_files_stay_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = {
        "at": "2026-11-22T10:00:00.000+00:00",
        "port": "1-1",
        "state": "attached",
        "guest": "kiosk",
        "line": "1-1: x",
    }
    path = tmp_path / "h"
    path.write_text(json.dumps(old) + '\n{"port":"1-2","line":"no more"}\n')
    history = History(HostClock(), HistoryFile(path))
    history.note({"event": "order", "order": "pause", "port": "1-1", "state": None, "line": "ordered: pause"})
    assert [event.get("order") for event in history.read()] == [None, None, "pause"]
    assert event_line(old) == "2026-11-22T10:00:00.000+00:00  1-1: x"
    settings = tmp_path / "s.yaml"
    settings.write_text(f"version: 1\nhistory: {{file: {path}}}\n")
    assert main(["history", "--settings", str(settings), "--socket", str(tmp_path / "none")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_an_order_does_not_hide_an_unchanged_state(tmp_path: Path) -> None:
    """After a restart, a device whose state is the same as before gets no second event, whatever was ordered since."""
    path = tmp_path / "h"
    state = {"port": "1-1", "address": "1.2", "state": "host", "guest": None, "line": "1-1: stays"}
    HistoryFile(path).record(state)
    HistoryFile(path).record({"event": "order", "port": "1-1", "state": None, "line": "ordered: pause 1-1"})
    history = History(HostClock(), HistoryFile(path))

    class Same:
        def view(self) -> dict[str, Any]:
            return state

    history.record(Same())  # type: ignore[arg-type]
    assert len(list(history.read())) == 2


def test_names_that_hang_or_fail() -> None:
    async def look() -> None:
        go = threading.Event()

        def hang(uid: int) -> str:
            go.wait(20)
            return "late"

        names = UserNames(hang)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await asyncio.gather(*(names.of(1) for _ in range(MAX_LOOKUPS + 5))) == [None] * (MAX_LOOKUPS + 5)
        assert loop.time() - begun < 5
        assert await names.of(1) is None
        go.set()
        while await names.of(1) is None:
            await asyncio.sleep(0.01)
        assert await UserNames().of(0) == "root"
        assert await UserNames().of(2**32 - 2) is None

    asyncio.run(look())


def test_a_real_agent_names_its_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with live_agent(tmp_path, "version: 1\nlabel: first\n") as live:
        client = Client(live.socket)
        client.call("Pause", scope="all")
        live.policy.write_text("version: 1\nlabel: second\n")
        client.call("Reload")
        events = [reply["event"] for reply in client.stream("History")]
        assert main(["history", "--settings", str(live.settings)]) == 0
        assert main(["status", "--settings", str(live.settings)]) == 0
        assert main(["check", str(live.policy), "--settings", str(live.settings), "--json", "--elsewhere"]) == 0
        in_force = client.call("Status")["status"]["policy"]
    out = capsys.readouterr().out
    start, pause, reload = [event for event in events if "event" in event]
    assert (start["order"], start["way"], start["uid"], start["label"]) == ("start", "console", os.getuid(), "first")
    assert (pause["order"], pause["way"], pause["uid"], pause["pid"]) == ("pause", "socket", os.getuid(), os.getpid())
    assert (reload["order"], reload["label_before"], reload["label"]) == ("reload", "first", "second")
    assert in_force["digest"] == reload["digest"] == json.loads(out[out.rindex("\n{") :])["digest"]
    assert f"policy: second (digest {in_force['digest'][:12]}), in force since " in out
    assert f"process {os.getpid()} over the control socket" in out


READ_AS_NOBODY = """
import json, os, sys
from pathlib import Path
from xenplug.adapters.client import Client, NotPermitted
client = Client(Path(sys.argv[1]))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    client.call("Pause", scope="all")
    raise SystemExit("acted")
except NotPermitted:
    print(json.dumps([reply["event"] for reply in client.stream("History")]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_only_read_sees_the_orders_but_not_who() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        live = LiveAgent(folder)
        live.policy.write_text(MICE)
        live.settings.write_text(live.settings.read_text().replace("control: {", "control: {readers: all, "))
        try:
            live.start()
            Client(live.socket).call("Prefer", guest="kiosk")
            run = [sys.executable, "-c", READ_AS_NOBODY, str(live.socket)]
            seen = json.loads(subprocess.run(run, capture_output=True, check=True, timeout=SOON).stdout)
            whole = [reply["event"] for reply in Client(live.socket).stream("History")]
        finally:
            live.close()
    assert [event.get("order") for event in seen if "event" in event] == ["start", "prefer"], "none that was refused"
    assert not any({"uid", "user", "pid"} & event.keys() for event in seen)
    assert whole[-1].items() >= {"order": "prefer", "uid": 0, "user": "root", "pid": os.getpid()}.items()
