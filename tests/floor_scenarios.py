"""The scenario files on the real floors (tests/bench, tests/lab): the list of them, and how one is played.

A floor reads the whole scenario when it opens, and raises Unplayable with the reason if it cannot play it: the test is
then skipped. Otherwise every expectation must hold, as in the simulator.
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
    """A floor that must be set up and cleared."""

    async def open(self) -> None:
        """Set up the host as the scenario begins, and start the agent. Raises Unplayable."""

    async def close(self) -> None:
        """Remove everything of the scenario."""


def read(path: Path) -> Scenario:
    """A scenario from a file that must be valid."""
    scenario, problems = load(path.read_bytes(), str(path))
    assert scenario, problems
    return scenario


def scenarios(floor: str) -> list[Any]:
    """The shipped scenarios for that floor, as parameters of a test."""
    return [pytest.param(s, id=Path(s.file).stem) for s in map(read, FILES) if floor in s.floors]


def unwanted(scenario: Scenario, longest: float) -> str | None:
    """Why an ordinary run skips it: it waits for more than `longest` seconds and XENPLUG_LONG is not set."""
    waits = sum(seconds(e.value) for e in events(scenario) if e.verb == "wait")
    too_long = waits > longest and not os.environ.get("XENPLUG_LONG")
    return f"waits for {waits:.0f} s; XENPLUG_LONG=1 plays it" if too_long else None


@dataclass(slots=True)
class Played:
    """The result of a scenario, or why it was not played."""

    outcome: ScenarioResult | None = None
    skipped: str | None = None
    story: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Fail unless every expectation held; skip if it was not played."""
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
    """All events, those inside `together` too."""
    for event in scenario.timeline:
        inner = event.value if event.verb == "together" else [{event.verb: event.value}]
        for entry in inner:
            for verb, value in entry.items():
                yield TimelineEvent(verb, value, event.line)


def devices(scenario: Scenario) -> Iterator[Device]:
    """All devices that are plugged in at some time, a hub before the devices on it."""
    yield from scenario.devices
    for event in events(scenario):
        if event.verb == "plug":
            yield from family(event.value)


def mentions(scenario: Scenario, key: str) -> bool:
    """Whether an expectation names this key, so that the floor must look it up."""
    return any(e.verb == "expect" and key in e.value for e in events(scenario))


def policy(scenario: Scenario, value: str | Node) -> Any:
    """A policy of the scenario (a file's name, or the policy itself) as nested lists and mappings."""
    if isinstance(value, str):
        file = Path(scenario.file).parent / value
        node, problems = parse(file.read_bytes(), str(file))
        assert node, problems
        return plain(node)
    return plain(value)


def placed(policy_: Any, to_floor: Mapping[str, Callable[[str], str]]) -> Any:
    """The policy with its ports and paths translated for the floor: `to_floor` by key, "port" and "path"."""
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
    """Every status the agent sent since it started, for `never`."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.seen: list[dict[str, Any]] = []
        self.over = False
        """Set before the agent is stopped for good: its stream ends then, and so does this thread."""
        self._client = client

    def run(self) -> None:
        while not self.over:
            try:
                for reply in self._client.stream("Monitor"):
                    if reply.get("status"):
                        self.seen.append(reply["status"])
            except ClientError:
                time.sleep(0.1)
