"""The scenario files on the real floors (tests/bench, tests/lab): which there are, and how one is played there.

A floor looks at the whole scenario when it opens, and says with Unplayable what it cannot do: the test is skipped with
that reason. From then on everything has to come out as in the simulator.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from xenplug.adapters.client import Client, ClientError
from xenplug.core.documents.document import Node, parse, plain
from xenplug.core.model import Device
from xenplug.scenario.format import Scenario, TimelineEvent, family, load, seconds
from xenplug.scenario.runner import Floor, Runner, ScenarioResult, Unplayable

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "tests/scenarios").glob("*.yaml"), *(ROOT / "policies/tests").glob("*.yaml")])


class RealFloor(Floor, Protocol):
    """A floor that takes a moment to make and to clear."""

    async def open(self) -> None:
        """The host as the scenario begins, the agent started on it. Raises Unplayable."""

    async def close(self) -> None:
        """Nothing of the scenario is left."""


def read(path: Path) -> Scenario:
    """A scenario that is known to be good."""
    scenario, problems = load(path.read_bytes(), str(path))
    assert scenario, problems
    return scenario


def scenarios(floor: str) -> list[Any]:
    """The shipped scenarios for that floor, as parameters of a test."""
    return [pytest.param(s, id=Path(s.file).stem) for s in map(read, FILES) if floor in s.floors]


def unwanted(scenario: Scenario, longest: float) -> str | None:
    """Why it is not played in an ordinary run: it waits for more than `longest` seconds and XENPLUG_LONG is not set."""
    waits = sum(seconds(e.value) for e in events(scenario) if e.verb == "wait")
    too_long = waits > longest and not os.environ.get("XENPLUG_LONG")
    return f"waits for {waits:.0f} s; XENPLUG_LONG=1 plays it" if too_long else None


@dataclass(slots=True)
class Played:
    """What came of a scenario, or why it was not played."""

    outcome: ScenarioResult | None = None
    skipped: str | None = None
    story: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Everything expected came true; pytest's skip if it was not played."""
        if self.skipped:
            pytest.skip(self.skipped)
        print("\n".join(self.story))
        assert self.outcome
        assert self.outcome.passed, "\n".join(self.outcome.failures)


async def play(scenario: Scenario, floor: RealFloor) -> Played:
    """One scenario, in real time."""
    played = Played()
    try:
        await floor.open()
        runner = Runner(floor, scenario, lambda line: played.story.append(f"{floor.now():6.1f} {line}"))
        played.outcome = await runner.play()
    except Unplayable as reason:
        played.skipped = str(reason)
    finally:
        await floor.close()
    return played


def events(scenario: Scenario) -> Iterator[TimelineEvent]:
    """Everything that happens, what happens together too."""
    for event in scenario.timeline:
        inner = event.value if event.verb == "together" else [{event.verb: event.value}]
        for entry in inner:
            for verb, value in entry.items():
                yield TimelineEvent(verb, value, event.line)


def devices(scenario: Scenario) -> Iterator[Device]:
    """Everything that is ever plugged in, a hub before what hangs on it."""
    yield from scenario.devices
    for event in events(scenario):
        if event.verb == "plug":
            yield from family(event.value)


def mentions(scenario: Scenario, key: str) -> bool:
    """Some expectation names this key, so that it has to be looked up."""
    return any(e.verb == "expect" and key in e.value for e in events(scenario))


def policy(scenario: Scenario, value: str | Node) -> Any:
    """A policy of the scenario, a file's name or written in it, as nested lists and mappings."""
    if isinstance(value, str):
        file = Path(scenario.file).parent / value
        node, problems = parse(file.read_bytes(), str(file))
        assert node, problems
        return plain(node)
    return plain(value)


def placed(policy_: Any, to_floor: Mapping[str, Callable[[str], str]]) -> Any:
    """The policy with its ports and paths put in the floor's words: `to_floor` by key, "port" and "path"."""
    rest = {key: value for key, value in policy_.items() if key not in ("rules", "protect")}
    return rest | {key: _placed(policy_[key], to_floor) for key in ("rules", "protect") if key in policy_}


def _placed(value: Any, to_floor: Mapping[str, Callable[[str], str]]) -> Any:
    if isinstance(value, list):
        return [_placed(entry, to_floor) for entry in value]
    if not isinstance(value, dict):
        return value
    done = {}
    for key, inner in value.items():
        if key in to_floor:
            done[key] = [to_floor[key](v) for v in inner] if isinstance(inner, list) else to_floor[key](inner)
        else:
            done[key] = _placed(inner, to_floor)
    return done


class Past(threading.Thread):
    """Every status the agent told of since it started, for `never`."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.seen: list[dict[str, Any]] = []
        self.over = False
        """Set before the agent is stopped for good: its stream ends then, and this with it."""
        self._client = client

    def run(self) -> None:
        while not self.over:
            try:
                for reply in self._client.stream("Monitor"):
                    if reply.get("status"):
                        self.seen.append(reply["status"])
            except ClientError:
                time.sleep(0.1)
