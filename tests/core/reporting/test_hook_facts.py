"""The environment of hooks, and the counts of metrics."""

from dataclasses import replace

import pytest
from tests.core.make import NOW, controller, device, guest, planned, policy, snapshot

from xenplug.core.planning.steps import State
from xenplug.core.policy.digest import PolicyIdentity
from xenplug.core.reporting.changes import changes
from xenplug.core.reporting.hooks import EVENTS, environment, event_of
from xenplug.core.reporting.metrics import Tally, count, exposition

RULES = policy("rules: [{name: mice, match: {kind: mouse}, attach: kiosk}]")
MOUSE = device(product="Wheel", serial="A1")


@pytest.fixture
def waiting():
    [verdict] = planned(snapshot(MOUSE), RULES).verdicts
    return verdict


def test_the_environment_of_a_hook(waiting):
    [change] = changes([], [waiting])
    facts = environment(change)
    assert facts["XENPLUG_EVENT"] == "pending"
    assert facts["XENPLUG_LINE"] == change.line
    assert (facts["XENPLUG_PORT"], facts["XENPLUG_DEVICE"], facts["XENPLUG_SERIAL"]) == ("1-1", "046d:c016", "A1")
    assert (facts["XENPLUG_GUEST"], facts["XENPLUG_WANTED"], facts["XENPLUG_RULE"]) == ("", "kiosk", "mice")
    assert facts["XENPLUG_CAUSE"] == "guest_stopped"
    assert facts["XENPLUG_REASON"]
    assert all(isinstance(value, str) and "\0" not in value for value in facts.values())


def test_an_unplug(waiting):
    [change] = changes([waiting], [])
    assert event_of(change) == "unplugged" == EVENTS[-1]
    assert environment(change)["XENPLUG_EVENT"] == "unplugged"
    assert environment(change)["XENPLUG_CAUSE"] == "unplugged"


def counted(*rounds):
    tally = Tally()
    for at, verdicts in rounds:
        tally = count(tally, verdicts, at, True)
    return tally


def test_what_is_counted(waiting):
    begun = replace(waiting, state=State.ATTACHING)
    failed = replace(waiting, state=State.FAILING, attempts=1)
    again = replace(failed, attempts=3)
    there = replace(waiting, state=State.ATTACHED)
    tally = counted((0, [waiting]), (1, [begun]), (2, [failed]), (3, [again]), (4.5, [there]), (9, [there]))
    assert tally.states["attached"] == 1
    assert sum(tally.states.values()) == 1
    assert (tally.retries, tally.given_up, tally.rounds) == (3, 0, 6)
    assert (sum(tally.latencies), tally.seconds) == (1, 3.5)
    assert tally.latencies[3] == 1  # over 2 s, up to 5 s


def test_a_device_attached_before_has_no_latency(waiting):
    assert sum(counted((0, [replace(waiting, state=State.ATTACHED)])).latencies) == 0


def test_giving_up_is_counted_once_each_time(waiting):
    up = replace(waiting, state=State.GIVEN_UP)
    assert counted((0, [up]), (1, [up]), (2, [waiting]), (3, [up])).given_up == 2


def test_an_unplug_forgets_the_device(waiting):
    begun = replace(waiting, state=State.ATTACHING)
    assert sum(counted((0, [begun]), (1, []), (2, [replace(waiting, state=State.ATTACHED)])).latencies) == 0


def test_the_text(waiting):
    there = replace(waiting, state=State.ATTACHED)
    tally = counted((0, [replace(waiting, state=State.ATTACHING)]), (0.75, [there]))
    lines = exposition(tally, {("usbdev-attach", "ok"): 1, ("list", "timed_out"): 2}, '1"0').splitlines()
    assert 'xenplug_info{version="1\\"0"} 1' in lines
    assert 'xenplug_devices{state="attached"} 1' in lines
    assert 'xenplug_devices{state="given_up"} 0' in lines
    assert 'xenplug_attach_seconds_bucket{le="0.5"} 0' in lines
    assert 'xenplug_attach_seconds_bucket{le="1.0"} 1' in lines
    assert 'xenplug_attach_seconds_bucket{le="+Inf"} 1' in lines
    assert "xenplug_attach_seconds_sum 0.750000" in lines
    assert 'xenplug_xl_calls_total{command="list",ending="timed_out"} 2' in lines
    for line in lines:
        assert line.startswith(("# HELP xenplug_", "# TYPE xenplug_", "xenplug_"))
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("label", "shown"), [(None, ""), ("kiosk-2026.48", "kiosk-2026.48"), ('a "b\\', 'a \\"b\\\\')])
def test_the_policy_in_force(label, shown):
    known = "0f" * 32
    tally = count(Tally(), [], 0.0, False, PolicyIdentity(known, label))
    assert f'xenplug_policy_info{{digest="{known}",label="{shown}"}} 1' in exposition(tally, {}, "1").splitlines()
    without = exposition(count(tally, [], 1.0, False), {}, "1").splitlines()
    assert not [line for line in without if line.startswith("xenplug_policy_info")]


def test_a_plan_of_the_agent_can_be_counted():
    holds = snapshot(MOUSE, guest("kiosk", 1, controller(ports=2, p1="1-1")))
    assert counted((NOW, planned(holds, RULES).verdicts)).rounds == 1
