"""List the USB devices of this host, with the values that policies match.

Needs no root. If an agent runs, also shows where each device is.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from xenplug.cli import common, status_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tree", action="store_true", help="draw the USB topology: controller, hub, port, device")
    common.add_json(parser)
    common.add_host(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    devices, controllers, note = _facts(args)
    if args.json:
        common.print_json({"devices": devices} | ({"note": note} if note else {}))
        return 0
    if args.tree:
        print("\n".join(_tree(devices, controllers)))
    else:
        _print(devices)
    if note and not args.host:
        print(f"xenplug: {note}", file=sys.stderr)
    return 0


def _tree(devices: list[dict[str, Any]], controllers: list[dict[str, Any]]) -> list[str]:
    from xenplug.cli.layout import encodable, terminal_for
    from xenplug.cli.tree import ASCII_LINES, LINES, tree

    return tree(
        devices, controllers, terminal_for(sys.stdout), LINES if encodable(LINES[0], sys.stdout) else ASCII_LINES
    )


def _print(devices: list[dict[str, Any]]) -> None:
    rows = [
        (
            d["port"],
            d["address"],
            d["device"],
            d["speed"],
            "/".join(d["kinds"]),
            d["guest"] or d["state"],
            status_text.name(d),
        )
        for d in devices
    ]
    if rows:
        print(common.table(("PORT", "ADDRESS", "DEVICE", "SPEED", "KIND", "WHERE", "NAME"), rows))
    else:
        print("no USB device is plugged in")


def _facts(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str | None]:
    """Devices, host controllers (only an agent knows them), and a note if states are unknown."""
    from xenplug.adapters.client import Client, ClientError
    from xenplug.core.model import natural
    from xenplug.core.reporting import views

    if not args.host:
        try:
            status = Client(common.socket_path(args)).call("Status")["status"]
            return status["devices"], status["controllers"], None
        except ClientError as error:
            note = f"states are unknown: {error}"
    else:
        note = "states are unknown: the devices are read from --host, not from an agent"
    found = common.devices_of(args)
    return (
        [
            views.device_facts(found[port])
            | views.UNKNOWN_TO_US
            | {"wanted": [], "via": None, "rule": None, "rule_ref": None}
            for port in sorted(found, key=natural)
        ],
        [],
        note,
    )
