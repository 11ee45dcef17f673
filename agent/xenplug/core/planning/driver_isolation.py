"""Keeps dom0's drivers off devices that go to guests: who may bind to a device's interfaces, and when.

The kernel can leave the interfaces of every new device unauthorised (a root hub's `interface_authorized_default`): then
no driver binds to them, and no process can claim them. This gives the agent the time to decide. If a device stays with
the host, its interfaces are authorised and probed at once. If it goes to a guest, they are authorised without probing
just before the attach (engine/executor) and deauthorised just before the detach, so that dom0's drivers never bind to
it (lab 14). The planner calls `isolate_drivers` after each verdict.
"""

from __future__ import annotations

from xenplug.core.ledger.troubles import TroubleKey
from xenplug.core.planning.plan_builder import PlanBuilder
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.steps import Cause, Interfaces, State, Verdict
from xenplug.core.planning.unavailable import kept_out
from xenplug.core.policy.rules import Action, Policy
from xenplug.core.protocols import Guard

KEPT_FROM_DRIVERS = frozenset({State.ATTACHING, State.FAILING, State.BLOCKED})
"""States in which dom0's drivers do not get the device."""
SHORT_WAITS = frozenset(
    {
        Cause.CONFIGURING,
        Cause.SETTLING,
        Cause.PORT_EMPTIED,
        Cause.GUEST_STARTING,
        Cause.GUEST_PAUSED,
        Cause.GUEST_SUSPENDED,
        Cause.REBOOT_GRACE,
    }
)
"""Causes of waiting that end soon, by themselves or by a person's next act. For other causes dom0 has the device while
it waits."""
GUEST_RETURNS = frozenset({Cause.GUEST_STARTING, Cause.REBOOT_GRACE, Cause.PORT_EMPTIED})
"""Causes of waiting after a guest ended: its device model has returned the device to dom0's drivers."""


def new_device_guard(policy: Policy | None, driverless: bool) -> Guard | None:
    """The guard that this policy needs; None, which changes nothing, if no policy loaded.

    Blocked devices count too: one may be authorised later because a manual override attaches it to a guest, and dom0's
    drivers must not bind to it then.
    """
    if policy is None:
        return None
    closed = policy.closed
    held_back = closed or any(rule.guests or rule.action == Action.BLOCK for rule in policy.rules)
    return Guard(closed, driverless and held_back)


def guard_on_stop(policy: Policy | None) -> Guard:
    """The guard that stays in force when the agent stops. Under `default: block` new devices stay blocked. Otherwise
    dom0's own new devices must work without an agent.
    """
    closed = policy is not None and policy.closed
    return Guard(closed, closed)


def isolate_drivers(builder: PlanBuilder, verdict: Verdict) -> None:
    """Plan to authorise or deauthorise the device's interfaces, if its verdict needs that."""
    device, ledger = verdict.device, builder.inputs.ledger
    if not device.configured or not device.authorized:
        return
    if verdict.guest_port:
        # A guest that chose another configuration has new interfaces. A device attached with xl may be closed too.
        with_guest = verdict.state in (State.ATTACHED, State.FOREIGN) or verdict.cause is Cause.WAITING_TO_BE_TAKEN
        if device.shut and with_guest:
            _plan(builder, Interfaces(device, allowed=True))
    elif device.shut:
        # If it was released before, somebody closed it on purpose since then: leave it closed.
        if not _stays_shut(builder.inputs, verdict) and not ledger.device(device.key).released_to_dom0:
            _plan(builder, Interfaces(device, allowed=True, probe=True))
    elif builder.inputs.driverless and _comes_from_ended_guest(verdict):
        _plan(builder, Interfaces(device, allowed=False))


def _stays_shut(inputs: PlanInput, verdict: Verdict) -> bool:
    if verdict.state in KEPT_FROM_DRIVERS or verdict.cause is Cause.NO_POLICY:
        return True
    if verdict.state is State.PENDING and verdict.cause in SHORT_WAITS:
        return True
    return verdict.state in (State.PENDING, State.GIVEN_UP) and kept_out(inputs, verdict)


def _comes_from_ended_guest(verdict: Verdict) -> bool:
    waits = verdict.state is State.PENDING and verdict.cause in GUEST_RETURNS
    return waits and any(driver is not None for driver in verdict.device.drivers)


def _plan(builder: PlanBuilder, step: Interfaces) -> None:
    """Plan the writes, unless they were just made: then the facts will show them soon, or they would fail again."""
    last = builder.inputs.ledger.troubles.get(TroubleKey.interfaces(step.device.key))
    if last and last.next_try > builder.inputs.now:
        builder.wakes.append(last.next_try)
        return
    builder.steps.append(step)
