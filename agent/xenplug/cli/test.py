"""Run scenarios as a test suite on the simulated host: for a pre-commit hook or CI in a folder of policies.

PATH is a scenario file, or a folder whose *.yaml files with a timeline are all played (default: the current folder).
Exit code 1 if a scenario fails.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from xenplug.cli import common, scenarios
from xenplug.cli.main import Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="*", type=Path, metavar="PATH", default=[Path()], help="scenario file or folder")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write the results as JUnit XML")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.cli.junit import render
    from xenplug.scenario.simulated_floor import play

    read = scenarios.read(args.path)
    elsewhere = [s for s in read if "sim" not in s.floors]
    outcomes = [play(s, lambda _at, _line: None) for s in read if "sim" in s.floors]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if args.junit:
        _junit(args.junit, render(outcomes, elsewhere))
    if args.json:
        views = [scenarios.view(outcome) for outcome in outcomes]
        common.print_json({"passed": len(outcomes) - len(failed), "failed": len(failed), "scenarios": views})
        return 1 if failed else 0
    for outcome in outcomes:
        print(f"{'passed' if outcome.passed else 'FAILED'}  {outcome.scenario.file}: {outcome.scenario.name}")
        for failure in outcome.failures:
            print(f"        {failure}")
    for scenario in elsewhere:
        print(f"skipped {scenario.file}: {scenario.name} (plays only on {' and '.join(scenario.floors)})")
    print(
        f"{len(outcomes) - len(failed)} passed, {len(failed)} failed" + f", {len(elsewhere)} skipped" * bool(elsewhere)
    )
    return 1 if failed else 0


def _junit(file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise Failure(f"{file}: cannot be written ({error.strerror}); name another file", 2) from None
