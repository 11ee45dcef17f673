"""Clear manual overrides and failures of a device; the rules decide again."""

from __future__ import annotations

import argparse

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="a port, an address, a path, a tag, or a PCI address")
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    answer = common.ask(args, "Release", device=args.device)
    common.print_json(answer) if args.json else print(answer["message"])
    return 0
