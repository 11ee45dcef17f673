"""The metrics for Prometheus as pure functions: from the verdicts of each round to the text of a textfile.

adapters/metrics.py keeps the tally and writes the file for node_exporter's textfile collector. Names are xenplug_*; the
format is Prometheus' text exposition format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from xenplug.core.model import DeviceKey
from xenplug.core.planning.steps import State, Verdict
from xenplug.core.policy.digest import PolicyIdentity

BOUNDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds: the upper bounds of the latencies' buckets."""


@dataclass(frozen=True, slots=True)
class LastSeen:
    """A device in the previous round."""

    state: State
    attempts: int
    since: float | None
    """When its attaching began (monotonic seconds); None if it is not being attached."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts so far."""

    states: Mapping[str, int] = field(default_factory=dict)
    latencies: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    """Attachments by bucket; the last bucket is for longer ones."""
    seconds: float = 0.0
    """Sum of the latencies."""
    retries: int = 0
    given_up: int = 0
    rounds: int = 0
    policy: bool = True
    """Whether the policy as last read is in force."""
    identity: PolicyIdentity | None = None
    """Which policy is in force; None if none is."""
    seen: Mapping[DeviceKey, LastSeen] = field(default_factory=dict)


def count(
    tally: Tally, verdicts: Iterable[Verdict], now: float, policy: bool, identity: PolicyIdentity | None = None
) -> Tally:
    """The tally after one more round."""
    states = dict.fromkeys(map(str, State), 0)
    latencies, seconds = list(tally.latencies), tally.seconds
    retries, given_up = tally.retries, tally.given_up
    seen: dict[DeviceKey, LastSeen] = {}
    for verdict in verdicts:
        states[verdict.state] += 1
        key = verdict.device.key
        before = tally.seen.get(key)
        since = before.since if before else None
        if verdict.state is State.ATTACHED and since is not None:
            latencies[_bucket(now - since)] += 1
            seconds += now - since
            since = None
        elif verdict.state in (State.ATTACHING, State.FAILING):
            since = now if since is None else since
        else:
            since = None
        if before:
            retries += max(verdict.attempts - before.attempts, 0)
            given_up += verdict.state is State.GIVEN_UP and before.state is not State.GIVEN_UP
        else:
            given_up += verdict.state is State.GIVEN_UP
        seen[key] = LastSeen(verdict.state, verdict.attempts, since)
    counted = replace(tally, states=states, latencies=tuple(latencies), seconds=seconds, retries=retries)
    return replace(counted, given_up=given_up, rounds=tally.rounds + 1, policy=policy, identity=identity, seen=seen)


def _bucket(seconds: float) -> int:
    return next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))


def exposition(tally: Tally, calls: Mapping[tuple[str, str], int], version: str) -> str:
    """The text of the file. `calls`: number of xl calls by subcommand and ending (ok, failed, timed_out)."""
    lines: list[str] = []

    def metric(name: str, kind: str, words: str, samples: Iterable[tuple[str, object]]) -> None:
        lines.append(f"# HELP xenplug_{name} {words}")
        lines.append(f"# TYPE xenplug_{name} {kind}")
        lines.extend(f"xenplug_{name}{labels} {value}" for labels, value in samples)

    metric("info", "gauge", "The agent that wrote this file.", [(_labels(version=version), 1)])
    metric("policy_in_force", "gauge", "1 if the policy as last read is in force.", [("", int(tally.policy))])
    which = [tally.identity] if tally.identity else []
    named = [(_labels(digest=policy.digest or "", label=policy.label or ""), 1) for policy in which]
    metric("policy_info", "gauge", "The policy in force: its digest and label.", named)
    devices = [(_labels(state=state), number) for state, number in sorted(tally.states.items())]
    metric("devices", "gauge", "USB devices by state.", devices)
    total = 0
    buckets: list[tuple[str, object]] = []
    for bound, number in zip((*BOUNDS, "+Inf"), tally.latencies, strict=True):
        total += number
        buckets.append(("_bucket" + _labels(le=str(bound)), total))
    buckets += [("_sum", f"{tally.seconds:.6f}"), ("_count", total)]
    metric("attach_seconds", "histogram", "From the first try to attach until the guest has the device.", buckets)
    metric("retries_total", "counter", "Failed tries that were or will be repeated.", [("", tally.retries)])
    metric("given_up_total", "counter", "Devices given up.", [("", tally.given_up)])
    metric("rounds_total", "counter", "Rounds: readings of the whole host, each with a plan.", [("", tally.rounds)])
    listed = [(_labels(command=command, ending=ending), n) for (command, ending), n in sorted(calls.items())]
    metric("xl_calls_total", "counter", "Calls of xl by command and ending.", listed)
    return "\n".join(lines) + "\n"


def _labels(**pairs: str) -> str:
    escaped = {key: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for key, value in pairs.items()}
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped.items()) + "}"
