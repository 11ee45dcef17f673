"""Devices that lie, before the whole agent: what they call themselves in everything that it writes, says or starts, and
what they claim to be.

The commands' output: tests/cli/test_hostile.py. How strings are sanitized: tests/core/usb/test_sanitize.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
from pathlib import Path
from typing import Any

from tests.recordings import HOSTILE

from .agent import AgentProcess
from .catalogue import MOUSE
from .player import Player
from .test_agent import kiosk
from .toolstack import BenchToolstack
from .usb import Testbed
from .usbspec import UsbDevice, UsbInterface
from .wait import until

__all__ = ["kiosk"]
POLICY = 'version: 1\nrules: [{name: all, match: {device: "dead:*"}, attach: kiosk}]'
NAMES = HOSTILE | {"mega": b"A\x1b[2J\n" * 200_000}
XL_WORD = re.compile(r"[a-z0-9=-]+")
SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="[^"\\]*"(,[a-z]+="[^"\\]*")*\})? [0-9.e+-]+')
PORTS = [f"1-{number}" for number in range(1, len(NAMES) + 1)]


def strings(value: Any) -> list[str]:
    """Every key and text in a JSON value."""
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in (key, *strings(inner))]
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    return [value] if isinstance(value, str) else []


def all_printable(*texts: str) -> None:
    for text in texts:
        assert text.isprintable(), text[:300]
        assert len(text) < 1000, text[:300]


def environments(folder: Path) -> list[dict[str, str]]:
    """xenplug's variables in each hook's environment."""
    found = []
    for file in folder.glob("*.env"):
        words = [entry.decode().partition("=") for entry in file.read_bytes().split(b"\0") if entry]
        found.append({key: value for key, _, value in words if key.startswith("XENPLUG_") and "BENCH" not in key})
    return found


def raw_status(path: Path) -> bytes:
    """The reply as it comes over the socket."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.sendall(b'{"method":"org.xenplug.Status"}\0')
        reply = b""
        while not reply.endswith(b"\0"):
            reply += line.recv(1 << 16)
    return reply[:-1]


def test_nothing_of_theirs_comes_out_raw(toolstack: BenchToolstack, testbed: Testbed, kiosk: Player) -> None:
    """Log, history, metrics, hooks' environment, socket, xl's arguments, xenstore."""
    agent = AgentProcess(toolstack, testbed, POLICY)
    hook = agent.folder / "hook"
    hook.write_text(f"#!/bin/sh\nenv -0 >{agent.folder}/$$.new && mv {agent.folder}/$$.new {agent.folder}/$$.env\n")
    hook.chmod(0o755)
    metrics = agent.folder / "xenplug.prom"
    agent.more = {"hooks": [{"run": [str(hook)]}], "metrics": {"file": str(metrics)}}
    kiosk.boot(6, "de\x1b[31msk\n0", "pv")
    agent.start()
    try:
        for port, (_, name) in zip(PORTS, NAMES.items(), strict=True):
            testbed.plug(port, UsbDevice(f"dead:{port[-1]:0>4}", product=name, manufacturer=name, serial=name))
        for port in PORTS:
            agent.wait_for(port, 20, state="attached", guest="kiosk", used=True)
        until(lambda: len(environments(agent.folder)) >= len(PORTS), 15, "the hooks")
        reply = raw_status(agent.socket)
    finally:
        agent.end()
    assert reply.isascii()
    all_printable(*strings(json.loads(reply)))
    all_printable(*agent.log.read_text().splitlines())
    events = [json.loads(line) for line in (agent.folder / "history.jsonl").read_bytes().splitlines()]
    assert {event["port"] for event in events} >= set(PORTS)
    all_printable(*strings(events))
    for found in environments(agent.folder):
        all_printable(*found.values())
    for line in metrics.read_text().splitlines():
        assert line.startswith("# ") or SAMPLE.fullmatch(line), line
    for call in toolstack.calls():
        assert all(XL_WORD.fullmatch(word) for word in call.argv), call
    base = "/local/domain/0/backend/qusb/5"
    held = [toolstack.store.read(f"{base}/{at}/port/{number}") for at in (0, 1) for number in range(1, 32)]
    assert set(filter(None, held)) == set(PORTS)


def test_a_pinned_device_that_changes_what_it_claims(
    toolstack: BenchToolstack, testbed: Testbed, kiosk: Player
) -> None:
    """Same tag, same strings, one more interface: the rule does not match it."""
    fingerprint = f"sha256:{hashlib.sha256(MOUSE.encode()).hexdigest()}"
    rule = f'{{match: {{device: "{MOUSE.tag}", descriptors: "{fingerprint}"}}, attach: kiosk}}'
    agent = AgentProcess(toolstack, testbed, f"version: 1\nrules: [{rule}]\ndefault: block\n")
    agent.start()
    try:
        testbed.plug("1-4", MOUSE)
        assert agent.wait_for("1-4", state="attached", guest="kiosk", used=True)["descriptors"] == fingerprint
        testbed.unplug("1-4")
        agent.wait_for("1-4", state="absent")
        testbed.plug("1-4", MOUSE.with_(interfaces=(*MOUSE.interfaces, UsbInterface((8, 6, 80)))))
        changed = agent.wait_for("1-4", state="blocked", cause="default", guest=None)
        assert changed["device"] == MOUSE.tag
        assert changed["descriptors"] != fingerprint
        assert not changed["authorized"]
    finally:
        agent.end()
    assert len(toolstack.calls("usbdev-attach")) == 1
