"""Finding and reading scenario files, and their results in JSON: for `simulate` and `test`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenplug.cli.common import print_problems
from xenplug.cli.main import Failure

if TYPE_CHECKING:
    from xenplug.scenario.format import Scenario
    from xenplug.scenario.runner import ScenarioResult


TIMELINE = re.compile(rb"^[\"']?timeline[\"']?\s*:", re.MULTILINE)
"""The key that only scenarios have. Searched in the text: a scenario with bad YAML is reported, not skipped."""


def files(paths: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    """The files named, and the scenarios below the folders named. Other YAML files there (policies, CI) are skipped."""
    for path in paths:
        if not path.is_dir():
            yield path, _bytes(path)
            continue
        below = sorted(file for file in path.rglob("*.y*ml") if _is_candidate(file, path))
        found = [(file, text) for file in below if TIMELINE.search(text := _bytes(file))]
        if not found:
            raise Failure(f"{path}: no scenario in this folder (*.yaml with a timeline:); name one with scenarios", 2)
        yield from found


def _is_candidate(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.suffix in (".yaml", ".yml") and not hidden and file.is_file()


def _bytes(path: Path) -> bytes:
    from xenplug.adapters.files import Unfit, read_bounded

    try:
        return read_bounded(path, 8 << 20)
    except OSError as error:
        raise Failure(f"{path}: cannot be read ({error.strerror}); name a scenario file", 2) from None
    except Unfit as error:
        raise Failure(str(error), 2) from None


def read(paths: Iterable[Path]) -> list[Scenario]:
    """All scenarios. Prints the problems of all files, and raises Failure if one cannot be read."""
    from xenplug.scenario.format import load

    scenarios, bad = [], 0
    for path, text in files(paths):
        scenario, problems = load(text, str(path))
        print_problems(problems)
        bad += scenario is None
        if scenario:
            scenarios.append(scenario)
    if bad:
        raise Failure(f"{bad} scenario file{'s' * (bad != 1)} could not be read; nothing was played")
    return scenarios


def view(outcome: ScenarioResult) -> dict[str, Any]:
    """A result in JSON."""
    return {
        "file": outcome.scenario.file,
        "name": outcome.scenario.name,
        "passed": outcome.passed,
        "failures": outcome.failures,
    }
