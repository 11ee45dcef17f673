"""The USB topology as a tree: host controller, hub, port, device, and the guest of each device.

`devices --tree` prints it. It needs only the devices' JSON: a port path contains the ports of the hubs above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xenplug.cli.layout import Terminal
from xenplug.cli.status_text import MEANINGS, TROUBLED, guest_port_words, name
from xenplug.core.model import natural

Json = Mapping[str, Any]
LINES = ("├─ ", "└─ ", "│  ", "   ")
ASCII_LINES = ("|- ", "`- ", "|  ", "   ")
"""For terminals without box-drawing characters."""


@dataclass(slots=True)
class TreeNode:
    """One line of the tree and the nodes below it."""

    text: str
    below: list[TreeNode] = field(default_factory=list)


def tree(
    devices: Sequence[Json], controllers: Sequence[Json], terminal: Terminal, lines: Sequence[str] = LINES
) -> list[str]:
    """The lines. `controllers` as in the status; controllers that only a device names are added."""
    known: dict[str | None, Json] = {c["bdf"]: c for c in controllers}
    for device in devices:
        known.setdefault(device["controller"], {"bdf": device["controller"], "driver": None, "guest": None})
    written: list[str] = []
    for bdf in sorted(known, key=lambda bdf: (bdf is None, bdf or "")):
        behind = [d for d in devices if d["controller"] == bdf]
        top = TreeNode(terminal.paint("head", _controller(known[bdf], bool(behind))), _nodes(behind, terminal))
        written += [top.text, *_drawn(top.below, "", lines)]
    return written or ["no USB device is plugged in"]


def _controller(controller: Json, used: bool) -> str:
    words = f"controller {controller['bdf']}" if controller["bdf"] else "no PCI controller"
    words += f" ({controller['driver']})" if controller["driver"] else ""
    words += f" -> {controller['guest']}" if controller["guest"] else ""
    for shared, what in (("slot", "in one slot with"), ("bridge", "behind one bridge with")):
        words += f", {what} {', '.join(controller[shared])}" if controller.get(shared) else ""
    return words if used or controller["guest"] else f"{words}, nothing plugged in"


def _nodes(devices: Iterable[Json], terminal: Terminal) -> list[TreeNode]:
    """Each device below the nearest hub that is shown."""
    nodes: dict[str, TreeNode] = {}
    tops: list[TreeNode] = []
    for device in sorted(devices, key=lambda d: natural(d["port"])):
        port = str(device["port"])
        node = nodes[port] = TreeNode(_device(device, terminal))
        above = port
        while "." in above and (above := above.rpartition(".")[0]) not in nodes:
            pass
        (nodes[above].below if above != port and above in nodes else tops).append(node)
    return tops


def _device(device: Json, terminal: Terminal) -> str:
    words = [terminal.paint("head", str(device["port"])), str(device["device"]), name(device) or ""]
    kinds = "/".join(device["kinds"])
    words.append(terminal.paint("faint", " ".join(filter(None, [kinds, device["speed"]]))))
    return "  ".join(filter(None, words)) + _where(device, terminal)


def _where(device: Json, terminal: Terminal) -> str:
    state = device["state"]
    if state is None or (state == "protected" and device["cause"] == "hub"):
        return ""
    wanted = ", ".join(device["wanted"])
    if device["guest"]:
        words = f"{device['guest']}" + (f" (port {guest_port_words(device)})" if guest_port_words(device) else "")
        words += "" if state in ("attached", "pci") else f", {state}"
    elif wanted and (state in TROUBLED or state in ("pending", "attaching")):
        words = f"{wanted}, {state.replace('_', ' ')}"
    else:
        words = str(state)
    return "  " + terminal.paint(MEANINGS.get(state), f"-> {words}")


def _drawn(nodes: Sequence[TreeNode], indent: str, lines: Sequence[str]) -> list[str]:
    fork, corner, through, blank = lines
    written: list[str] = []
    for node in nodes:
        last = node is nodes[-1]
        written.append(indent + (corner if last else fork) + node.text)
        written += _drawn(node.below, indent + (blank if last else through), lines)
    return written
