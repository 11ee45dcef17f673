"""Hooks and metrics of `xenplug run` itself, over the real udev, xl and xenstored."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from xenplug.core.policy.digest import digest

from .agent import AgentProcess
from .catalogue import MOUSE
from .player import Player
from .toolstack import BenchToolstack
from .usb import Testbed
from .wait import until

POLICY = 'version: 1\nrules: [{name: mouse, match: {device: "046d:c016"}, attach: kiosk}]\n'


def with_hook_and_metrics(agent: AgentProcess) -> AgentProcess:
    """The agent, with a hook and a metrics file in its settings."""
    hook = agent.folder / "hook"
    hook.write_text(f'#!/bin/sh\necho "$XENPLUG_EVENT $XENPLUG_PORT $XENPLUG_GUEST" >>{agent.folder}/hooked\n')
    hook.chmod(0o755)
    agent.more["hooks"] = [{"run": [str(hook)], "on": ["attached", "unplugged"]}]
    agent.more["metrics"] = {"file": str(agent.folder / "x.prom")}
    return agent


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_hooks_and_metrics(toolstack: BenchToolstack, testbed: Testbed, player: Player) -> None:
    player.boot(5, "kiosk", "pv", controllers=[("type=qusb", "version=2", "ports=4")])
    agent = with_hook_and_metrics(AgentProcess(toolstack, testbed, POLICY, "{}"))
    try:
        agent.start()
        testbed.plug("1-4", MOUSE)
        agent.wait_for("1-4", state="attached", guest="kiosk")
        until(lambda: "attached 1-4 kiosk\n" in text(agent.folder / "hooked"), 10, "the hook")
        metrics = agent.folder / "x.prom"
        until(lambda: 'xenplug_devices{state="attached"} 1\n' in text(metrics), 10, "the metrics")
        assert 'xenplug_xl_calls_total{command="usbdev-attach",ending="ok"} 1\n' in text(metrics)
        assert "xenplug_attach_seconds_count 1\n" in text(metrics)
        testbed.unplug("1-4")
        until(lambda: "unplugged 1-4" in text(agent.folder / "hooked"), 10, "the hook")
        assert agent.end() == 0
        assert 'xenplug_devices{state="attached"} 0\n' in text(metrics)
    finally:
        agent.end()


def test_which_policy_is_in_force_and_who_asked(toolstack: BenchToolstack, testbed: Testbed, player: Player) -> None:
    """Start, an order, a good and a failed reload by signal, the stop: in the history's file and in the metrics."""
    player.boot(5, "kiosk", "pv", controllers=[("type=qusb", "version=2", "ports=4")])
    agent = with_hook_and_metrics(AgentProcess(toolstack, testbed, f"{POLICY}label: first\n", "{}"))
    metrics, name = agent.folder / "x.prom", agent.policy.name
    second = f"{POLICY}label: second\n"
    try:
        agent.start()
        pid = agent.pid
        agent.client.call("Prefer", guest="kiosk")
        for content in (second, "version: 2\n"):
            agent.policy.write_text(content)
            os.kill(pid, signal.SIGHUP)
            until(lambda: agent.status()["policy"]["label"] == "second", 10, "the reload")
        until(lambda: "xenplug_policy_in_force 0\n" in text(metrics), 10, "the metrics")
        in_force = agent.status()["policy"]
        assert in_force["digest"] == digest({name: second.encode()})
        assert f'xenplug_policy_info{{digest="{in_force["digest"]}",label="second"}} 1\n' in text(metrics)
        assert agent.end() == 0
    finally:
        agent.end()
    events = [json.loads(line) for line in text(agent.folder / "history.jsonl").splitlines()]
    start, prefer, good, bad, stop = [event for event in events if "event" in event]
    assert (start["order"], start["way"], start["uid"], start["pid"]) == ("start", "console", os.getuid(), pid)
    assert (prefer["order"], prefer["way"], prefer["pid"]) == ("prefer", "socket", os.getpid())
    assert (good["label_before"], good["label"], good["way"]) == ("first", "second", "signal")
    assert (bad["digest_before"], bad["digest"]) == (in_force["digest"], in_force["digest"])
    assert (stop["order"], stop["way"], stop["line"]) == ("stop", "signal", "ordered: stop SIGTERM")
