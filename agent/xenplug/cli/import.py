"""Convert another tool's configuration to a policy, and report line by line what could not be converted.

FILE is a guest's xl configuration (usbdev=, usbctrl=, usbdevice=, pci=) or the usb-policy.conf of XCP-ng or XenServer.
A usb-policy.conf names no guest: name it with --guest. The policy goes to stdout, notes go to stderr. Exit code 1 if a
line could not be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xenplug.cli import common
from xenplug.cli.main import Failure
from xenplug.core.printable import printable

if TYPE_CHECKING:
    from xenplug.core.documents.problems import Problem

MAX_INPUT_BYTES = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="xl configuration or usb-policy.conf")
    parser.add_argument("--guest", metavar="NAME", help="the guest for the devices that a usb-policy.conf allows")
    common.add_host(parser)
    common.add_json(parser)
    common.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.adapters.files import Unfit, read_bounded

    try:
        text = read_bounded(args.file, MAX_INPUT_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise Failure(
            f"{args.file}: cannot be read ({error.strerror}); name an xl config or usb-policy.conf", 2
        ) from None
    except Unfit as error:
        raise Failure(str(error), 2) from None
    policy, notes = _xcp(args, text) if _is_xcp(text) else _xl(args, text)
    _verify(policy)
    if args.json:
        from xenplug.service.policy_store import problem_view

        common.print_json({"policy": policy, "notes": [problem_view(note) for note in notes]})
    else:
        print(policy, end="")
        common.print_problems(notes)
    return 1 if any(note.severity == "error" for note in notes) else 0


def _is_xcp(text: str) -> bool:
    lines = [line.strip().lower() for line in text.splitlines()]
    return any(line.startswith(("allow", "deny")) and ":" in line for line in lines)


def _xcp(args: argparse.Namespace, text: str) -> tuple[str, Sequence[Problem]]:
    from xenplug.core.interop import from_xcp
    from xenplug.core.policy import write

    if not args.guest:
        raise Failure(f"{args.file} allows devices but names no guest; name it with --guest NAME", 2)
    lines, bad = from_xcp.read(text, str(args.file))
    if bad:
        # XCP-ng itself ignores the whole file if it cannot read one line.
        common.print_problems(bad)
        raise Failure(f"{args.file}: {common.counted(len(bad), 'line')} cannot be read; fix them first")
    lines, notes = from_xcp.carried(lines, str(args.file))
    rules = (write.rule(entry) for entry in from_xcp.rules(lines, args.guest))
    return f"# From {args.file.name}: the same devices are allowed and denied.\nversion: 1\n" + write.section(
        "rules", rules
    ), notes


def _xl(args: argparse.Namespace, text: str) -> tuple[str, Sequence[Problem]]:
    from xenplug.core.interop import from_xl
    from xenplug.core.interop.xl_cfg import read
    from xenplug.core.policy import write

    settings = read(text)
    if not settings:
        raise Failure(f"{args.file}: neither an xl configuration nor a usb-policy.conf; name one of these", 2)
    devices = {(d.bus, d.number): d for d in common.devices_of(args).values()}
    known = frozenset(str(d.controller) for d in devices.values() if d.controller) | _usb_controllers(args)
    found = from_xl.read(settings, str(args.file), lambda bus, number: devices.get((bus, number)), known)
    guests = (
        [f"  {write.scalar(found.guest)}: {write.flow({'controller': found.controller})}\n"] if found.controller else []
    )
    rules = (write.rule(entry, _plain(comment)) for entry, comment in found.rules)
    head = f"# From {_plain(args.file.name)}.\nversion: 1\n"
    return head + write.section("guests", guests) + write.section("rules", rules), found.notes


def _usb_controllers(args: argparse.Namespace) -> frozenset[str]:
    """USB host controllers by PCI class (0c03xx): one with nothing plugged in is not found through its devices."""
    if args.host and args.host != "udev":
        return frozenset()
    folder = Path(common.settings_of(args).paths.sys) / "bus/pci/devices"
    try:
        return frozenset(d.name for d in folder.iterdir() if (d / "class").read_text().startswith("0x0c03"))
    except OSError:
        return frozenset()


def _plain(text: str) -> str:
    return printable(text)[:100]


def _verify(policy: str) -> None:
    """Raise Failure if the new policy does not load: a bug, or a guest name that no policy can hold."""
    from xenplug.core.policy.load import load

    problems = load({"imported": policy.encode()}).problems
    if problems:
        common.print_problems(problems)
        raise Failure("the imported policy does not load; fix the file it was made from")
