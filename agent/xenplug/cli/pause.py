"""Pause xenplug for everything, for a guest, or for a device's port, until `resume` or the next boot of dom0.

Nothing is attached or detached. Protection stays in force, and the guest port of a pulled device is still cleared.
"""

from __future__ import annotations

import argparse

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scope", metavar="all|GUEST|DEVICE", nargs="?", default="all", help="the scope (default: all)")
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    answer = common.ask(args, "Pause", scope=args.scope)
    common.print_json(answer) if args.json else print(answer["message"])
    return 0
