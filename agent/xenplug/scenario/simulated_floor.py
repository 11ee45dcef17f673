"""A scenario on the simulated host: the real agent on the simulator's backends, in virtual time.

Used by `xenplug simulate`, `xenplug test` and the project's own tests. The bench and the lab play the same files on
their own floors.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xenplug.adapters.varlink import Refused
from xenplug.core.documents.document import Node
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.serialize import from_json, to_json
from xenplug.core.model import BusId, Device
from xenplug.core.policy.load import Loaded, load_node
from xenplug.core.settings import Settings
from xenplug.scenario.expect import Observation
from xenplug.scenario.format import GuestSpec, Scenario, controller_spec, family, moved, seconds
from xenplug.scenario.runner import Runner, ScenarioResult, Tell, Unplayable
from xenplug.service.bootstrap import Agent, Backends, Records, assemble
from xenplug.service.history import History
from xenplug.service.policy_store import PolicyStore, read_policy
from xenplug.simulator import loop
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.toolstack import HostFacts
from xenplug.simulator.world import World

log = logging.getLogger("xenplug")


class LedgerInMemory:
    """A ledger store in memory, in the file's format: a simulated kill -9 loses the same data as a real one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept: dict[str, Any] | None = None

    def load(self) -> Ledger:
        """The ledger saved last."""
        now = self._world.clock.now()
        return Ledger(at=now) if self._kept is None else from_json(self._kept, now)

    def save(self, ledger: Ledger) -> None:
        """Keep it."""
        self._kept = to_json(ledger)


class _Lines(logging.Handler):
    """Collects the agent's log lines, and passes each to `tell`."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._tell(f"    {record.getMessage()}")


def guest_config(name: str, spec: GuestSpec) -> GuestConfig:
    """The guest's configuration for the simulator."""
    config = GuestConfig(
        name=name,
        type=spec.type,
        controllers=tuple(controller_spec(c) for c in spec.controllers),
        frontend=spec.frontend,
        device_model=spec.device_model,
        passthrough=spec.passthrough,
        kept=spec.kept,
    )
    return config if spec.boots_in is None else replace(config, boots_in=spec.boots_in)


@dataclass(slots=True)
class _Running:
    """An agent and its loop."""

    agent: Agent
    task: asyncio.Task[None]


