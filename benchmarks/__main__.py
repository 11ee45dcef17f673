"""Runs the measurements and prints a table of medians with their spread.

--json FILE keeps the raw figures, --against FILE shows next to each median its value in such a file, --plot FILE draws
growth as SVG. Long measurements are optional: --runs (crowd), --days (simulator).
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

NAMES = ("decide", "lint", "planning", "attach", "phases", "crowd", "rest", "simulator")
Found = dict[str, list[float]]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which (default all): {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--against", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--runs", type=int, default=3, help="runs of 64 devices that count lost ones (default 3)")
    parser.add_argument("--days", type=int, default=1, help="simulated days of kiosk life (default 1)")
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"no measurement {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    before: Found = json.loads(args.against.read_text()) if args.against else {}
    found = measured(args, before)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    if args.plot:
        from benchmarks.plot import growth

        args.plot.write_text(growth(found))
    return 0


def measured(args: argparse.Namespace, before: Found) -> Found:
    """Run the requested measurements and print each result as it comes."""
    found: Found = {}
    for name in args.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        for option in ("runs", "days"):
            if hasattr(module, option):
                setattr(module, option, getattr(args, option))
        for title, figures in module.measure():
            found[title] = figures
            print(line(title, figures, before.get(title)), flush=True)
    return found


def line(title: str, figures: list[float], before: list[float] | None) -> str:
    """One row: median, smallest and largest, and the change since; the title ends with the unit."""
    median = statistics.median(figures)
    row = f"{title:<76} {median:10.2f}   {min(figures):9.2f} … {max(figures):<9.2f} n={len(figures)}"
    if not before:
        return row
    old = statistics.median(before)
    change = f"{(median / old - 1) * 100:+.0f} %" if old else "-"
    return f"{row:<116} was {old:.2f}, {change}"


if __name__ == "__main__":
    sys.exit(main())
