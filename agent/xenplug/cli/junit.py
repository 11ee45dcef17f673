"""The results of `xenplug test` as JUnit XML for CI systems. Uses only elements that all of them know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from xenplug.core.printable import printable

if TYPE_CHECKING:
    from xenplug.scenario.format import Scenario
    from xenplug.scenario.runner import ScenarioResult


def render(outcomes: Sequence[ScenarioResult], skipped: Sequence[Scenario]) -> str:
    """The whole file. `skipped` are the scenarios that cannot be played on the simulated host."""
    failed = sum(not outcome.passed for outcome in outcomes)
    cases = [
        _case(one.scenario, [f"<failure message={_attribute(text)}/>" for text in one.failures]) for one in outcomes
    ]
    cases += [_case(scenario, ["<skipped/>"]) for scenario in skipped]
    counts = f'tests="{len(cases)}" failures="{failed}" skipped="{len(skipped)}"'
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<testsuite name="xenplug" {counts}>\n{"".join(cases)}</testsuite>\n'
    )


def _case(scenario: Scenario, inside: Sequence[str]) -> str:
    names = f"classname={_attribute(scenario.file)} name={_attribute(scenario.name)} file={_attribute(scenario.file)}"
    return f"  <testcase {names}>{''.join(inside)}</testcase>\n"


def _attribute(text: str) -> str:
    return quoteattr(printable(text))
