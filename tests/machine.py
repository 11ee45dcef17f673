"""The base of hypothesis' state machines on a simulated host: virtual time, start and kill of the agent, and a check
that it does not loop without end. HYPOTHESIS_PROFILE=long tries more examples."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.simulated_agent import SimulatedAgent

from xenplug.simulator.loop import VirtualLoop

SPIN = 500
"""More rounds than this within one second count as an endless loop."""
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


class Machine(RuleBasedStateMachine):
    """A host and its agent. A subclass makes the host, and checks the state at the end."""

    QUIET = 400.0
    """Seconds after the last event until nothing changes any more."""

    def __init__(self) -> None:
        super().__init__()
        self._log = logging.getLogger("xenplug")
        self._level = self._log.level
        self._log.setLevel(logging.CRITICAL)
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.plugged: dict[str, Any] = {}
        self.second = self.rounds = 0
        self.wrong: list[str] = []
        self.do(self._begin)

    def make_host(self) -> SimulatedAgent:
        """The host, before the agent starts."""
        raise AssertionError("a machine makes its own host")

    def judge(self) -> None:
        """Check what must hold at the end."""

    async def _begin(self) -> None:
        self.simulated = self.make_host()
        self.simulated.after_round = self.watch
        await self.simulated.start()

    def do(self, act: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return self.loop.run_until_complete(act(*args))

    def now(self, act: Callable[..., object], *args: Any) -> None:
        """Do something to the host that needs a running loop."""

        async def within() -> None:
            act(*args)

        self.do(within)

    async def opened(self) -> None:
        """Wait for the first round: only then does the agent's socket open."""
        if self.simulated.agent.reconciler.round == 0:
            await self.simulated.agent.reconciler.next_round_after_now()

    async def ask(self, verb: str, *args: Any) -> Any:
        """A manual order."""
        await self.opened()
        return await getattr(self.simulated.agent.service, verb)(*args)

    def watch(self) -> None:
        """Called after each round."""
        second = int(self.loop.time())
        self.rounds = self.rounds + 1 if second == self.second else 0
        self.second = second
        if self.rounds > SPIN:
            self.wrong.append(f"more than {SPIN} rounds within a second: {self.simulated.agent.reconciler.view.plan}")
            raise RuntimeError(self.wrong[-1])

    @precondition(lambda self: self.plugged)
    @rule(data=st.data())
    def pull(self, data: st.DataObject) -> None:
        port = data.draw(st.sampled_from(sorted(self.plugged)))
        del self.plugged[port]
        self.now(self.simulated.pull, port)

    @rule(away=st.sampled_from([0.0, 0.3, 2.0, 20.0]))
    def crash(self, away: float) -> None:
        self.do(self.simulated.kill)
        self.do(asyncio.sleep, away)
        self.do(self.simulated.start)

    @invariant()
    def nothing_wrong(self) -> None:
        assert self.wrong == []

    def teardown(self) -> None:
        try:
            self.do(self.end)
            self.now(self._judged)
        finally:
            self.do(self.simulated.kill)
            asyncio.set_event_loop(None)
            self.loop.close()
            self._log.setLevel(self._level)

    async def end(self) -> None:
        await asyncio.sleep(self.QUIET)
        await self.simulated.agent.reconciler.next_round_after_now()

    def _judged(self) -> None:
        assert self.wrong == []
        assert self.simulated.world.stale_ports() == []
        self.judge()


def test_case(machine: type[Machine]) -> Any:
    """The machine as a test."""
    case = machine.TestCase
    profile = settings.get_profile("long" if LONG else "quick")
    case.settings = settings(profile, max_examples=3000 if LONG else 60, stateful_step_count=20)
    return case


test_case.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it because of its name
