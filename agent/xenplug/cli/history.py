"""What happened to a device, or to all, oldest first: what it became, why, and by which rule; over restarts.

DEVICE is a port, an address, a path, a serial or a tag, also of one that is gone by now. Asks the agent; without one
the history file of the settings is read. With --json and --follow one event a line.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from xenplug.cli import common
from xenplug.cli.main import Failure
from xenplug.core.printable import escaped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="only of this one")
    parser.add_argument("--follow", action="store_true", help="stay, and tell what happens from now on")
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.adapters.client import ClientError

    try:
        _show(_events(args), args)
    except ClientError as error:
        raise Failure(str(error)) from None
    return 0


def _show(events: Iterable[dict[str, Any]], args: argparse.Namespace) -> None:
    if args.json and not args.follow:
        common.print_json({"history": list(events)})
        return
    for event in events:
        print(json.dumps(event) if args.json else event_line(event), flush=True)


def event_line(event: dict[str, Any]) -> str:
    return escaped(f"{event.get('at', '-')}  {event.get('line', '')}")


def _events(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from xenplug.adapters.client import NoAgent
    from xenplug.adapters.history import HistoryFile

    asked = {"device": args.device} if args.device else {}
    try:
        for reply in common.client(args).stream("History", **asked, follow=args.follow):
            if reply.get("event"):
                yield reply["event"]
    except NoAgent:
        file = Path(common.settings_of(args).history.file)
        if args.follow or not os.access(file, os.R_OK):  # also where the folder is closed to this user
            raise
        yield from HistoryFile(file).read(args.device)
