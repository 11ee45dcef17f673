"""Give a device to a guest by hand, whatever the rules say (but not what is protected), until it is unplugged or
released. To a guest while it is with another: a move. Waits until the guest has it, or tells why not.
"""

from __future__ import annotations

import argparse

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="a port, an address, a path, or a tag")
    parser.add_argument("guest", metavar="GUEST")
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    answer = common.ask(args, "Attach", device=args.device, guest=args.guest)
    common.print_json(answer) if args.json else print(answer["message"])
    return 0
