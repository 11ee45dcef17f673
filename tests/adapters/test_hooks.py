"""Hooks as processes: what they get, how many run, how long; and the metrics' file."""

import asyncio
import logging
import time
from pathlib import Path

import pytest
from tests.core.make import device, planned, policy, snapshot

from xenplug.adapters import hooks as module
from xenplug.adapters.hooks import Hooks
from xenplug.adapters.metrics import CountedCommands
from xenplug.adapters.metrics import Metrics as MetricsFile
from xenplug.core.protocols import Result
from xenplug.core.reporting.changes import Change
from xenplug.core.settings import Hook, MetricsSettings, Settings, TimeSettings
from xenplug.hooks_and_metrics import Extras

RULES = policy("rules: [{name: mice, match: {kind: mouse}, attach: kiosk}]")


@pytest.fixture(autouse=True)
def log_reaches_caplog(monkeypatch):
    """A scenario that ran before may have left the log without propagation."""
    monkeypatch.setattr(logging.getLogger("xenplug"), "propagate", True)


def change(port="1-1", product="Wheel"):
    [verdict] = planned(snapshot(device(port, product=product)), RULES).verdicts
    return Change(None, verdict)


def script(folder, text):
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def others_done():
    """Wait until this is the loop's only task: all hooks have ended."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


def ran(hooks, changes, seconds=10.0):
    async def work():
        made = Hooks(hooks, seconds)
        for one in changes:
            made.record(one)
        await others_done()

    asyncio.run(work())


def test_a_hook_gets_its_arguments_and_the_environment(tmp_path):
    hook = script(tmp_path, f'echo "$1|$XENPLUG_EVENT|$XENPLUG_NAME|$XENPLUG_WANTED" >>{tmp_path}/out')
    ran([Hook((hook, "a b $(id)"))], [change(product='$(touch /tmp/x) "; rm')])
    text = (tmp_path / "out").read_text()
    assert text == 'a b $(id)|pending|1-1 046d:c016 ($(touch /tmp/x) "; rm)|kiosk\n'


def test_only_for_its_events(tmp_path):
    hook = script(tmp_path, f"echo x >>{tmp_path}/out")
    ran([Hook((hook,), ("given_up",)), Hook((hook,), ("pending", "unplugged"))], [change()])
    assert (tmp_path / "out").read_text() == "x\n"


def test_a_hook_that_hangs_is_killed_and_logged(tmp_path, caplog):
    began = time.monotonic()
    ran([Hook((script(tmp_path, "sleep 60"),))], [change()], 0.3)
    assert time.monotonic() - began < 10
    assert "killed after 0 s (times.hook)" in caplog.text


@pytest.mark.parametrize(("text", "said"), [
    ("echo no >&2; exit 3", "exit code 3: no"), ("kill -9 $$", "killed by signal 9"),
    ("printf '\\033[31m' >&2; exit 1", "exit code 1: ?[31m"),
])  # fmt: skip
def test_a_hook_that_fails_is_logged(tmp_path, caplog, text, said):
    ran([Hook((script(tmp_path, text),))], [change()])
    assert said in caplog.text


def test_no_such_program(caplog):
    ran([Hook(("/nowhere/hook",))], [change()])
    assert "/nowhere/hook: no such program" in caplog.text


def test_few_at_a_time_and_a_limited_queue(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(module, "WAITING", 8)
    caplog.set_level(logging.WARNING)
    ran([Hook((script(tmp_path, f"echo x >>{tmp_path}/out"),))], [change(f"1-{n}") for n in range(1, 40)])
    lines = (tmp_path / "out").read_text().count("x")
    assert 8 <= lines <= 12
    assert f"hooks: {39 - lines} were dropped" in caplog.text


def test_stop_kills_what_runs(tmp_path):
    pid = tmp_path / "pid"

    async def work():
        hooks = Hooks([Hook((script(tmp_path, f"echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 60"),))], 60.0)
        hooks.record(change())
        async with asyncio.timeout(10):
            while not pid.exists():
                await asyncio.sleep(0.01)
            await hooks.stop()

    asyncio.run(work())
    assert not Path(f"/proc/{int(pid.read_text())}").exists()


class Commands:
    async def run(self, argv, timeout):
        return Result(tuple(argv), 0 if argv[1] == "list" else None, timed_out=argv[1] == "usbdev-attach")


def test_metrics_are_written_atomically_and_the_calls_counted(tmp_path):
    async def work():
        commands = CountedCommands(Commands())
        for word in ("list", "list", "usbdev-attach", "usbdev-detach"):
            await commands.run(["xl", word], 1)
        file = MetricsFile(tmp_path / "x.prom", commands)
        file.look(planned(snapshot(device()), RULES).verdicts, 1.0, True)
        assert not (tmp_path / "x.prom").exists()
        file.write()

    asyncio.run(work())
    text = (tmp_path / "x.prom").read_text()
    assert 'xenplug_devices{state="pending"} 1\n' in text
    assert 'xenplug_xl_calls_total{command="list",ending="ok"} 2\n' in text
    assert 'xenplug_xl_calls_total{command="usbdev-attach",ending="timed_out"} 1\n' in text
    assert 'xenplug_xl_calls_total{command="usbdev-detach",ending="failed"} 1\n' in text
    assert [path.name for path in tmp_path.iterdir()] == ["x.prom"]


def test_metrics_that_cannot_be_written_are_logged_once(tmp_path, caplog):
    async def work():
        file = MetricsFile(tmp_path / "none/x.prom", CountedCommands(Commands()))
        file.write()
        file.write()

    asyncio.run(work())
    assert caplog.text.count("metrics are not written") == 1


@pytest.mark.parametrize("harmless", [True, False])
def test_a_harmless_run_runs_and_writes_nothing(tmp_path, harmless):
    settings = Settings(
        hooks=(Hook((script(tmp_path, f"echo x >>{tmp_path}/out"),)),),
        metrics=MetricsSettings(str(tmp_path / "m.prom")),
        times=TimeSettings(hook=5.0),
    )

    class Own:
        recorded = 0

        def record(self, one):
            self.recorded += 1

    async def work():
        extras, own = Extras(settings, harmless), Own()
        extras.changes_to(own).record(change())
        await others_done()
        await extras.stop()
        return own.recorded

    assert asyncio.run(work()) == 1
    assert (tmp_path / "out").exists() is not harmless
