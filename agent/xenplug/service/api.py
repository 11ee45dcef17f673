"""What the agent answers on its control socket, to the commands and to other programs alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from xenplug import __version__
from xenplug.adapters.requesters import requester
from xenplug.adapters.varlink import Refused
from xenplug.core.ledger import orders
from xenplug.core.ledger.records import PAUSE_ALL, OrderAction, Override, Pause, PauseScope
from xenplug.core.matching.match import Matcher
from xenplug.core.model import BusId, Device, GuestState
from xenplug.core.planning.steps import Cause, State, Verdict
from xenplug.core.policy.rules import Policy
from xenplug.core.reporting import explain, views
from xenplug.core.reporting.orders import Order, without_requester
from xenplug.core.reporting.views import StatusInput
from xenplug.engine.reconciler import Reconciler
from xenplug.service.controller_orders import Controllers, bdf_of, refuse_passed
from xenplug.service.history import History, is_about
from xenplug.service.order_log import OrderLog, recorded
from xenplug.service.policy_store import PolicyStore, problem_view

Json = dict[str, Any]

ORDER_TIMEOUT = 30.0
"""Seconds that attach and detach wait for the result to report it; the agent continues in any case."""


class Service:
    """Answers questions and takes orders."""

    def __init__(self, reconciler: Reconciler, policy_store: PolicyStore, history: History) -> None:
        self._agent = reconciler
        self._policy_store = policy_store
        self._controllers = Controllers(reconciler)
        self._history = history
        self.order_log = OrderLog(history)
        self._status: tuple[tuple[object, ...], Json] = ((), {})

    def status(self) -> Json:
        """`status --json` of the last round. Callers must not change it: it is computed once between two changes."""
        facts = (self._agent.view, self._agent.ledger, self._policy_store.policy, self._policy_store.problems)
        if len(self._status[0]) != len(facts) or any(a is not b for a, b in zip(self._status[0], facts, strict=True)):
            self._status = (facts, self._status_now())
        return self._status[1]

    def _status_now(self) -> Json:
        view, ledger = self._agent.view, self._agent.ledger
        policy, named = self._policy_store.view(), self._policy_store.named
        passed = self._controllers.passed()
        status = StatusInput(__version__, policy, view.snapshot, view.plan.verdicts, named, view.timings, passed)
        return views.status_view(replace(status, preferred=ledger.orders.preferred, paused=orders.paused_names(ledger)))

    def devices(self) -> list[Json]:
        """The devices of `status`."""
        devices: list[Json] = self.status()["devices"]
        return devices

    def explanation(self, device: str) -> Json:
        """`explain --json`."""
        verdict = self._verdict(self._select(device))
        matcher = self._agent.matcher or Matcher(Policy())
        plan = self._agent.view.plan
        return {
            "device": views.device_view(verdict, self._agent.view.timings.get(verdict.device.port, views.Timing())),
            "decision": explain.decision_view(verdict.decision),
            "rules": explain.rules_table(matcher, verdict.device),
            "plan": explain.next_steps(plan.steps, verdict),
            "preflight": next((f for f in plan.preflights if f["controller"] == verdict.device.controller), None),
        }

    @recorded
    async def attach(self, device: str, guest: str) -> str:
        """Manual override: attach a device to a guest, until it is unplugged or released."""
        chosen = self._select(device)
        verdict = self._verdict(chosen)
        if verdict.state is State.PROTECTED:
            raise Refused("protected", f"{explain.device_name(chosen)} is protected: {explain.reason(verdict)}")
        if verdict.state is State.FOREIGN:
            raise Refused("foreign", f"{explain.device_name(chosen)}: {explain.reason(verdict)}")
        refuse_passed(verdict)
        if verdict.decision.over_protect:
            raise Refused("protected", f"{explain.device_name(chosen)} is protected: {explain.reason(verdict)}")
        if chosen.partly_hub:
            why = explain.reason(replace(verdict, state=State.GIVEN_UP, cause=Cause.HUB))
            raise Refused("hub", f"{explain.device_name(chosen)}: {why}")
        self._running(guest)
        at = verdict.guest if verdict.guest != guest else None
        return await self._ordered(chosen, Override(OrderAction.ATTACH, guest, back=at), _attached_to(guest))

    @recorded
    async def detach(self, device: str) -> str:
        """Manual override: detach a device (or, by its BDF, a whole controller) from its guest, until it is
        released.
        """
        if bdf := bdf_of(device):
            return await self._controllers.detach(bdf)
        chosen = self._select(device)
        verdict = self._verdict(chosen)
        if verdict.state is State.FOREIGN:
            raise Refused("foreign", f"{explain.device_name(chosen)}: {explain.reason(verdict)}")
        refuse_passed(verdict)
        return await self._ordered(chosen, Override(OrderAction.DETACH), lambda v: v.guest is None)

    @recorded
    async def release(self, device: str) -> str:
        """Clear the manual override and the failures of a device: the rules decide again."""
        if bdf := bdf_of(device):
            return await self._controllers.release(bdf)
        chosen = self._select(device)
        self._agent.apply_order(lambda ledger: orders.release(ledger, chosen))
        await self._agent.next_round_after_now()
        return explain.headline(self._verdict(chosen))

    @recorded
    async def pause(self, scope: str) -> str:
        """Pause everything, a guest, or a device's port: the agent then leaves it alone."""
        what = self._paused_by(scope)
        self._agent.apply_order(lambda ledger: orders.pause(ledger, what))
        await self._agent.next_round_after_now()
        return (
            f"paused: {', '.join(orders.paused_names(self._agent.ledger))}; `xenplug resume {what.name}` ends the pause"
        )

    @recorded
    async def resume(self, scope: str) -> str:
        """End a pause; `all` ends every pause."""
        what = self._paused_by(scope)
        self._agent.apply_order(lambda ledger: orders.resume(ledger, what))
        await self._agent.next_round_after_now()
        return (
            f"still paused: {', '.join(left)}"
            if (left := orders.paused_names(self._agent.ledger))
            else "nothing is paused"
        )

    def _paused_by(self, scope: str) -> Pause:
        """The pause that SCOPE on a command line means. A pause in force is found even if its guest or device is
        gone.
        """
        guest, port = Pause(PauseScope.GUEST, scope), Pause(PauseScope.PORT, scope)
        paused = self._agent.ledger.orders.paused
        if scope == PAUSE_ALL.name:
            return PAUSE_ALL
        if scope in self._known() or guest in paused:
            return guest
        return port if port in paused else Pause(PauseScope.PORT, self._select(scope).port)

    def _known(self) -> set[str]:
        return {*self._agent.view.snapshot.guests, *self._policy_store.named}

    @recorded
    async def prefer(self, guest: str | None) -> str:
        """Give this guest priority in every list that names it; None: no guest has priority."""
        if guest is not None and guest not in self._known():
            raise Refused("no_guest", f"no guest named {guest!r} runs or is in the policy; see `xl list`")
        self._agent.apply_order(lambda ledger: orders.prefer(ledger, guest))
        await self._agent.next_round_after_now()
        return f"{guest} comes first wherever it is listed" if guest else "no guest is preferred"

    async def history(self, device: str | None, follow: bool) -> AsyncIterator[Json]:
        """The events of one device or of all, oldest first; with `follow`, then new events as they happen."""
        async for event in self.history_stream(device, follow):
            if event is not None:
                yield event

    async def history_stream(self, device: str | None, follow: bool) -> AsyncIterator[Json | None]:
        """As `history`, with None for each event of another device, so that the server can serve others in between."""
        with self._history.listen() as news:
            for event in self._history.read():
                yield event if device is None or is_about(event, device) else None
            while follow:
                new = await news.get()
                if new is None:
                    return
                if device is None or is_about(new, device):
                    yield new

    async def reload(self) -> tuple[str, list[Json]]:
        """Reload the policy."""
        before, store = self._policy_store.identity, self._policy_store
        if store.reload():
            self._agent.set_policy(store.policy)
        self.order_log.policy("reload", before, store.identity, store.message)
        await self._agent.next_round_after_now()
        return self._policy_store.message, [problem_view(p) for p in self._policy_store.problems]

    def started(self) -> None:
        """Put the start of the agent, with the policy that it began with, into the history."""
        self.order_log.policy("start", None, self._policy_store.identity, self._policy_store.message)

    def order_of(self, name: str, *words: str | None) -> Order:
        """What a command's name and words mean, for the history. Never raises."""
        typed = tuple(word for word in words if word is not None)
        first = typed[0] if typed else ""
        if name == "prefer":
            return Order(name, typed or ("--clear",), guest=first or None)
        if name in ("pause", "resume") and (first == PAUSE_ALL.name or first in self._known()):
            return Order(name, typed, guest=None if first == PAUSE_ALL.name else first)
        guest = typed[1] if len(typed) > 1 else None
        if bdf := bdf_of(first):
            return Order(name, typed, controller=bdf, guest=guest)
        found = views.select(self._shown(), first)
        return Order(name, typed, None if isinstance(found, str) else found, guest=guest)

    async def monitor(self) -> AsyncIterator[Json]:
        """The status now, and again after each change."""
        last: Json | None = None
        while True:
            status = self.status()
            if status != last:
                last = status
                yield status
            await self._agent.next_round()

    def _select(self, text: str) -> Device:
        found = views.select(self._shown(), text)
        if isinstance(found, str):
            raise Refused("no_device", found)
        return found

    def _shown(self) -> dict[BusId, Device]:
        """All devices, with those that left with a controller: only the plan still has them."""
        return {v.device.port: v.device for v in self._agent.view.plan.verdicts}

    def _verdict(self, device: Device) -> Verdict:
        for verdict in self._agent.view.plan.verdicts:
            if verdict.device.key == device.key:
                return verdict
        raise Refused("no_device", f"{device.port} was unplugged")

    def _running(self, guest: str) -> None:
        found = self._agent.view.snapshot.guests.get(guest)
        if found is None:
            raise Refused("guest_stopped", f"no guest named {guest!r} is running; see `xl list`")
        if found.state is not GuestState.RUNNING:
            raise Refused("guest_" + found.state, f"{guest} is {found.state}; try again when it runs")

    async def _ordered(self, device: Device, order: Override, done: Callable[[Verdict], bool]) -> str:
        """Note the order and wait until it is carried out, or until it is clear that it cannot be."""
        self._agent.apply_order(lambda ledger: orders.order(ledger, device.key, order))
        try:
            async with asyncio.timeout(ORDER_TIMEOUT):
                await self._agent.next_round_after_now()
                while not done(verdict := self._verdict(device)):
                    if order.back and verdict.state is State.ATTACHED and verdict.attempts:
                        raise Refused("refused", explain.headline(verdict))
                    if verdict.state in (State.FAILING, State.GIVEN_UP):
                        raise Refused(str(verdict.cause), explain.headline(verdict))
                    await self._agent.next_round()
        except TimeoutError:
            raise Refused("timeout", f"not done after {ORDER_TIMEOUT:.0f} s: {explain.headline(verdict)}") from None
        return explain.headline(verdict)


