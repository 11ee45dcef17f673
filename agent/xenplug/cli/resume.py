"""End a pause of the same scope; `all` ends every pause."""

from __future__ import annotations

import argparse

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scope", metavar="all|GUEST|DEVICE", nargs="?", default="all", help="the scope (default: all)")
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    answer = common.ask(args, "Resume", scope=args.scope)
    common.print_json(answer) if args.json else print(answer["message"])
    return 0
