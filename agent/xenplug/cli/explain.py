"""Show which rule decides for a device: every rule, each key with the expected and the actual value.

If an agent runs, also shows what it plans and what it waits for.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from xenplug.cli import common
from xenplug.cli.main import Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="a port, an address, a path, or a tag")
    common.add_json(parser)
    common.add_policy(parser)
    common.add_host(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    offline = args.policy or args.host
    facts = _offline(args) if offline else _online(args)
    facts = facts | {"held_by": None if args.host not in (None, "udev") else _held_by(args, facts["device"])}
    if args.json:
        common.print_json(facts)
    else:
        _print(facts)
    return 0


def _online(args: argparse.Namespace) -> dict[str, Any]:
    """The agent's explanation; without an agent, that of _offline."""
    from xenplug.adapters.client import ClientError, NoAgent

    try:
        explanation: dict[str, Any] = common.client(args).call("Explain", device=args.device)["explanation"]
    except NoAgent:
        return _offline(args)
    except ClientError as error:
        raise Failure(str(error)) from None
    return explanation


def _offline(args: argparse.Namespace) -> dict[str, Any]:
    """From the policy and the devices alone; what only an agent knows is null."""
    from xenplug.core.ledger.ledger import Ledger
    from xenplug.core.matching.match import Matcher
    from xenplug.core.planning.protection import protection
    from xenplug.core.reporting import explain, views

    matcher, devices = Matcher(common.policy_of(args)), common.devices_of(args)
    found = views.select(devices, args.device)
    if isinstance(found, str):
        raise Failure(found)
    return {
        "device": views.device_facts(found) | views.UNKNOWN_TO_US,
        "decision": explain.decision_view(matcher.decide(found)),
        "protected": protection(matcher, found, devices, Ledger()) is not None,
        "rules": explain.rules_table(matcher, found),
        "plan": None,
        "note": "the plan is unknown: no agent was asked",
    }


def _held_by(args: argparse.Namespace, shown: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Who in dom0 holds the device open, without its guest; None if only root can see that, or if it is no device of
    this host.
    """
    from xenplug.adapters.holders import Holders
    from xenplug.adapters.sysfs import Sysfs
    from xenplug.core.usb.device import describe

    paths = common.read_settings(args)[0].paths
    raw = Sysfs(Path(paths.sys)).read(shown["port"])
    device = describe(raw) if raw else None
    if os.geteuid() != 0 or device is None or (device.tag, device.address) != (shown["device"], shown["address"]):
        return None
    found = Holders(Path(paths.sys), Path(paths.proc), paths.dev).of([device])
    return [
        {"pid": held.pid, "command": held.command, "service": held.service, "nodes": list(held.nodes)}
        for held in found.holders
    ]


def _print(facts: dict[str, Any]) -> None:
    device, decision = facts["device"], facts["decision"]
    print(f"{device['port']}  {device['device']}  {device['product'] or ''}".rstrip())
    for rule in facts["rules"]:
        print(f"  {'=> ' if rule['name'] == decision['rule'] else '   '}{rule['name']} ({rule['rule_ref']})")
        for key in rule["keys"]:
            _print_key(key, 8)
    print(f"decision: {_decision(decision)}")
    if facts.get("protected"):
        print("protected: it stays with the host whatever the rules say")
    for held in facts["held_by"] or []:
        service = f", {held['service']}" if held["service"] else ""
        print(f"held by: {held['command']} (process {held['pid']}{service}): {', '.join(held['nodes'])}")
    for step in facts["plan"] or []:
        print(f"plan: {step}")
    if facts.get("preflight"):
        _print_preflight(facts["preflight"])
    if facts["plan"] is None:
        print(facts["note"])


def _print_key(key: dict[str, Any], indent: int) -> None:
    mark = "yes" if key["holds"] else "no "
    if "inside" not in key:
        actual = ", ".join(key["actual"]) or "nothing"
        print(f"{'':{indent}}{mark} {key['key']}: expected {' or '.join(key['expected'])}, is {actual}")
        return
    below = f" (behind {', '.join(key['actual']) or 'no hub'})" if key["key"] == "below" else ""
    print(f"{'':{indent}}{mark} {key['key']}{below}:")
    for number, group in enumerate(key["inside"]):
        if number:
            print(f"{'':{indent + 4}}or")
        for inner in group:
            _print_key(inner, indent + 4)


def _print_preflight(preflight: dict[str, Any]) -> None:
    print(f"controller {preflight['controller']} to {preflight['guest']}:")
    for sibling in preflight["devices"]:
        print(f"  {'yes' if sibling['goes'] else 'NO '} {sibling['port']} {sibling['device']} {sibling['words']}")
    for note in preflight["notes"]:
        print(f"  note: {note} (according to sysfs)")


def _decision(decision: dict[str, Any]) -> str:
    guests = ", else ".join(decision["guests"])
    words = f"attach to {guests}" if guests else decision["action"]
    if decision.get("inherited"):
        return f"{words} (inherited from rule {decision['rule']}: a device of that rule left this place)"
    return f"{words} ({'rule ' + decision['rule'] if decision['rule'] else 'no rule matches: the default'})"
