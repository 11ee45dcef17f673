"""The twin scenarios: every shipped one that the bench can play ends here as it does in the simulator.

They mostly wait, each on a host of its own, so several are played at a time.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from tests import twin

from xenplug.sim.scenario import Scenario

from .floor import BenchFloor

LONGEST = 30.0
AT_A_TIME = 4


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, bench_packages: None) -> dict[str, twin.Played]:
    """What came of the scenarios that were asked for, by file."""
    items = [item for item in request.session.items if item.path == request.path]
    return asyncio.run(_play([item.callspec.params["scenario"] for item in items]))  # type: ignore[attr-defined]


async def _play(scenarios: list[Scenario]) -> dict[str, twin.Played]:
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(scenario: Scenario) -> twin.Played:
        if reason := twin.unwanted(scenario, LONGEST):
            return twin.Played(skipped=reason)
        async with turns:
            with tempfile.TemporaryDirectory(prefix="xenplug-") as folder:
                return await twin.play(scenario, BenchFloor(Path(folder), scenario))

    done = await asyncio.gather(*map(one, scenarios))
    return {scenario.file: played for scenario, played in zip(scenarios, done, strict=True)}


@pytest.mark.parametrize("scenario", twin.scenarios("bench"))
def test_scenario(played: dict[str, twin.Played], scenario: Scenario) -> None:
    """Played in real seconds."""
    played[scenario.file].check()
