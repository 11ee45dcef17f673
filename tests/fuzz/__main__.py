"""Fuzz the parsers: `nice python -m tests.fuzz policy --seconds 600`. Exit code 1 if there are findings."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.fuzz.driver import fuzz, names, target


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(names())}")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (default 60)")
    parser.add_argument("--runs", type=int, help="stop after N inputs")
    parser.add_argument("--from", type=int, dest="first", help="number of the first run (default: by the clock)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write inputs that caused a finding there")
    args = parser.parse_args()
    first = int(time.time()) * 1000 if args.first is None else args.first
    broken = 0
    for name in args.targets or names():
        report = fuzz(target(name), first, args.runs, args.seconds)
        broken += len(report.findings)
        found = len(report.findings)
        print(f"{name}: {report.runs} inputs from {first}, {found} findings, slowest {report.slowest * 1e3:.0f} ms")
        for finding in report.findings:
            print(f"  run {finding.run}: {finding.data[:200]!r}\n{finding.words}", flush=True)
            if args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                (args.keep / f"{name}-{finding.run}").write_bytes(finding.data)
    return 1 if broken else 0


sys.exit(main())
