"""Chaos on real Xen: people, guests and devices do things in random order and at random times, and the agent is killed
among them. Once it is quiet, every device is where a checker, which reads the rules as a person does, expects it, and
no guest has lost its device model.

XENPLUG_LAB_SEEDS="1 2 3" says which orders, XENPLUG_LAB_ACTS how many acts in each, XENPLUG_LAB_MOVES how many quick
moves.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from labkit import Lab, control, wait_until
from labkit.gadgets import Gadget

from xenplug.adapters.client import Client, NoAnswer, RemoteError

SEEDS = os.environ.get("XENPLUG_LAB_SEEDS", "1 2 3").split()
ACTS = int(os.environ.get("XENPLUG_LAB_ACTS", "12"))
MOVES = int(os.environ.get("XENPLUG_LAB_MOVES", "5"))
MOUSE, STICK, BOARD, PAD, KEPT = "046d:c016", "0951:1666", "2341:0043", "054c:0268", "1050:0407"
POLICY = f"""
version: 1
protect: [{{device: "{KEPT}"}}]
rules:
  - {{match: {{device: "{MOUSE}"}}, attach: [kiosk, desk], move: on_start}}
  - {{match: {{device: "{STICK}"}}, attach: kiosk}}
  - {{match: {{device: "{BOARD}"}}, attach: desk}}
  - {{match: {{device: "{KEPT}"}}, attach: kiosk}}
