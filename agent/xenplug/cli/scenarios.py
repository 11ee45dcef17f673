"""Finding and reading scenario files, and their results in JSON: for `simulate` and `test`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenplug.cli.common import print_problems
from xenplug.cli.main import Failure

if TYPE_CHECKING:
    from xenplug.sim.runner import Outcome
    from xenplug.sim.scenario import Scenario


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, and all *.yaml below the folders named."""
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob("*.yaml"))
            if not found:
                raise Failure(f"{path}: no *.yaml in this folder; name one that holds scenarios", 2)
            yield from found
        else:
            yield path


def read(paths: Iterable[Path]) -> list[Scenario]:
    """All scenarios; everything that is wrong with any of them is told, and a Failure."""
    from xenplug.shell.files import Unfit, read_bounded
    from xenplug.sim.scenario import load

    scenarios, bad = [], 0
    for path in files(paths):
        try:
            text = read_bounded(path, 8 << 20)
        except (OSError, Unfit) as error:
            raise Failure(f"{path}: cannot be read ({error}); name a scenario file", 2) from None
        scenario, problems = load(text, str(path))
        print_problems(problems)
        bad += scenario is None
        if scenario:
            scenarios.append(scenario)
    if bad:
        raise Failure(f"{bad} scenario file{'s' * (bad != 1)} could not be read; nothing was played")
    return scenarios


def view(outcome: Outcome) -> dict[str, Any]:
    """A result in JSON."""
    return {
        "file": outcome.scenario.file,
        "name": outcome.scenario.name,
        "passed": outcome.passed,
        "failures": outcome.failures,
    }
