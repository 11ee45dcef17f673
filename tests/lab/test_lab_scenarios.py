"""Every shipped scenario that the lab can play ends here as it does in the simulator.

XENPLUG_LAB_MINUTES bounds the time: once it is up, the rest is skipped, by name. The order is then that of the day, so
that no scenario is left out for long.
"""

import asyncio
import math
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from floor import LabFloor
from labkit import Lab
from labkit.guests import ScenarioGuests
from tests import floor_scenarios

from xenplug.scenario.format import Scenario

LONGEST = 60.0
MINUTES = float(os.environ.get("XENPLUG_LAB_MINUTES", "inf"))


def in_todays_order() -> list[Any]:
    """In the order of their folders; with a time limit, shuffled by the date."""
    scenarios = floor_scenarios.scenarios("lab")
    if math.isfinite(MINUTES):
        random.Random(time.strftime("%F")).shuffle(scenarios)
    return scenarios


@pytest.fixture(scope="module")
def deadline() -> float:
    """When no further scenario is begun (time.monotonic)."""
    return time.monotonic() + MINUTES * 60


@pytest.fixture(scope="module")
def guests(lab: Lab) -> Iterator[ScenarioGuests]:
    """The lab's guests, kept from scenario to scenario; xenplug in dom0."""
    lab.install()
    yield ScenarioGuests(lab)


@pytest.mark.parametrize("scenario", in_todays_order())
def test_scenario(lab: Lab, guests: ScenarioGuests, deadline: float, scenario: Scenario) -> None:
    if time.monotonic() > deadline:
        pytest.skip(f"the {MINUTES:.0f} minutes of XENPLUG_LAB_MINUTES are up")
    if reason := floor_scenarios.unwanted(scenario, LONGEST):
        pytest.skip(reason)
    played = asyncio.run(floor_scenarios.play(scenario, LabFloor(lab, guests, scenario)))
    if played.outcome and not played.outcome.passed:
        print("\n".join(lab.agent_log().splitlines()[-60:]))
    played.check()
