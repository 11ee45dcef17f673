"""Every shipped scenario that the bench can play ends here as it does in the simulator.

They mostly wait, each on its own host, so several are played at a time.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from tests import floor_scenarios

from xenplug.scenario.format import Scenario

from .floor import BenchFloor

LONGEST = 30.0
AT_A_TIME = 4


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, bench_packages: None) -> dict[str, floor_scenarios.Played]:
    """The results of the selected scenarios, by file."""
    items = [item for item in request.session.items if item.path == request.path]
    return asyncio.run(_play([item.callspec.params["scenario"] for item in items]))  # type: ignore[attr-defined]


async def _play(scenarios: list[Scenario]) -> dict[str, floor_scenarios.Played]:
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(scenario: Scenario) -> floor_scenarios.Played:
        if reason := floor_scenarios.unwanted(scenario, LONGEST):
            return floor_scenarios.Played(skipped=reason)
        async with turns:
            with tempfile.TemporaryDirectory(prefix="xenplug-") as folder:
                return await floor_scenarios.play(scenario, BenchFloor(Path(folder), scenario))

    done = await asyncio.gather(*map(one, scenarios))
    return {scenario.file: played for scenario, played in zip(scenarios, done, strict=True)}


@pytest.mark.parametrize("scenario", floor_scenarios.scenarios("bench"))
def test_scenario(played: dict[str, floor_scenarios.Played], scenario: Scenario) -> None:
    """Played in real seconds."""
    played[scenario.file].check()
