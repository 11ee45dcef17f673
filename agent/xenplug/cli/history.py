"""Show what happened to a device, or to all devices, oldest first: each new state, its reason and its rule.

DEVICE is a port, an address, a path, a serial number or a tag; the device need not be plugged in any more. Orders are
shown with who gave them, and each reading of the policy with its digest. Asks the agent; without one, reads the history
file that the settings name. With --json and --follow, prints one event per line.
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
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="only this device")
    parser.add_argument("--follow", action="store_true", help="continue with what happens from now on")
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
    """An event in one line, with who asked for it."""
    who = _asked_by(event)
    return escaped(f"{event.get('at', '-')}  {event.get('line', '')}{who and f'; {who}'}")


def _asked_by(event: dict[str, Any]) -> str:
    """Who asked, in words; empty for an event that nobody asked for, or that an older agent stored."""
    uid, user, pid = event.get("uid"), event.get("user"), event.get("pid")
    known = [f"{user} (uid {uid})" if user else f"uid {uid}"] if uid is not None else []
    known += [f"process {pid}"] if pid is not None else []
    who = f"by {', '.join(known)} " if known else ""
    ways = {"socket": "over the control socket", "signal": "by a signal", "console": "from the console"}
    way = ways.get(str(event.get("way")))
    return f"asked {who}{way}" if way else ""


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
        if args.follow or not os.access(file, os.R_OK):  # not readable: also if the user has no access to the folder
            raise
        yield from HistoryFile(file).read(args.device)