class SimulatedFloor:
    """The simulated host with an agent on it."""

    def __init__(self, scenario: Scenario, tell: Tell) -> None:
        self._scenario = scenario
        self._lines = _Lines(tell)
        self.world = World(scenario.controllers, HostFacts(iommu=scenario.iommu))
        self._ledger_store = LedgerInMemory(self.world)
        self._history = History(self.world.clock)
        self._policy: str | Node = scenario.policy
        self._running: _Running | None = None
        self._log_was: tuple[bool, int] | None = None
        self._past: list[Mapping[str, Any]] = []
        self._keeps_past = "never" in str(scenario.timeline)

    async def open(self) -> None:
        """Create the host in the scenario's first state, and start the agent."""
        try:
            for device in self._scenario.devices:
                self._plug(device, settled=True)
            for name, spec in self._scenario.guests.items():
                self.world.add_guest(guest_config(name, spec), running=spec.running)
        except ValueError as error:
            raise Unplayable(str(error)) from None
        self._log_was = log.propagate, log.level
        log.addHandler(self._lines)
        log.propagate = False
        log.setLevel(logging.INFO)
        await self._start()

    async def close(self) -> None:
        """End the agent."""
        if self._log_was:
            log.removeHandler(self._lines)
            log.propagate, level = self._log_was
            log.setLevel(level)
        await self._kill()

    async def _start(self) -> None:
        backends = Backends(self.world.bus, self.world.store, self.world.commands, self.world.domains, self.world.clock)
        policy_store = PolicyStore(self._read_policy, self.world.clock.wall)
        agent = assemble(backends, Records(self._ledger_store, self._history, self._history), policy_store, Settings())
        if self._keeps_past:
            agent.reconciler.after_round = lambda: self._past.append(agent.service.status())
        await self.world.store.connect()
        await agent.reconciler.start()
        await agent.reconciler.run_round()
        self._running = _Running(agent, asyncio.get_running_loop().create_task(agent.reconciler.run()))

    async def _kill(self) -> None:
        if self._running is None:
            return
        self._running.task.cancel()
        with suppress(asyncio.CancelledError):
            await self._running.task
        await self._running.agent.reconciler.cancel_all()
        self.world.store.close()
        self._running = None

    def _read_policy(self) -> Loaded:
        if isinstance(self._policy, Node):
            return load_node(self._policy, self._scenario.file)
        return read_policy(self._next_to_scenario(self._policy))

    def _next_to_scenario(self, name: str) -> Path:
        return Path(os.path.normpath(Path(self._scenario.file).parent / name))

    def unloaded(self) -> list[str]:
        """Why the policy that the scenario begins with is not in force."""
        policy_store = self.agent.policy_store
        return [] if policy_store.policy else [str(problem) for problem in policy_store.problems]

    @property
    def agent(self) -> Agent:
        """The running agent."""
        if self._running is None:
            raise Unplayable("no agent is running")
        return self._running.agent

    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.world.clock.now()

    async def observe(self) -> Observation:
        """The agent's status after a round that starts now, and what the simulator knows."""
        await self.agent.reconciler.next_round_after_now()
        return Observation(
            self.agent.service.status(),
            len(self.world.stale_ports()),
            Counter(call.command for call in self.world.commands.calls if call.by == "agent"),
            tuple(self._lines.lines),
            tuple(self._past),
        )

    async def command(self, words: list[str]) -> tuple[int, str]:
        """Run a xenplug command, as through the control socket."""
        service = self.agent.service
        known: Mapping[str, tuple[int, Callable[..., Any]]] = {
            "attach": (2, service.attach),
            "detach": (1, service.detach),
            "release": (1, service.release),
            "reload": (0, service.reload),
            "pause": (1, service.pause),
            "resume": (1, service.resume),
            "prefer": (1, lambda guest: service.prefer(None if guest == "--clear" else guest)),
        }
        name, *rest = words
        if name not in known or len(rest) != known[name][0]:
            raise Unplayable(f"command {' '.join(words)}: a scenario can run {', '.join(known)} with their arguments")
        try:
            said = await known[name][1](*rest)
        except Refused as refused:
            return 1, str(refused.parameters["reason"])
        if name == "reload":
            return (1 if said[1] else 0), said[0]
        return 0, said

    async def act(self, verb: str, value: Any) -> None:
        """Do one verb. Raises Unplayable if the host cannot."""
        try:
            await self._act(verb, value)
        except ValueError as error:
            raise Unplayable(str(error)) from None

    async def _act(self, verb: str, value: Any) -> None:
        guests = self.world.guests
        on_guest: Mapping[str, Callable[[str], None]] = {
            "start": guests.start,
            "stop": guests.stop,
            "reboot": guests.reboot,
            "destroy": guests.destroy,
            "pause": guests.pause,
            "unpause": guests.unpause,
        }
        if verb in on_guest:
            on_guest[verb](value)
            return
        await getattr(self, f"_do_{verb}")(value)

    async def _do_plug(self, spec: Mapping[str, Any]) -> None:
        for device in family(spec):
            self._plug(device)

    def _plug(self, device: Device, settled: bool = False) -> None:
        if not device.configured:
            self.world.kernel.deconfigured.add(device.tag)
        self.world.kernel.plug(device, settled)

    async def _do_unplug(self, port: str) -> None:
        self.world.kernel.unplug(port)

    async def _do_reenumerate(self, value: Mapping[str, str]) -> None:
        old = self.world.kernel.device(BusId(value["port"]))
        self.world.kernel.reenumerate(value["port"], moved(old, value.get("device")) if old else None)

    async def _do_frontend(self, value: Mapping[str, str]) -> None:
        self.world.guests.frontend(value["guest"], value["connected"] in ("yes", "true"))

    async def _do_device_model(self, value: Mapping[str, str]) -> None:
        self.world.guests.device_model(value["guest"], value["alive"] in ("yes", "true"))

    async def _do_crash(self, _: str) -> None:
        """kill -9; the service manager starts it again."""
        await self._kill()
        await self._start()

    async def _do_restart(self, _: str) -> None:
        await self.agent.reconciler.stop()
        await self._kill()
        await self._start()

    async def _do_lose(self, what: str) -> None:
        if what == "udev":
            self.world.bus.lose()
        else:
            self.world.store.lose()

    async def _do_suspend(self, value: str) -> None:
        self.world.suspend(seconds(value))

    async def _do_fail(self, value: Mapping[str, str]) -> None:
        self.world.commands.failures.plan(value["command"], int(value.get("times", "1")), value["how"])

    async def _do_reload(self, value: str | Node) -> None:
        if isinstance(value, str) and not self._next_to_scenario(value).exists():
            raise ValueError(f"policy {value}: no such file or folder next to {self._scenario.file}")
        before, self._policy = self._policy, value
        _message, problems = await self.agent.service.reload()
        if problems:
            self._policy = before

    async def _do_xl(self, words: Sequence[str]) -> None:
        result = await self.world.commands.console(words)
        if "command not implemented" in result.stderr:
            raise Unplayable(f"xl {words[0]}: the simulated xl does not have this command")


def play(scenario: Scenario, tell: Callable[[float, str], None]) -> ScenarioResult:
    """Play one scenario from beginning to end in virtual time. `tell` gets the time and a line."""

    async def main() -> ScenarioResult:
        def tell_with_time(line: str) -> None:
            tell(asyncio.get_running_loop().time(), line)

        floor = SimulatedFloor(scenario, tell_with_time)
        try:
            await floor.open()
            if floor.unloaded():
                return ScenarioResult(scenario, floor.unloaded())
            return await Runner(floor, scenario, tell_with_time).play()
        except Unplayable as error:
            return ScenarioResult(scenario, [f"{scenario.file}: {error}"])
        finally:
            await floor.close()

    return loop.run(main())
