"""Check this host for known problems with Xen and USB, and print a remedy for each.

Changes nothing. Run it as root: what an ordinary user cannot read is reported as unknown. Exit code 1 if a check fails;
warnings alone exit with 0.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenplug.cli import common

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xenplug.adapters.holders import Held
    from xenplug.core.doctor.checks import Examined
    from xenplug.core.doctor.facts import Facts, Install, RunningGuest
    from xenplug.core.model import Device
    from xenplug.core.settings import Settings

MARKS = {"good": "good   ", "bad": "BAD    ", "warning": "warning", "unknown": "unknown"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="also list the checks that pass")
    parser.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR", help="check the files of the system below DIR"
    )
    common.add_policy(parser)
    common.add_json(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.core.doctor.checks import examine, sound, view

    examined = examine(asyncio.run(_facts(args)))
    if args.json:
        common.print_json(view(examined))
    else:
        _print(examined, args.all)
    return 0 if sound(examined) else 1


async def _facts(args: argparse.Namespace) -> Facts:
    from xenplug.adapters import doctor_facts
    from xenplug.adapters.domains import XenDomains
    from xenplug.adapters.host_files import HostFiles, configs
    from xenplug.adapters.host_system import read_host_system
    from xenplug.adapters.proc import Processes
    from xenplug.adapters.sysfs import Sysfs
    from xenplug.adapters.xenstore import Xenstore, default_socket
    from xenplug.core.doctor.facts import Facts
    from xenplug.service.policy_store import read_policy

    settings, _origins, problems = common.read_settings(args)
    tree, paths = HostFiles(args.root), settings.paths
    policy = args.policy or tree.at(str(common.POLICY))
    loaded = read_policy(policy)
    socket = paths.xenstored or default_socket()
    domains = XenDomains(Path(paths.xen_lib), Path(paths.proc), Path(paths.dev))
    backends = doctor_facts.DoctorBackends(Processes(), Xenstore(socket), domains)
    toolstack = await doctor_facts.toolstack(tree, backends, settings, socket)  # connects to xenstore
    usb = doctor_facts.usb(tree, settings)
    seen = await doctor_facts.guests(backends, settings, usb.devices)
    held = _held(args, settings, usb.devices.values(), seen.running or ())
    return Facts(
        root=os.geteuid() == 0,
        system=read_host_system(args.root),
        toolstack=toolstack,
        settings=settings,
        policy=loaded.policy,
        problems=tuple(str(problem) for problem in (*problems, *loaded.problems)),
        configs=configs(tree),
        running=seen.running,
        moving=seen.moving,
        beyond=seen.beyond,
        waiting=doctor_facts.waiting(tree, settings),
        saved_to=doctor_facts.saved_to(tree),
        saved_by=doctor_facts.saved_by(tree),
        present=frozenset(Sysfs(tree.at(paths.sys)).ports()),
        usb=usb,
        install=_install(args, doctor_facts.install(tree, settings, args.policy or common.POLICY), loaded.policy),
        others=doctor_facts.others(tree),
        holders=held.holders,
        holders_complete=held.complete,
    )


def _held(
    args: argparse.Namespace, settings: Settings, devices: Iterable[Device], running: Iterable[RunningGuest]
) -> Held:
    """Who holds the devices open in dom0; nobody is looked for in the files of another system."""
    from xenplug.adapters.holders import Held, Holders

    if args.root != Path("/"):
        return Held()
    models = [seen.guest.device_model for seen in running if seen.guest.device_model]
    paths = settings.paths
    return Holders(Path(paths.sys), Path(paths.proc), paths.dev).of(devices, models)


def _install(args: argparse.Namespace, found: Install, policy: Any) -> Install:
    """The installation with what the running agent and the policy add."""
    from xenplug import __version__
    from xenplug.adapters.client import Client, ClientError
    from xenplug.core.interop.udev_rules import render

    agent = None
    if args.root == Path("/"):
        try:
            agent = str(Client(common.socket_path(args), timeout=10).call("Status")["status"]["version"])
        except ClientError:
            agent = None
    return replace(found, version=__version__, agent=agent, wanted_rules=render(policy)[0] if policy else None)


def _print(examined: Examined, everything: bool) -> None:
    from xenplug.cli.layout import terminal_for, wrap

    terminal = terminal_for(sys.stdout)
    width = terminal.width and terminal.width - 9
    for check, findings in examined:
        if not findings and everything:
            print(f"{terminal.paint('good', MARKS['good'])}  {check.title}")
        for finding in findings:
            first, *rest = wrap(f"{finding.fact}; {finding.remedy} [{check.name}]", width)
            meaning = "bad" if finding.severity == "bad" else "waiting"
            print(f"{terminal.paint(meaning, MARKS[str(finding.severity)])}  {first}")
            for line in rest:
                print(f"{'':9}{line}")
    good = sum(not findings for _, findings in examined)
    print(f"{good} of {len(examined)} checks good" + ("" if everything else "; --all lists them"))
