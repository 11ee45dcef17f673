"""Print the words that shells complete: the agent's devices, guests or controllers, each with a description.

For packaging/completions, which then need no other program to read JSON; `xenplug --help` does not list it. One word
per line, separated from its description by a tab. Every text of a device or guest is made printable first: no name can
end a line, start a column or send an escape sequence to the terminal.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from xenplug.cli import common
from xenplug.core.printable import escaped

Completion = tuple[str, str]
Status = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=sorted(WORDS))
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    for line in lines(common.ask(args, "Status")["status"], args.what):
        print(line)
    return 0


def lines(status: Status, what: str) -> Iterator[str]:
    """The lines for one of WORDS."""
    for word, described in WORDS[what](status):
        yield f"{escaped(word)}\t{escaped(described)}"


def _joined(*facts: object) -> str:
    return " ".join(str(fact) for fact in facts if fact)


def _devices(status: Status) -> Iterator[Completion]:
    """By port, and by tag where only one device has it."""
    tags = Counter(device["device"] for device in status["devices"])
    for device in status["devices"]:
        what = (" ".join(device["names"]) or device["product"], device["guest"] and f"in {device['guest']}")
        yield device["port"], _joined(device["device"], *what)
        if tags[device["device"]] == 1:
            yield device["device"], _joined(device["port"], *what)


def _guests(status: Status) -> Iterator[Completion]:
    for guest in status["guests"]:
        yield guest["name"], _joined(guest["type"], guest["state"])


def _controllers(status: Status) -> Iterator[Completion]:
    for controller in status["controllers"]:
        if controller["guest"]:
            yield controller["bdf"], _joined("controller of", controller["guest"])


WORDS: Mapping[str, Callable[[Status], Iterator[Completion]]] = {
    "devices": _devices,
    "guests": _guests,
    "controllers": _controllers,
}
