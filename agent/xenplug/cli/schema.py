"""Print the JSON Schema of a file format, for editors (yaml-language-server) and for other programs."""

from __future__ import annotations

import argparse

from xenplug.cli import common

FORMATS = ("policy", "scenario", "settings")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("format", nargs="?", choices=FORMATS, default="policy", help="which format (default: policy)")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.core.documents.document import schema

    common.print_json(schema(args.format))
    return 0
