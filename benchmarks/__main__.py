"""Runs the measurements and prints a table of medians with their spread; --json FILE keeps the raw figures."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks import agent, decide

MEASUREMENTS = {"decide": decide.measure, "agent": agent.measure}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which (default all): {', '.join(MEASUREMENTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    found: dict[str, list[float]] = {}
    for name in args.names or MEASUREMENTS:
        for title, figures in MEASUREMENTS[name]():
            found[title] = figures
            print(line(title, figures), flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return 0


def line(title: str, figures: list[float]) -> str:
    """One row: median, smallest and largest; the unit stands in the title."""
    return (
        f"{title:<62} {statistics.median(figures):10.2f}   {min(figures):10.2f} … {max(figures):.2f}   n={len(figures)}"
    )


sys.exit(main())
