"""The real agent on a simulated host, in virtual time, for tests: plug, pull, kill, look."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from xenplug.service.bootstrap import Agent, Faces, Notes, assemble
from xenplug.service.history import Chronicle
from xenplug.core.protocols import Clock
from xenplug.core.model import BusId, ControllerType, Device, GuestType
from xenplug.core.reporting.changes import Change
from xenplug.core.policy.load import load
from xenplug.core.policy.rules import ControllerSpec
from xenplug.core.settings import Settings
from xenplug.service.policy_store import Policies
from xenplug.simulator import loop
from xenplug.simulator.domain import GuestConfig
from xenplug.scenario.format import default_controllers, device
from xenplug.simulator.sockets import HostController
from xenplug.simulator.toolstack import Call
from xenplug.simulator.world import World
from xenplug.scenario.simulated_floor import KeptInMemory

QUSB = ControllerSpec(ControllerType.QUSB, 2, 4)
KIOSK = GuestConfig(name="kiosk", type=GuestType.PV, controllers=(QUSB,))
DESK = GuestConfig(name="desk", type=GuestType.PV, controllers=(QUSB,))
WIN = GuestConfig(name="win", type=GuestType.HVM)
BOTH = """version: 1
rules:
  - {name: mice, match: {kind: mouse}, attach: kiosk}
  - {name: sticks, match: {kind: storage}, attach: win}
"""
MICE = "version: 1\nrules: [{name: mice, match: {kind: mouse}, attach: kiosk}]\n"


class Journal(Chronicle):
    """The changes, as they were told."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.changes: list[Change] = []

    def record(self, change: Change) -> None:
        super().record(change)
        self.changes.append(change)


class Rig:
    """A simulated host and, while it lives, the agent on it."""

    def __init__(
        self,
        policy: str,
        *guests: GuestConfig,
        stopped: Sequence[GuestConfig] = (),
        controllers: Sequence[HostController] = default_controllers(),
    ) -> None:
        self.policy = policy
        self.world = World(controllers)
        self.keeper = KeptInMemory(self.world)
        self.journal = Journal(self.world.clock)
        self.after_round: Callable[[], object] | None = None
        self._agent: Agent | None = None
        self._task: asyncio.Task[None] | None = None
        for config in guests:
            self.world.add_guest(config, running=True)
        for config in stopped:
            self.world.add_guest(config)

    @property
    def agent(self) -> Agent:
        assert self._agent
        return self._agent

    @property
    def alive(self) -> bool:
        return self._agent is not None

    def faces(self) -> Faces:
        """What the agent works with."""
        world = self.world
        return Faces(world.bus, world.store, world.commands, world.domains, world.clock)

    async def start(self) -> Rig:
        world = self.world
        policies = Policies(lambda: load({"policy.yaml": self.policy.encode()}), world.clock.wall)
        self._agent = assemble(self.faces(), Notes(self.keeper, self.journal, self.journal), policies, Settings())
        self._agent.reconciler.after_round = self.after_round
        await world.store.connect()
        await self._agent.reconciler.start()
        self._task = asyncio.create_task(self._agent.reconciler.run())
        return self

    async def kill(self) -> None:
        """kill -9."""
        if self._agent is None or self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._agent.reconciler.abandon()
        self.world.store.close()
        self._agent = None

    async def reload(self, policy: str) -> str:
        self.policy = policy
        return (await self.agent.service.reload())[0]

    def plug(self, port: str, tag: str = "046d:c016", **more: Any) -> Device:
        """A low speed mouse, unless told otherwise; `more` as a scenario writes it."""
        spec = {"kind": "mouse", "speed": "low"} | more
        return self.world.kernel.plug(device({"port": port, "device": tag, **spec}))

    def pull(self, port: str) -> None:
        self.world.kernel.unplug(port)

    def at(self, port: str) -> dict[str, Any]:
        """The device's JSON; empty if it is not there."""
        return next((d for d in self.agent.service.devices() if d["port"] == port), {})

    def stands(self, port: str) -> tuple[str | None, str | None, str | None]:
        view = self.at(port)
        return view.get("state"), view.get("cause"), view.get("guest")

    def sees(self, guest: str) -> set[str]:
        """What the guest really has."""
        return {d.port for d in self.world.guest_sees(guest)}

    def calls(self, command: str) -> list[Call]:
        return [c for c in self.world.commands.calls if c.command == command and c.by == "agent"]

    async def until(self, holds: Callable[[], bool], within: float = 60.0) -> float:
        """Wait until it holds; the seconds it took."""
        begun = asyncio.get_running_loop().time()
        while not holds():
            assert asyncio.get_running_loop().time() - begun <= within, "it never held"
            await asyncio.sleep(0.05)
        return asyncio.get_running_loop().time() - begun


def present(rig: Rig, port: str) -> Device:
    found = rig.world.kernel.device(BusId(port))
    assert found
    return found


run = loop.run


def told(test: Callable[..., Any]) -> Callable[..., None]:
    """An async test, in virtual time."""

    def play(**arguments: Any) -> None:
        run(test(**arguments))

    play.__name__, play.__doc__ = test.__name__, test.__doc__
    play.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return play


async def settled(rig: Rig, seconds: float = 20.0) -> None:
    await asyncio.sleep(seconds)
    await rig.agent.reconciler.looked()
    assert rig.world.stale_ports() == []


async def killed_in_the_middle_of_a_pull() -> Rig:
    """The agent has emptied the pulled stick's port, and not yet told win's qemu."""
    rig = await Rig(BOTH, WIN, KIOSK).start()
    rig.plug("1-1", "0781:5567", kind="storage", speed="high")
    await settled(rig)
    rig.pull("1-1")
    await asyncio.sleep(0.05)
    await rig.kill()
    return rig


def moved(rig: Rig) -> None:
    """A better policy comes, and the mouse must move to desk."""
    rig.policy = MICE.replace("attach: kiosk", "attach: desk")
    rig.tasks = [asyncio.create_task(rig.agent.service.reload())]  # type: ignore[attr-defined]
