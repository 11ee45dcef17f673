"""Print udev rules, generated from the policy, that keep dom0's services off devices meant for guests.

The rules only set tags and properties: udisks (the automounter) ignores the device, ModemManager does not probe it.
Save the output as /etc/udev/rules.d/37-xenplug-guests.rules and run `udevadm control --reload`.
"""

from __future__ import annotations

import argparse
import sys

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_policy(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.core.interop.udev_rules import render

    text, skipped = render(common.policy_of(args))
    sys.stdout.write(text)
    for line in skipped:
        print(f"xenplug: {line}", file=sys.stderr)
    return 0
