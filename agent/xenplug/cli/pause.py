"""Leave alone: everything, a guest, or whatever is plugged in at a device's port, until `resume` or dom0's reboot.

Nothing is attached or taken off; what is protected still is, and a pulled device's guest port is still cleared.
"""

from __future__ import annotations

import argparse

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scope", metavar="all|GUEST|DEVICE", nargs="?", default="all", help="what (default: all)")
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    answer = common.ask(args, "Pause", scope=args.scope)
    common.print_json(answer) if args.json else print(answer["message"])
    return 0
