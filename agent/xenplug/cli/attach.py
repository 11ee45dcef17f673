"""Attach a device to a guest: a manual override, until the device is unplugged or released.

It is stronger than the rules, but a protected device is refused. A device that another guest has moves to GUEST. Waits
until the guest has the device, or shows why this failed.
"""

from __future__ import annotations

import argparse

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="a port, an address, a path, or a tag")
    parser.add_argument("guest", metavar="GUEST", help="a guest, as `xl list` shows it")
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    answer = common.ask(args, "Attach", device=args.device, guest=args.guest)
    common.print_json(answer) if args.json else print(answer["message"])
    return 0
