"""Detach a device from its guest: a manual override, until the device is unplugged or released.

The PCI address of a host controller detaches that controller with all its devices. With --all, detach every device
that the agent attached; devices that someone else attached stay attached.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from xenplug.cli import common
from xenplug.cli.main import Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "device", metavar="DEVICE", nargs="?", help="a port, an address, a path, a tag, or a PCI address"
    )
    parser.add_argument("--all", action="store_true", help="every device that the agent attached")
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
    # Devices that are being attached count too: they would arrive after this list was read.
    away = [d for d in devices if (d["guest"] or d["state"] == "attaching") and d["state"] != "foreign"]
    # A device that was passed through with its controller comes back with it.
    names = dict.fromkeys(d["controller"] if d["via"] == "pci" else d["port"] for d in away)
    messages: list[str] = []
    failures: list[str] = []
    for name in names:
        try:
            messages.append(common.ask(args, "Detach", device=name)["message"])
        except Failure as failure:
            failures.append(str(failure))
    if args.json:
        common.print_json({"messages": messages, "failures": failures})
    else:
        print("\n".join(messages) or "no device is attached to a guest")
        for line in failures:
            print(f"xenplug: {line}", file=sys.stderr)
    return 1 if failures else 0
