"""Puts into the history what a person ordered and who it was: before it is carried out, and again if it is refused."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec

from xenplug.adapters.requesters import requester
from xenplug.adapters.varlink import Refused
from xenplug.core.policy.digest import PolicyIdentity
from xenplug.core.reporting.orders import Order, order_event, policy_event
from xenplug.service.history import History


class OrderLog:
    """Writes the events."""

    def __init__(self, history: History) -> None:
        self._history = history

    def taken(self, order: Order) -> None:
        """The order is about to be carried out."""
        self._history.note(order_event(order, requester()))

    @contextmanager
    def carrying_out(self, order: Order) -> Iterator[None]:
        """The block carries the order out, or refuses it."""
        self.taken(order)
        try:
            yield
        except Refused as refused:
            cause, reason = refused.parameters["cause"], refused.parameters["reason"]
            self._history.note(order_event(order, requester(), (str(cause), str(reason))))
            raise

    def policy(self, order: str, before: PolicyIdentity | None, now: PolicyIdentity | None, message: str) -> None:
        """The policy was read."""
        self._history.note(policy_event(order, before, now, message, requester()))


Arguments = ParamSpec("Arguments")
Method = Callable[Concatenate[Any, Arguments], Coroutine[Any, Any, str]]


def recorded(carry_out: Method[Arguments]) -> Method[Arguments]:
    """Decorator of the methods of service/api that carry out a person's order; the history has it under their name."""

    async def method(service: Any, /, *words: Arguments.args, **more: Arguments.kwargs) -> str:
        order = service.order_of(carry_out.__name__, *words, *more.values())
        with service.order_log.carrying_out(order):
            return await carry_out(service, *words, **more)

    update_wrapper(method, carry_out)
    return method
