"""Keeps dom0's drivers and the devices that are bound for guests apart: who may have a device's interfaces, and when.

The kernel can leave the interfaces of every new device unauthorised (a root hub's `interface_authorized_default`): no
driver binds to them, and no process can claim them. So the agent has the time to decide. What stays with the host is
opened and probed at once; what goes to a guest is opened without probing just before the attach (acts) and shut just
before the detach, so that dom0's drivers never see it (lab 14). A plan asks here after each verdict.
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
"""States in which dom0's drivers get nothing."""
SHORT_WAITS = frozenset(
    {
        Cause.CONFIGURING,
        Cause.SETTLING,
        Cause.PORT_EMPTIED,
        Cause.GUEST_STARTING,
        Cause.GUEST_PAUSED,
        Cause.REBOOT_GRACE,
    }
)
"""Reasons to wait that a moment or a person's next act ends; for the others dom0 has the device meanwhile."""
GUEST_RETURNS = frozenset({Cause.GUEST_STARTING, Cause.REBOOT_GRACE, Cause.PORT_EMPTIED})
"""Reasons to wait in which the device came from a guest that ended, whose device model gave it to dom0's drivers."""


def new_device_guard(policy: Policy | None, driverless: bool) -> Guard | None:
    """What this policy asks for; None, all as it is, where none did load.

    What it blocks meets no driver either when it is authorised to be given to a guest by hand.
    """
    if policy is None:
        return None
    closed = policy.closed
    held_back = closed or any(rule.guests or rule.action == Action.BLOCK for rule in policy.rules)
    return Guard(closed, driverless and held_back)


def guard_on_stop(policy: Policy | None) -> Guard:
    """What is left in force when the agent is stopped: under `default: block` all of it, for nothing may come in
    unseen. Else dom0's own new devices must work without an agent.
    """
    closed = policy is not None and policy.closed
    return Guard(closed, closed)


def isolate_drivers(builder: PlanBuilder, verdict: Verdict) -> None:
    """Open or shut the device's interfaces, if its verdict asks for the other."""
    device, ledger = verdict.device, builder.inputs.ledger
    if not device.configured or not device.authorized:
        return
    if verdict.guest_port:
        # A guest that chose another configuration has new interfaces; what someone attached with xl may be shut, too.
        with_guest = verdict.state in (State.ATTACHED, State.FOREIGN) or verdict.cause is Cause.WAITING_TO_BE_TAKEN
        if device.shut and with_guest:
            _plan(builder, Interfaces(device, allowed=True))
    elif device.shut:
        # Opened once already: somebody shut it since, and meant it.
        if not _stays_shut(builder.inputs, verdict) and not ledger.device(device.key).released_to_dom0:
            _plan(builder, Interfaces(device, allowed=True, probe=True))
    elif builder.inputs.driverless and _comes_back(verdict):
        _plan(builder, Interfaces(device, allowed=False))


def _stays_shut(inputs: PlanInput, verdict: Verdict) -> bool:
    if verdict.state in KEPT_FROM_DRIVERS or verdict.cause is Cause.NO_POLICY:
        return True
    if verdict.state is State.PENDING and verdict.cause in SHORT_WAITS:
        return True
    return verdict.state in (State.PENDING, State.GIVEN_UP) and kept_out(inputs, verdict)


def _comes_back(verdict: Verdict) -> bool:
    waits = verdict.state is State.PENDING and verdict.cause in GUEST_RETURNS
    return waits and any(driver is not None for driver in verdict.device.drivers)


def _plan(builder: PlanBuilder, step: Interfaces) -> None:
    """Plan the writes, unless they were just made: the facts follow, or they failed and would fail again."""
    last = builder.inputs.ledger.troubles.get(TroubleKey.interfaces(step.device.key))
    if last and last.next_try > builder.inputs.now:
        builder.wakes.append(last.next_try)
        return
    builder.steps.append(step)
