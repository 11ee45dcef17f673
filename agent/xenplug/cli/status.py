"""Show where each device is, and why: problems first, then devices, guests with their ports, controllers.

Asks the agent. Exit code 1 if the policy as last read has an error, or if a device is failing or given up, so that it
serves as a health check. With --watch it continues and shows every change; q quits.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from xenplug.cli import common
from xenplug.cli.layout import Terminal, terminal_for
from xenplug.cli.main import Failure
from xenplug.cli.status_text import healthy, status_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="show every change as it happens; q quits")
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    if args.watch:
        return _watch(args)
    status: dict[str, Any] = common.ask(args, "Status")["status"]
    if args.json:
        common.print_json(status)
    else:
        print("\n".join(status_lines(status, terminal_for(sys.stdout))))
    return 0 if healthy(status) else 1


def _watch(args: argparse.Namespace) -> int:
    from xenplug.adapters.client import ClientError
    from xenplug.cli.screen import watch

    client = common.client(args)
    try:
        if args.json:
            for reply in client.stream("Monitor"):
                print(json.dumps(reply["status"]), flush=True)
        else:
            watch(client, status_lines, _text)
    except ClientError as error:
        raise Failure(str(error)) from None
    return 0


def _text(status: dict[str, Any]) -> str:
    return "\n".join([*status_lines(status, Terminal()), ""])
