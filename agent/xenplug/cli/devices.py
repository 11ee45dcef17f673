"""List the USB devices of this host, as policies can match them.

Needs no root. With an agent running it also tells where each device is.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_json(parser)
    common.add_host(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    devices, note = _facts(args)
    if args.json:
        common.print_json({"devices": devices} | ({"note": note} if note else {}))
        return 0
    rows = [
        (d["port"], d["address"], d["device"], d["speed"], "/".join(d["kinds"]), d["guest"] or d["state"], _name(d))
        for d in devices
    ]
    if rows:
        print(common.table(("PORT", "ADDRESS", "DEVICE", "SPEED", "KIND", "WHERE", "NAME"), rows))
    else:
        print("no USB device is plugged in")
    if note and not args.host:
        print(f"xenplug: {note}", file=sys.stderr)
    return 0


def _facts(args: argparse.Namespace) -> tuple[list[dict[str, Any]], str | None]:
    from xenplug.core import views
    from xenplug.core.plan import natural
    from xenplug.shell.client import Client, ClientError

    if not args.host:
        try:
            return Client(common.socket_path(args)).call("Devices")["devices"], None
        except ClientError as error:
            note = f"states are not known: {error}"
    else:
        note = "states are not known: the devices are read from --host, not from an agent"
    found = common.devices_of(args)
    return [
        views.device_facts(found[port])
        | views.UNKNOWN_TO_US
        | {"wanted": [], "via": None, "rule": None, "rule_ref": None}
        for port in sorted(found, key=natural)
    ], note


def _name(device: dict[str, Any]) -> str | None:
    return device["product"] or (device["names"][-1] if device["names"] else None)
