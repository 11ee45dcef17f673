"""The whole status as lines: problems first, then devices, guests with their ports, host controllers, the policy.

`status` prints the lines, `status --watch` redraws them. They are made from the agent's JSON alone, so a recorded
answer shows the host it came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from xenplug.cli import common
from xenplug.cli.layout import Cell, Terminal, table, wrap
from xenplug.core.policy.digest import PolicyIdentity

Json = Mapping[str, Any]
TROUBLED = ("given_up", "failing")
MEANINGS = {
    "attached": "good",
    "pci": "good",
    "failing": "bad",
    "given_up": "bad",
    "pending": "waiting",
    "attaching": "waiting",
    "blocked": "waiting",
    "foreign": "waiting",
    "host": "faint",
    "protected": "faint",
}
"""By state: how it is coloured."""
ORDER = (*TROUBLED, "attaching", "pending", "foreign", "attached", "pci", "blocked", "host", "protected")
"""The order of the list: states that may need a person's attention come first."""


def healthy(status: Json) -> bool:
    """The result of the health check: the policy as last read is in force, and no device is failing or given up."""
    policy = status["policy"]
    refused = not policy["loaded"] or any(p["severity"] == "error" for p in policy["problems"])
    return not refused and not any(d["state"] in TROUBLED for d in status["devices"])


def status_lines(status: Json, terminal: Terminal) -> list[str]:
    """All lines of the status."""
    parts = [
        [*_policy(status["policy"], terminal), *_orders(status, terminal)],
        _problems(status["devices"], terminal),
        _devices(status["devices"], terminal),
        _guests(status, terminal),
        _controllers(status, terminal),
        _in_force(status["policy"]),
    ]
    lines: list[str] = []
    for part in parts:
        lines += [""] * bool(lines and part) + part
    return lines


def _policy(policy: Json, terminal: Terminal) -> list[str]:
    lines = [(p["severity"] == "error", common.problem_line(p)) for p in policy["problems"]]
    if not policy["loaded"]:
        lines.append((True, "none in force, nothing is attached; fix it, then run `xenplug reload`"))
    elif any(bad for bad, _ in lines):
        words = f"the one read {moment(policy['since'])} stays in force; fix this one, then run `xenplug reload`"
        lines.append((True, words))
    return [terminal.paint("bad" if bad else "waiting", f"policy: {text}") for bad, text in lines]


def _in_force(policy: Json) -> list[str]:
    """Which policy is in force; nothing for one without files, or from an agent that does not report it."""
    if not policy["loaded"] or not policy.get("digest"):
        return []
    identity = PolicyIdentity(policy["digest"], policy.get("label"))
    return [f"policy: {identity}, in force since {moment(policy['since'])}"]


def _orders(status: Json, terminal: Terminal) -> list[str]:
    lines = []
    if status["paused"]:
        listed = ", ".join(map(str, status["paused"]))
        lines.append(terminal.paint("waiting", f"paused: {listed}; `xenplug resume` ends the pause"))
    if status["preferred"]:
        lines.append(f"preferred: {status['preferred']}; `xenplug prefer --clear` ends this")
    return lines


def _problems(devices: Sequence[Json], terminal: Terminal) -> list[str]:
    """Each device that failed: the device and its guest, then the reason and the remedy."""
    lines = []
    for device in _sorted(devices):
        if device["state"] not in TROUBLED:
            continue
        where = " or ".join(device["wanted"]) or "a guest"
        rule = f" (rule {device['rule']}, {device['rule_ref']})" if device["rule"] else ""
        what = f"{device['port']} {device['device']} {name(device) or ''}".rstrip()
        state = "given up" if device["state"] == "given_up" else "failing"
        lines.append(terminal.paint("bad", f"{what}: {state}, belongs to {where}{rule}"))
        again = f"; next try at {moment(device['next_try'])}" if device["next_try"] else ""
        width = terminal.width and terminal.width - 4
        lines += [f"    {line}" for line in wrap(f"{device['reason'] or device['cause']}{again}", width)]
    return lines


def _devices(devices: Sequence[Json], terminal: Terminal) -> list[str]:
    if not devices:
        return ["no USB device is plugged in"]
    header = ("PORT", "DEVICE", "STATE", "GUEST", "AT", "NAME", "WHY")
    return table(header, [_device(d) for d in _sorted(devices)], terminal)


def _device(d: Json) -> tuple[object, ...]:
    why = "see above" if d["state"] in TROUBLED else d["reason"]
    state = Cell(str(d["state"]), MEANINGS.get(str(d["state"])))
    return d["port"], d["device"], state, d["guest"], guest_port_words(d), name(d), why


def _guests(status: Json, terminal: Terminal) -> list[str]:
    if not status["guests"]:
        return []
    present = {d["port"] for d in status["devices"]}
    rows = [
        (
            g["name"],
            g["domid"],
            g["type"],
            g["state"],
            ", ".join(controller_words(c, present) for c in g["controllers"]),
        )
        for g in status["guests"]
    ]
    return table(("GUEST", "ID", "TYPE", "STATE", "USB CONTROLLERS"), rows, terminal)


def controller_words(controller: Json, present: set[str]) -> str:
    """A guest's controller and the devices on its ports."""
    used = {port: busid for port, busid in controller["ports"].items() if busid}
    words = f"{controller['id']}: {controller['type']} v{controller['version']}, "
    words += f"{len(used)} of {len(controller['ports'])} ports used"
    if used:
        on = (f"{port}: {busid}{'' if busid in present else ' gone'}" for port, busid in used.items())
        words += f" ({', '.join(on)})"
    return words + ("" if controller["connected"] else " (no driver in the guest yet)")


def _controllers(status: Json, terminal: Terminal) -> list[str]:
    rows = []
    for c in status["controllers"]:
        behind = [d["port"] for d in status["devices"] if d["controller"] == c["bdf"]]
        since = f" since {moment(c['since'])}" if c.get("since") else ""
        rows.append((c["bdf"], c["driver"], (c["guest"] or "") + since, ", ".join(behind)))
    return table(("CONTROLLER", "DRIVER", "GUEST", "DEVICES"), rows, terminal) if rows else []


def _sorted(devices: Sequence[Json]) -> list[Json]:
    return sorted(devices, key=lambda d: ORDER.index(d["state"]) if d["state"] in ORDER else len(ORDER))


def name(device: Json) -> str | None:
    """The device's product name, or the name from the hardware database."""
    found: str | None = device["product"] or (device["names"][-1] if device["names"] else None)
    return found


def guest_port_words(device: Json) -> str | None:
    """CONTROLLER:PORT in the guest."""
    if device["guest_port"] is None:
        return None
    return f"{device['guest_controller']}:{device['guest_port']}"


def moment(text: str | None) -> str:
    """A time of the JSON as local time, in seconds."""
    if not text:
        return "at an unknown time"
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
