"""Write the devices plugged in to a file for the option --host: to try a policy elsewhere, or for a bug report.

The format is that of umockdev recordings. Needs no root and changes nothing. A serial number can identify the owner of
a device: --no-serials omits serial numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from xenplug.cli import common
from xenplug.cli.main import Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="output file (default: standard output)")
    parser.add_argument("--no-serials", action="store_true", help="omit serial numbers")
    common.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.adapters.sysfs import Sysfs
    from xenplug.core.usb.recording import render, without_serials

    sysfs = Sysfs(Path(common.settings_of(args).paths.sys))
    devices = [raw for port in sysfs.ports() if (raw := sysfs.read(port))]
    if not devices:
        raise Failure("no USB device is plugged in; plug in the devices to record")
    text = render(map(without_serials, devices) if args.no_serials else devices, sysfs.controllers())
    if args.file is None:
        print(text, end="")
        return 0
    try:
        args.file.write_bytes(text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise Failure(f"{args.file}: cannot be written ({error.strerror}); name another file") from None
    print(f"{args.file}: {common.counted(len(devices), 'device')}; try `xenplug devices --host {args.file}`")
    return 0
