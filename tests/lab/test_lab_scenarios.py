"""The twin scenarios: every shipped one that the lab can play ends here as it does in the simulator."""

import asyncio
from collections.abc import Iterator

import pytest
from floor import LabFloor
from labkit import Lab
from labkit.cast import Cast
from tests import twin

from xenplug.sim.scenario import Scenario

LONGEST = 60.0


@pytest.fixture(scope="module")
def cast(lab: Lab) -> Iterator[Cast]:
    """The lab's guests, kept from scenario to scenario; xenplug in dom0."""
    lab.install()
    yield Cast(lab)


@pytest.mark.parametrize("scenario", twin.scenarios("lab"))
def test_scenario(lab: Lab, cast: Cast, scenario: Scenario) -> None:
    if reason := twin.unwanted(scenario, LONGEST):
        pytest.skip(reason)
    asyncio.run(twin.play(scenario, LabFloor(lab, cast, scenario))).check()
