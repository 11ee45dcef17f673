"""A short run of every fuzzer with the same inputs each time; `python -m tests.fuzz` runs them longer."""

from __future__ import annotations

import pytest
from tests.fuzz.driver import data_of, fuzz, names, target


@pytest.mark.parametrize("name", names())
def test_the_reader_survives_the_inputs(name):
    report = fuzz(target(name), 0, 150, 20.0, most=1)
    assert not report.findings, report.findings[0].words + repr(report.findings[0].data)
    assert report.runs > 10


@pytest.mark.parametrize("name", names())
def test_a_run_can_be_repeated(name):
    aim = target(name)
    assert [data_of(aim, n) for n in range(20)] == [data_of(aim, n) for n in range(20)]
    assert len({data_of(aim, n) for n in range(20)}) > 10
