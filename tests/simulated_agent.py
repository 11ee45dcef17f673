"""The real agent on a simulated host, in virtual time, for tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from xenplug.core.model import BusId, ControllerType, Device, GuestType
from xenplug.core.policy.load import load
from xenplug.core.policy.rules import ControllerSpec
from xenplug.core.protocols import Clock
from xenplug.core.reporting.changes import Change
from xenplug.core.settings import Settings
from xenplug.scenario.format import default_controllers, device
from xenplug.scenario.simulated_floor import LedgerInMemory
from xenplug.service.bootstrap import Agent, Backends, Records, assemble
from xenplug.service.history import History
from xenplug.service.policy_store import PolicyStore
from xenplug.simulator import loop
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.sockets import HostController
from xenplug.simulator.toolstack import XlCall
from xenplug.simulator.world import World

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


class RecordingHistory(History):
    """A history that also keeps every change as an object."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.changes: list[Change] = []

    def record(self, change: Change) -> None:
        super().record(change)
        self.changes.append(change)


class SimulatedAgent:
    """A simulated host and, while it runs, the agent on it."""

    def __init__(
        self,
        policy: str,
        *guests: GuestConfig,
        stopped: Sequence[GuestConfig] = (),
        controllers: Sequence[HostController] = default_controllers(),
    ) -> None:
        self.policy = policy
        self.world = World(controllers)
        self.ledger_store = LedgerInMemory(self.world)
        self.history = RecordingHistory(self.world.clock)
        self.after_round: Callable[[], object] | None = None
        self._agent: Agent | None = None
        self._task: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[object] | None = None
        for config in guests:
            self.world.add_guest(config, running=True)
        for config in stopped:
            self.world.add_guest(config)

    @property
    def agent(self) -> Agent:
        assert self._agent
        return self._agent

    @property
    def running(self) -> bool:
        return self._agent is not None

    def backends(self) -> Backends:
        """The simulated host, as the agent sees it."""
        world = self.world
        return Backends(world.bus, world.store, world.commands, world.domains, world.clock)

    async def start(self) -> SimulatedAgent:
        world = self.world
        policies = PolicyStore(lambda: load({"policy.yaml": self.policy.encode()}), world.clock.wall)
        self._agent = assemble(
            self.backends(), Records(self.ledger_store, self.history, self.history), policies, Settings()
        )
        self._agent.reconciler.after_round = self.after_round
        await world.store.connect()
        await self._agent.reconciler.start()
        self._task = asyncio.create_task(self._agent.reconciler.run())
        return self

    async def kill(self) -> None:
        """End the agent as kill -9 does; nothing is written any more."""
        if self._agent is None or self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._agent.reconciler.cancel_all()
        self.world.store.close()
        self._agent = None

    async def stop(self) -> None:
        """As the service manager ends it: acts under way come to their end."""
        assert self._task
        self._task.cancel()
        await self.agent.reconciler.stop()

    async def reload(self, policy: str) -> str:
        """Reload with this policy; returns the agent's message."""
        self.policy = policy
        return (await self.agent.service.reload())[0]

    def reload_soon(self, policy: str) -> None:
        """Reload with this policy, without waiting for the answer."""
        self.policy = policy
        self._reloading = asyncio.create_task(self.agent.service.reload())  # kept, or it might be collected

    def plug(self, port: str, tag: str = "046d:c016", **more: Any) -> Device:
        """Plug a device in, by default a low speed mouse; `more` are keys of a scenario's device."""
        spec = {"kind": "mouse", "speed": "low"} | more
        return self.world.kernel.plug(device({"port": port, "device": tag, **spec}))

    def pull(self, port: str) -> None:
        self.world.kernel.unplug(port)

    def device_json(self, port: str) -> dict[str, Any]:
        """What `xenplug status --json` shows of the device; {} if it is absent."""
        return next((d for d in self.agent.service.devices() if d["port"] == port), {})

    def state_of(self, port: str) -> tuple[str | None, str | None, str | None]:
        """The device's state, cause and guest."""
        view = self.device_json(port)
        return view.get("state"), view.get("cause"), view.get("guest")

    def devices_of(self, guest: str) -> set[str]:
        """The ports of the devices that the guest really has."""
        return {d.port for d in self.world.guest_sees(guest)}

    def xl_calls(self, command: str) -> list[XlCall]:
        """The agent's calls of this xl command."""
        return [c for c in self.world.commands.calls if c.command == command and c.by == "agent"]

    async def wait_until(self, holds: Callable[[], bool], within: float = 60.0) -> float:
        """Wait until it holds; returns the seconds it took. Fails after `within` seconds."""
        begun = asyncio.get_running_loop().time()
        while not holds():
            assert asyncio.get_running_loop().time() - begun <= within, f"not so within {within:.0f} s"
            await asyncio.sleep(0.05)
        return asyncio.get_running_loop().time() - begun


def device_at(simulated: SimulatedAgent, port: str) -> Device:
    """The device at a port of dom0, as the kernel has it."""
    found = simulated.world.kernel.device(BusId(port))
    assert found
    return found


run = loop.run


def in_virtual_time(test: Callable[..., Any]) -> Callable[..., None]:
    """Decorator: run an async test in virtual time."""

    def play(**arguments: Any) -> None:
        run(test(**arguments))

    play.__name__, play.__doc__ = test.__name__, test.__doc__
    play.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return play


async def settle(simulated: SimulatedAgent, seconds: float = 20.0) -> None:
    """Wait, and check that no guest port names a device that is gone."""
    await asyncio.sleep(seconds)
    await simulated.agent.reconciler.next_round_after_now()
    assert simulated.world.stale_ports() == []


async def killed_in_the_middle_of_a_pull() -> SimulatedAgent:
    """The agent has cleared the pulled stick's port, and win's qemu still has its object."""
    simulated = await SimulatedAgent(BOTH, WIN, KIOSK).start()
    simulated.plug("1-1", "0781:5567", kind="storage", speed="high")
    await settle(simulated)
    simulated.pull("1-1")
    await asyncio.sleep(0.05)
    await simulated.kill()
    return simulated


def begin_moving_the_mouse(simulated: SimulatedAgent) -> None:
    """Reload a policy under which the mouse must move to desk, without waiting for the move."""
    simulated.reload_soon(MICE.replace("attach: kiosk", "attach: desk"))
