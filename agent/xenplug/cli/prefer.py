"""Give GUEST priority in every list of guests: devices of such lists move there now, or when the guest starts.

Lasts until --clear or the next boot of dom0. Rules with one guest and manual overrides are not affected.
"""

from __future__ import annotations

import argparse

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("guest", metavar="GUEST", nargs="?", help="a guest, as `xl list` shows it")
    which.add_argument("--clear", action="store_true", help="use the order of the lists again")
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    answer = common.ask(args, "Prefer", **({} if args.clear else {"guest": args.guest}))
    common.print_json(answer) if args.json else print(answer["message"])
    return 0
