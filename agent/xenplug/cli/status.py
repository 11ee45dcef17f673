"""What is where, and why not: devices, guests with their ports, the policy. Asks the running agent.

Exit code 1 if the policy as last read did not load, or a device is failing or given up: it serves as a health check.
"""

from __future__ import annotations

import argparse
from typing import Any

from xenplug.cli import common

TROUBLED = {"failing", "given_up"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    status: dict[str, Any] = common.ask(args, "Status")["status"]
    if args.json:
        common.print_json(status)
    else:
        _print(status)
    troubled = any(d["state"] in TROUBLED for d in status["devices"])
    policy = status["policy"]
    refused = not policy["loaded"] or any(p["severity"] == "error" for p in policy["problems"])
    return 1 if troubled or refused else 0


def _print(status: dict[str, Any]) -> None:
    policy = status["policy"]
    for problem in policy["problems"]:
        print(f"policy: {common.problem_line(problem)}")
    if not policy["loaded"]:
        print("policy: none in force, nothing is attached; mend it, then `xenplug reload`\n")
    elif policy["problems"]:
        print(f"policy: the one read {policy['since']} stays in force; mend this one, then `xenplug reload`\n")
    devices = sorted(status["devices"], key=lambda d: d["state"] not in TROUBLED)
    rows = [(d["port"], d["device"], d["state"], d["guest"], _spot(d), d["product"], d["reason"]) for d in devices]
    print(common.table(("PORT", "DEVICE", "STATE", "GUEST", "AT", "NAME", "WHY"), rows))
    if status["guests"]:
        print()
        guests = [(g["name"], g["domid"], g["type"], g["state"], _controllers(g)) for g in status["guests"]]
        print(common.table(("GUEST", "ID", "TYPE", "STATE", "USB CONTROLLERS"), guests))


def _spot(device: dict[str, Any]) -> str | None:
    if device["guest_port"] is None:
        return None
    return f"{device['guest_controller']}:{device['guest_port']}"


def _controllers(guest: dict[str, Any]) -> str:
    return ", ".join(
        f"{c['id']}: {c['type']} v{c['version']}, {sum(map(bool, c['ports'].values()))} of {len(c['ports'])} ports used"
        + ("" if c["connected"] else " (no driver in the guest yet)")
        for c in guest["controllers"]
    )
