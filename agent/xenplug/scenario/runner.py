"""Plays a scenario's timeline on a floor and checks its expectations.

The floors (simulator, bench, lab) offer the same verbs; each floor implements them. Virtual seconds of the simulator
are real seconds on the others.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from xenplug.core.documents.document import Node
from xenplug.scenario.expect import Observation, mismatches
from xenplug.scenario.format import Scenario, TimelineEvent, seconds

WITHIN = "10s"
LOOK_EVERY = 0.1


class Floor(Protocol):
    """Something that can play a scenario."""

    def now(self) -> float:
        """Seconds since the scenario began."""

    async def observe(self) -> Observation:
        """The state of the floor, from an observation that starts now."""

    async def act(self, verb: str, value: Any) -> None:
        """Do one verb of the timeline. Raises Unplayable if this floor or host cannot."""

    async def command(self, words: list[str]) -> tuple[int, str]:
        """Run a xenplug command; return its exit code and output."""


class Unplayable(Exception):
    """The scenario asks for something impossible; the text says what."""


@dataclass(slots=True)
class ScenarioResult:
    """The result of a scenario."""

    scenario: Scenario
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all expectations were met."""
        return not self.failures


Tell = Callable[[str], None]


class Runner:
    """Plays one scenario. `tell` receives a line for each step."""

    def __init__(self, floor: Floor, scenario: Scenario, tell: Tell) -> None:
        self._floor = floor
        self._tell = tell
        self.outcome = ScenarioResult(scenario)

    async def play(self) -> ScenarioResult:
        """Play the whole timeline; stop at the first expectation that fails, because the rest depends on it."""
        for event in self.outcome.scenario.timeline:
            try:
                await self._event(event)
            except Unplayable as error:
                self._failed(event, str(error))
            if self.outcome.failures:
                break
        return self.outcome

    def _failed(self, event: TimelineEvent, text: str) -> None:
        self.outcome.failures.append(f"{self.outcome.scenario.file}:{event.line}: {text}")

    async def _event(self, event: TimelineEvent) -> None:
        if event.verb == "expect":
            await self._expect(event)
            return
        self._tell(_words(event))
        await self._do(event)

    async def _do(self, event: TimelineEvent) -> None:
        own: Mapping[str, Callable[[TimelineEvent], Awaitable[None]]] = {
            "wait": self._wait,
            "together": self._together,
            "command": self._command,
        }
        if event.verb in own:
            await own[event.verb](event)
        else:
            await self._floor.act(event.verb, event.value)

    async def _wait(self, event: TimelineEvent) -> None:
        await asyncio.sleep(seconds(event.value))

    async def _together(self, event: TimelineEvent) -> None:
        inner = [TimelineEvent(verb, value, event.line) for entry in event.value for verb, value in entry.items()]
        await asyncio.gather(*(self._do(e) for e in inner))

    async def _command(self, event: TimelineEvent) -> None:
        words = event.value if isinstance(event.value, list) else event.value.get("run", [])
        code, said = await self._floor.command(words)
        self._tell(f"  {said}")
        wanted = event.value.get("exit") if isinstance(event.value, dict) else None
        if wanted is not None and int(wanted) != code:
            self._failed(event, f"command {shlex.join(words)}: expected exit {wanted}, is {code} ({said})")

    async def _expect(self, event: TimelineEvent) -> None:
        deadline = self._floor.now() + seconds(event.value.get("within", WITHIN))
        while True:
            wrong = mismatches(event.value, await self._floor.observe())
            if not wrong:
                self._tell(f"ok: {_words(event)}")
                return
            if self._floor.now() >= deadline or "never" in event.value:
                self._failed(event, "; ".join(wrong))
                return
            await asyncio.sleep(LOOK_EVERY)


def _words(event: TimelineEvent) -> str:
    """An event as one line of text."""
    value = event.value
    if isinstance(value, Node):
        return f"{event.verb}: a policy written in the scenario"
    if isinstance(value, Mapping):
        return f"{event.verb} " + ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
    return f"{event.verb} {_flat(value)}"


def _flat(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_flat(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
    return str(value)