def _attached_to(guest: str) -> Callable[[Verdict], bool]:
    return lambda verdict: verdict.state is State.ATTACHED and verdict.guest == guest


def handlers(service: Service) -> Mapping[str, Callable[[Json], Any]]:
    """The methods of the interface org.xenplug by name."""

    async def _status(_: Json) -> Json:
        return {"status": service.status()}

    async def _devices(_: Json) -> Json:
        return {"devices": service.devices()}

    async def _explain(p: Json) -> Json:
        return {"explanation": service.explanation(p["device"])}

    async def _reload(_: Json) -> Json:
        message, problems = await service.reload()
        return {"message": message, "problems": problems}

    async def _history(p: Json) -> AsyncIterator[Json | None]:
        may_know = requester().acts
        async for event in service.history_stream(p.get("device"), bool(p.get("follow"))):
            yield None if event is None else {"event": event if may_know else without_requester(event)}

    async def _monitor(_: Json) -> AsyncIterator[Json]:
        async for status in service.monitor():
            yield {"status": status}

    return {
        "Status": _status,
        "Devices": _devices,
        "Explain": _explain,
        "Attach": _order(service.attach, "device", "guest"),
        "Detach": _order(service.detach, "device"),
        "Release": _order(service.release, "device"),
        "Reload": _reload,
        "Pause": _order(service.pause, "scope"),
        "Resume": _order(service.resume, "scope"),
        "Prefer": _order(service.prefer, "guest"),
        "History": _history,
        "Monitor": _monitor,
    }


def _order(carry_out: Callable[..., Awaitable[str]], *parameters: str) -> Callable[[Json], Awaitable[Json]]:
    """A method whose reply is one message."""

    async def answer(p: Json) -> Json:
        return {"message": await carry_out(*(p.get(name) for name in parameters))}

    return answer
