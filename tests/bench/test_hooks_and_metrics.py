"""Hooks and metrics of `xenplug run` itself, over the real udev, xl and xenstored."""

from __future__ import annotations

from pathlib import Path

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
