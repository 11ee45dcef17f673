"""Write a first policy: ask which guest each device is for, and write the policy and a scenario that tests it.

Without a terminal it asks nothing: pass --give DEVICE=GUEST for each device. The policy is not put in force; the next
steps are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xenplug.cli import common
from xenplug.cli.main import Failure

if TYPE_CHECKING:
    from xenplug.core.model import BusId, Device


NO_GUEST = "; name guests with --give DEVICE=GUEST, or in the file: remove the # from a device's line"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        default=Path("usb.yaml"),
        metavar="FILE",
        help="policy to write (default: usb.yaml)",
    )
    parser.add_argument(
        "--give", action="append", default=[], metavar="DEVICE=GUEST", help="assign without asking; may be repeated"
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    common.add_host(parser)
    common.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.core.policy.init_template import policy_text, scenario_text

    found = common.devices_of(args).items()
    devices = {port: device for port, device in found if not (device.hub or device.partly_hub)}
    if not devices:
        raise Failure("no USB device is plugged in; plug in the devices for the guests, then run this again")
    test = args.file.with_name(f"{args.file.stem}-test.yaml")
    _free(args, test)
    chosen = _assigned(args.give, devices) if args.give or not sys.stdin.isatty() else _asked(devices)
    assigned = [(devices[port], guest) for port, guest in chosen.items()]
    _write(args.file, policy_text(assigned, [device for port, device in devices.items() if port not in chosen]))
    print(f"{args.file}: {common.counted(len(assigned), 'rule')}{'' if assigned else NO_GUEST}")
    if assigned:
        _write(test, scenario_text(assigned, args.file.name))
        print(f"{test}: a scenario that tests it")
    print(_next(args.file, test if assigned else None))
    return 0


def _free(args: argparse.Namespace, test: Path) -> None:
    for file in (args.file, test):
        if file.exists() and not args.force:
            raise Failure(f"{file} exists already; name another file, or use --force")


def _assigned(orders: list[str], devices: Mapping[BusId, Device]) -> dict[BusId, str]:
    """The guest of each device that the command line names, by port."""
    from xenplug.core.reporting import views

    chosen: dict[BusId, str] = {}
    for order in orders:
        name, equals, guest = order.rpartition("=")
        if not equals:
            raise Failure(f"--give {order}: no guest; write DEVICE=GUEST, like 046d:c016=win11", 2)
        found = views.select(devices, name)
        if isinstance(found, str):
            raise Failure(f"--give {order}: {found}")
        _check(guest)
        chosen[found.port] = guest
    return chosen


def _check(guest: str) -> None:
    from xenplug.core.policy.guests import name_fault

    if fault := name_fault(guest):
        raise Failure(f"guest {fault}", 2)


def _asked(devices: Mapping[BusId, Device]) -> dict[BusId, str]:
    """The guest of each device as answered at the terminal, by port."""
    from xenplug.core.policy.guests import name_fault
    from xenplug.core.policy.init_template import called

    print("Which guest is each device for? Enter a name from `xl list`, or nothing to leave the device with the host.")
    chosen: dict[BusId, str] = {}
    for port, device in devices.items():
        while True:
            guest = _answer(f"  {port:<10} {called(device)}: ")
            fault = name_fault(guest) if guest else None
            if fault is None:
                break
            print(f"    {fault}")
        if guest:
            chosen[port] = guest
    return chosen


def _answer(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        return ""


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise Failure(f"{file}: cannot be written ({error.strerror}); name another file") from None


def _next(file: Path, test: Path | None) -> str:
    steps = [f"xenplug check {file}", *([f"xenplug test {test}"] if test else [])]
    steps.append(f"xenplug run --toolstack simulated --policy {file}   # with these devices; changes nothing")
    steps.append(f"xenplug run --dry-run --policy {file}               # on Xen: prints what it would do")
    steps.append(f"install -m 644 {file} {common.POLICY}/ && xenplug reload")
    return "next:\n" + "\n".join(f"  {step}" for step in steps)
