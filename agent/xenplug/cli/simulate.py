"""Play scenarios on the simulated host and print each step: the events, and what the agent does, with times.

Time is virtual: minutes pass in an instant. Needs no root, no Xen and no USB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from xenplug.cli import common, scenarios


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", nargs="+", type=Path, metavar="SCENARIO", help="scenario file or folder")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.scenario.simulated_floor import play

    results = []
    for scenario in scenarios.read(args.scenario):
        if not args.json:
            print(f"== {scenario.name} ({scenario.file})")
        story: list[dict[str, object]] = []
        outcome = play(scenario, _collector(story) if args.json else _printer)
        results.append(scenarios.view(outcome) | ({"story": story} if args.json else {}))
        if not args.json:
            print(f"== {'as expected' if outcome.passed else 'NOT as expected: ' + '; '.join(outcome.failures)}\n")
    if args.json:
        common.print_json({"scenarios": results})
    return 0 if all(result["passed"] for result in results) else 1


def _printer(at: float, line: str) -> None:
    print(f"{at:8.2f} s  {line}")


def _collector(story: list[dict[str, object]]):  # type: ignore[no-untyped-def]
    return lambda at, line: story.append({"at": round(at, 3), "line": line.strip()})
