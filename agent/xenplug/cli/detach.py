"""Take a device from its guest by hand; it stays with the host until it is unplugged or released.

With --all every device that the agent gave to a guest, as when xenplug is removed. What others attached is left.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from xenplug.cli import common
from xenplug.cli.main import Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="a port, an address, a path, or a tag")
    parser.add_argument("--all", action="store_true", help="every device that the agent gave to a guest")
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    if (args.device is None) is not args.all:
        raise Failure("one of these is required: DEVICE or --all; `xenplug detach --help` shows the usage", 2)
    if args.all:
        return _all(args)
    answer = common.ask(args, "Detach", device=args.device)
    common.print_json(answer) if args.json else print(answer["message"])
    return 0


def _all(args: argparse.Namespace) -> int:
    devices: list[dict[str, Any]] = common.ask(args, "Devices")["devices"]
    # What is on its way counts too: it would arrive after the last look.
    away = [d for d in devices if (d["guest"] or d["state"] == "attaching") and d["state"] != "foreign"]
    # What went with its whole controller comes back with it.
    given = dict.fromkeys(d["controller"] if d["via"] == "pci" else d["port"] for d in away)
    messages: list[str] = []
    failures: list[str] = []
    for port in given:
        try:
            messages.append(common.ask(args, "Detach", device=port)["message"])
        except Failure as failure:
            failures.append(str(failure))
    if args.json:
        common.print_json({"messages": messages, "failures": failures})
    else:
        print("\n".join(messages) or "no device is with a guest")
        for line in failures:
            print(f"xenplug: {line}", file=sys.stderr)
    return 1 if failures else 0