"""
WANTED = {MOUSE: ("kiosk", "desk"), STICK: ("kiosk",), BOARD: ("desk",), PAD: (), KEPT: ()}
"""The same as the checker reads it: the guests of each device, best first."""
GUESTS = ("kiosk", "desk")
NO_EFFECT = {"no_device", "protected", "guest_stopped", "guest_starting", "guest_stopping", "guest_paused"}
"""Refusals of an order that was not noted; all others were noted, and are carried out later."""
QUIET = 240.0
"""Seconds within which everything is in place after the last act: reboots under emulation, and all waits."""


@pytest.fixture(scope="module")
def gadgets(lab: Lab) -> Iterator[dict[str, Gadget]]:
    """Every device, made and unplugged, each on a bus of its own."""
    kinds = {MOUSE: "hid", STICK: "mass_storage", BOARD: "acm", PAD: "hid", KEPT: "hid"}
    made = {tag: lab.gadget(f"c{tag[:4]}", tag, function=kind) for tag, kind in kinds.items()}
    for gadget in made.values():
        gadget.unplug()
    yield made
    for gadget in made.values():
        gadget.delete()


@pytest.fixture
def agent(lab: Lab, gadgets: dict[str, Gadget]) -> Iterator[Client]:
    """The agent with the policy, and nothing plugged in before and after."""
    client = control.start(lab, POLICY)
    yield client
    for gadget in gadgets.values():
        gadget.unplug()
    wait_until(lambda: not control.devices(client), 60, "everything is unplugged")
    lab.must("systemctl stop xenplug", 90)


def aborts(lab: Lab) -> int:
    """How many device models have aborted, of all guests that ran since the lab was booted."""
    return int(lab.must("cat /var/log/xen/qemu-dm-*.log* | grep -ac 'Assertion .* failed' || true"))


class Chaos:
    """The acts, and where each device belongs after them."""

    def __init__(self, lab: Lab, client: Client, gadgets: dict[str, Gadget], seed: str) -> None:
        self.lab, self.client, self.gadgets = lab, client, gadgets
        self.random = random.Random(seed)
        self.plugged: dict[str, str | None] = {}
        """By tag, what a person ordered: a guest, "" for dom0, or None."""
        self.preferred: str | None = None
        self.story: list[str] = []
        self._aborts = aborts(lab)

    def act(self) -> None:
        """One act, and a pause of up to four seconds."""
        choice = self.random.choice
        acts: list[Callable[[], str]] = [self._plug, self._plug, self._pull, self._order, self._prefer, self._reboot]
        self.story.append(choice([*acts, self._order, self._prefer, self._kill])())
        time.sleep(choice([0.0, 0.3, 1.0, 2.0, 4.0]))

    def _plug(self) -> str:
        absent = sorted(self.gadgets.keys() - self.plugged.keys())
        if not absent:
            return "-"
        tag = self.random.choice(absent)
        self.gadgets[tag].plug()
        self.plugged[tag] = None
        return f"plug {tag}"

    def _pull(self) -> str:
        if len(self.plugged) < 3:
            return self._plug()
        tag = self.random.choice(sorted(self.plugged))
        self.gadgets[tag].unplug()
        del self.plugged[tag]
        return f"pull {tag}"

    def _order(self) -> str:
        if not self.plugged:
            return self._plug()
        tag, guest = self.random.choice(sorted(self.plugged)), self.random.choice(GUESTS)
        verb = self.random.choice(["Attach", "Detach", "Release"])
        words = {"device": tag} | ({"guest": guest} if verb == "Attach" else {})
        if self._ask(verb, **words):
            self.plugged[tag] = {"Attach": guest, "Detach": "", "Release": None}[verb]
        return f"{verb} {words}"

    def _prefer(self) -> str:
        guest = self.random.choice([*GUESTS, None])
        if self._ask("Prefer", **({"guest": guest} if guest else {})):
            self.preferred = guest
        return f"prefer {guest}"

    def _reboot(self) -> str:
        guest = self.random.choice(GUESTS)
        self.lab.dom0(f"xl reboot {guest}")  # refused while it boots
        return f"reboot {guest}"

    def _kill(self) -> str:
        self.lab.must("systemctl reset-failed xenplug; systemctl kill -s KILL xenplug")
        return "kill -9"

    def _ask(self, method: str, **words: Any) -> bool:
        """Whether the order was noted. An agent that was just killed is waited for."""
        wait_until(lambda: control.answers(self.client), 60, "the agent's answer")
        try:
            self.client.call(method, **words)
        except RemoteError as refused:
            return refused.cause not in NO_EFFECT
        except NoAnswer:
            pass  # it is carried out later than the client waits
        return True

    def belongs(self, tag: str) -> str | None:
        """The guest that must have the device; None: dom0."""
        ordered = self.plugged[tag]
        if tag == KEPT or ordered == "":
            return None
        if ordered:
            return ordered
        wanted = WANTED[tag]
        return self.preferred if self.preferred in wanted else next(iter(wanted), None)

    def wrong(self) -> list[str]:
        """What is not as it must be now."""
        seen = {name: self.lab.guest_tags(name) for name in GUESTS}
        states = {d["device"]: d for d in control.devices(self.client)}
        found = ["a device model has aborted"] if aborts(self.lab) > self._aborts else []
        found += [f"{tag} is plugged in, and the agent does not know" for tag in self.plugged.keys() - states.keys()]
        for tag, device in states.items():
            right = self.belongs(tag) if tag in self.plugged else "nobody"
            has = [name for name in GUESTS if tag in seen[name]]
            if has != ([right] if right else []) or device["guest"] != right:
                found.append(f"{tag} belongs to {right}, is with {has}, says {device['state']} {device['cause']}")
        return found


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos(lab: Lab, agent: Client, gadgets: dict[str, Gadget], seed: str) -> None:
    chaos = Chaos(lab, agent, gadgets, seed)
    for _ in range(ACTS):
        chaos.act()
    deadline = time.monotonic() + QUIET
    while (wrong := chaos.wrong()) and time.monotonic() < deadline:
        time.sleep(3)
    assert not wrong, "\n".join([f"seed {seed}", *chaos.story, *wrong, lab.agent_log()])


def test_a_quick_change_of_mind_costs_no_guest_its_devices(lab: Lab, agent: Client, gadgets: dict[str, Gadget]) -> None:
    """As soon as a guest has the mouse, another one is preferred: the first guest is still setting the mouse up."""
    gadgets[MOUSE].plug()
    before = aborts(lab)
    chance = random.Random(MOVES)
    for move in range(MOVES):
        guest = GUESTS[move % 2]
        agent.call("Prefer", guest=guest)
        wait_until(lambda: [d["guest"] for d in control.devices(agent)] == [guest], 60, f"move {move} to {guest}", 0.1)  # noqa: B023
        time.sleep(chance.uniform(0, 3))
    assert aborts(lab) == before
    wait_until(lambda: lab.guest_tags(GUESTS[(MOVES - 1) % 2]) == [MOUSE], 60, "the last guest sees the mouse")
    agent.call("Prefer")
