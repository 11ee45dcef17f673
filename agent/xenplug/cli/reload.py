"""Reload the policy. A policy with an error changes nothing: the last good one stays in force."""

from __future__ import annotations

import argparse
import sys

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    answer = common.ask(args, "Reload")
    problems = answer["problems"]
    if args.json:
        common.print_json(answer)
        return 1 if problems else 0
    for problem in problems:
        print(common.problem_line(problem), file=sys.stderr)
    print(answer["message"])
    return 1 if problems else 0
