"""Print the lines of a guest's xl configuration that fit the policy: usbctrl=, passthrough=, pci=.

With pci= the guest has a whole USB host controller from its start, without the agent. Which one depends on the policy's
rules with `via: pci` and on the devices plugged in now. A controller with a protected device is refused.
"""

from __future__ import annotations

import argparse
import sys

from xenplug.cli import common
from xenplug.cli.main import Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("guest", metavar="GUEST", help="a guest, as `xl list` shows it")
    parser.add_argument(
        "--type",
        choices=("pv", "pvh", "hvm"),
        help="how Xen runs the guest (default: hvm if the policy sets a devicemodel controller for it, else pv)",
    )
    common.add_json(parser)
    common.add_policy(parser)
    common.add_host(parser)
    common.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.core.interop.xl_lines import xl_lines
    from xenplug.core.model import ControllerType, GuestType
    from xenplug.core.policy.guests import name_fault

    if fault := name_fault(args.guest):
        raise Failure(fault)
    policy = common.policy_of(args)
    configured = policy.guests.get(args.guest)
    emulated = bool(configured and configured.controller and configured.controller.type is ControllerType.DEVICEMODEL)
    type_ = GuestType(args.type or ("hvm" if emulated else "pv"))
    found = xl_lines(policy, args.guest, type_, common.devices_of(args))
    if args.json:
        facts = {"lines": list(found.lines), "notes": list(found.notes), "refused": list(found.refused)}
        common.print_json({"guest": args.guest, "type": str(type_)} | facts)
    else:
        for note in found.notes:
            print(f"# {note}")
        print("\n".join(found.lines) or f"# {args.guest} needs no line for USB")
        for refusal in found.refused:
            print(f"xenplug: not passed through: {refusal}; plug it into another controller", file=sys.stderr)
    return 1 if found.refused else 0
