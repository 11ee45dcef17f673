"""Read the policy and tell everything that is wrong with it, all at once.

Needs no root and no Xen. Exit code 1 if there are errors.
"""

from __future__ import annotations

import argparse

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", metavar="PATH", help="policy file or folder (as --policy)")
    common.add_policy(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from xenplug.policies import problem_view, read_policy

    path = Path(args.path) if args.path else args.policy or common.POLICY
    loaded = read_policy(path)
    if args.json:
        common.print_json({"problems": [problem_view(p) for p in loaded.problems]})
    else:
        common.print_problems(loaded.problems)
        if loaded.policy:
            print(f"{path}: good, {common.counted(len(loaded.policy.rules), 'rule')}")
    return 1 if loaded.policy is None else 0
