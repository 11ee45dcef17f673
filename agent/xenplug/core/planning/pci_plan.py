"""Whole host controllers in the plan: which ones go to a guest, which ones return, and the verdicts of their devices.

core/planning/plan calls `plan_controllers` when every device has its verdict. The next step of a controller follows
from where it is now (dom0's driver, pciback, a guest), never from what was started before. So the next round continues
or rolls back a step that was cut short.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from xenplug.core.ledger.orders import paused
from xenplug.core.ledger.pci import RETURN_GRACE, PassedController, holder
from xenplug.core.ledger.records import DOMAIN_END_TIME
from xenplug.core.ledger.troubles import Backoff, Trouble, TroubleKey
from xenplug.core.matching.match import Decision
from xenplug.core.model import LIVE_STATES, Bdf, BusId, Device, DeviceKey, Guest, GuestState
from xenplug.core.planning.attach import not_running
from xenplug.core.planning.pci_preflight import HandoverRequest, Preflight, PreflightInput, run_preflight
from xenplug.core.planning.pci_steps import AskXl, MakeAssignable, PciAttach, PciDetach, ReturnToDom0
from xenplug.core.planning.plan_builder import POLL_INTERVAL, STATES_EVERY, Attachment, PlanBuilder
from xenplug.core.planning.plan_input import PlanInput
from xenplug.core.planning.steps import Cause, State, Step, Verdict
from xenplug.core.policy.rules import Action, Rule, Via

PCI_BACKOFF = Backoff(first=10.0, most=60.0, tries=3)
"""Few attempts with long pauses: each one removes all devices of the controller from dom0 and brings them back."""
RETURN_BACKOFF = Backoff(first=1.0, most=60.0, tries=1 << 30)
"""The return to dom0 is never given up: until then neither dom0 nor a guest has the controller."""
FALLBACK_TRIES = 3
"""Failures in a row over USB after which the fallback is used (not_delivered, refused)."""
FALLBACK_AFTER = {"no_free_port": 10.0}
"""Seconds that a condition must have been true. Others count at once: attempts or waits came before them."""
CONDITIONS = {
    Cause.UNFIT_SPEED: "unfit",
    Cause.UNFIT_ISOCHRONOUS: "unfit",
    Cause.NO_FREE_PORT: "no_free_port",
    Cause.NO_CONTROLLER: "no_free_port",
    Cause.NO_FRONTEND: "no_frontend",
    Cause.NOT_DELIVERED: "not_delivered",
    Cause.LOST: "not_delivered",
    Cause.REFUSED: "refused",
    Cause.NO_DEVICE_MODEL: "refused",
    Cause.DEVICE_MODEL_GONE: "not_delivered",
}
"""The name in a policy's `fallback` of a verdict's cause."""


def by_controller(builder: PlanBuilder, verdict: Verdict, at: Attachment | None, guest: Guest) -> Verdict | None:
    """The verdict of a device that goes to the guest with its controller, until the controllers are planned; None if
    its rule does not say via: pci, or if a manual override decides.
    """
    if not goes_whole(builder.inputs, verdict):
        return None
    if at:
        return builder.plan_detach(replace(verdict, target=guest.name, via=Via.PCI), at)
    return replace(verdict, state=State.PENDING, cause=Cause.CONTROLLER_MOVING, target=guest.name, via=Via.PCI)


def goes_whole(inputs: PlanInput, verdict: Verdict) -> bool:
    """Whether the device's rule says via: pci, and no manual override attaches it alone."""
    rule = verdict.decision.rule
    return rule is not None and rule.via == Via.PCI and verdict.device.key not in inputs.ledger.orders.overrides


def plan_controllers(builder: PlanBuilder) -> dict[DeviceKey, float]:
    """Plan the next steps of all host controllers. Returns the new PciLedger.asked."""
    inputs = builder.inputs
    for passed, entry in inputs.ledger.pci.passed.items():
        passed_verdicts = _plan_passed(builder, passed, entry)
        builder.verdicts += passed_verdicts
    asked: dict[DeviceKey, float] = {}
    planned = set(inputs.ledger.pci.passed)
    for request in list(_requests(builder, asked)):
        bdf = request.device.controller
        if bdf not in planned:
            _plan_handover(builder, request)
        planned.update({bdf} if bdf else ())
    return asked


# devices that need their controller passed


def _requests(builder: PlanBuilder, asked: dict[DeviceKey, float]) -> Iterator[HandoverRequest]:
    for verdict in builder.verdicts:
        rule, guest = verdict.decision.rule, builder.inputs.snapshot.guests.get(verdict.target or "")
        if rule is None or guest is None or guest.state not in LIVE_STATES or verdict.state is State.PCI:
            continue
        if verdict.cause is Cause.CONTROLLER_MOVING and verdict.state is State.PENDING:
            yield HandoverRequest(verdict.device, guest, rule.siblings)
        elif (condition := _condition(builder.inputs, verdict)) and rule.fallback:
            key = verdict.device.key
            since = asked[key] = builder.inputs.ledger.pci.asked.get(key, builder.inputs.now)
            left = since + FALLBACK_AFTER.get(condition, 0.0) - builder.inputs.now
            if left <= 0:
                yield HandoverRequest(verdict.device, guest, rule.fallback.siblings, condition)
            else:
                builder.wake_in(left)


def _condition(inputs: PlanInput, verdict: Verdict) -> str | None:
    """The condition of its rule's fallback that holds for a device."""
    rule, condition = verdict.decision.rule, CONDITIONS.get(verdict.cause)
    if rule is None or rule.fallback is None or condition not in rule.fallback.when:
        return None
    if verdict.device.key in inputs.ledger.orders.overrides:
        return None
    tried = verdict.attempts >= FALLBACK_TRIES
    if verdict.state is State.GIVEN_UP or (verdict.state is State.PENDING and condition == "no_free_port"):
        return condition
    return condition if verdict.state is State.FAILING and tried else None


# from dom0 to the guest


def _plan_handover(builder: PlanBuilder, request: HandoverRequest) -> None:
    """Plan the next step from dom0 to the guest, or put the reason why there is none in the device's verdict."""
    inputs = builder.inputs
    controller = next((c for c in inputs.snapshot.controllers if c.bdf == request.device.controller), None)
    if controller is None:
        _set_verdict(builder, request, State.GIVEN_UP, Cause.NO_HOST_CONTROLLER)
    elif controller.bdf in inputs.ledger.pci.stay_orders:
        _set_verdict(builder, request, State.HOST, Cause.CONTROLLER_BY_HAND)
    elif request.guest.state is not GuestState.RUNNING:
        builder.wake_in(STATES_EVERY)
        _set_verdict(builder, request, State.PENDING, not_running(request.guest))
    elif _sibling_paused(builder, controller.bdf):
        _set_verdict(builder, request, State.PENDING, Cause.PAUSED)
    elif trouble := _recent_failure(inputs, TroubleKey.pass_pci(controller.bdf, request.guest.domid)):
        _after_failure(builder, request, trouble)
    else:
        verdicts = [v for v in builder.verdicts if v.device.controller == controller.bdf]
        foreign = frozenset(port for port, at in builder.at.items() if not at.entry.ours)
        preflight_input = PreflightInput(inputs.ledger, inputs.pci_outlook, foreign)
        preflight = run_preflight(preflight_input, request, controller, verdicts)
        builder.preflights.append(preflight)
        _apply_preflight(builder, preflight)


def _sibling_paused(builder: PlanBuilder, bdf: Bdf) -> bool:
    """Whether a device on the controller is paused: it would be taken away although it must be left alone."""
    siblings = [v for v in builder.verdicts if v.device.controller == bdf]
    return any(paused(builder.inputs.ledger, v.device.port, v.guest) for v in siblings)


def _recent_failure(inputs: PlanInput, key: TroubleKey) -> Trouble | None:
    """The last failure of a step, if it was given up or it is not yet time to try again."""
    trouble = inputs.ledger.troubles.get(key)
    return trouble if trouble and (trouble.given_up or trouble.next_try > inputs.now) else None


def _after_failure(builder: PlanBuilder, request: HandoverRequest, trouble: Trouble) -> None:
    state = State.GIVEN_UP if trouble.given_up else State.FAILING
    if not trouble.given_up:
        builder.wakes.append(trouble.next_try)
    _set_verdict(builder, request, state, Cause(trouble.cause), trouble.text)
    if request.condition is None:
        next_try = None if trouble.given_up else trouble.next_try
        builder.verdicts = [
            replace(v, attempts=trouble.count, next_try=next_try) if v.device is request.device else v
            for v in builder.verdicts
        ]


def _set_verdict(builder: PlanBuilder, request: HandoverRequest, state: State, cause: Cause, text: str = "") -> None:
    """Set the verdict of the device that needs the controller. If USB failed first, that verdict stays and this reason
    is added to its text.
    """

    def changed(verdict: Verdict) -> Verdict:
        if verdict.device is not request.device:
            return verdict
        if request.condition is None:
            return replace(verdict, state=state, cause=cause, target=request.guest.name, text=text or None, via=Via.PCI)
        words = f"its controller {request.device.controller} cannot go instead: {cause}{': ' if text else ''}{text}"
        return replace(verdict, text=f"{verdict.text}; {words}" if verdict.text else words)

    builder.verdicts = [changed(verdict) for verdict in builder.verdicts]


def _apply_preflight(builder: PlanBuilder, preflight: Preflight) -> None:
    request, bdf, guest = preflight.request, preflight.controller.bdf, preflight.request.guest
    if preflight.cause is Cause.ASKING_XL:
        builder.steps.append(AskXl(guest.name, guest.domid, bdf, preflight.lines))
        if request.condition is None:
            _set_verdict(builder, request, State.PENDING, preflight.cause)
    elif preflight.cause:
        _set_verdict(builder, request, State.GIVEN_UP, preflight.cause, preflight.text)
    else:
        _make_room(builder, preflight)


def _make_room(builder: PlanBuilder, preflight: Preflight) -> None:
    """Plan no other steps for the controller's devices. Detach first those that are on guest ports."""
    on_controller = {sibling.device.port: sibling.device for sibling in preflight.siblings}
    _leave_alone(builder, on_controller, preflight.request.guest.name)
    attached = [port for port in on_controller if port in builder.at]
    if not attached:
        builder.steps.append(_seize(builder.inputs, preflight))

    def leaving(verdict: Verdict) -> Verdict:
        at = builder.at.get(verdict.device.port) if verdict.device.port in attached else None
        return verdict if at is None or at.entry.intent else builder.plan_detach(verdict, at)

    builder.verdicts = [leaving(verdict) for verdict in builder.verdicts]


def _leave_alone(builder: PlanBuilder, ports: Collection[BusId], guest: str | None) -> None:
    """Remove the steps of these devices from the plan: dom0 sees them still, or again, while their controller moves."""
    builder.steps = [
        step for step in builder.steps if getattr(getattr(step, "device", None), "port", None) not in ports
    ]

    def going(verdict: Verdict) -> Verdict:
        moving = replace(verdict, state=State.ATTACHING, cause=Cause.CONTROLLER_MOVING, target=guest, via=Via.PCI)
        return replace(moving, text=None)

    builder.verdicts = [going(verdict) if verdict.device.port in ports else verdict for verdict in builder.verdicts]


def _seize(inputs: PlanInput, preflight: Preflight) -> Step:
    request, controller = preflight.request, preflight.controller
    passed = PassedController(
        guest=request.guest.name,
        driver=controller.driver or "",
        asker=request.device.port,
        devices=tuple(sibling.device for sibling in preflight.siblings),
        since=inputs.now,
        condition=request.condition,
        domid=None,
    )
    return MakeAssignable(request.guest.name, request.guest.domid, controller.bdf, passed, preflight.lines)


# controllers that were passed


def _plan_passed(builder: PlanBuilder, bdf: Bdf, entry: PassedController) -> list[Verdict]:
    """Plan the next step of a controller that the agent took from dom0. Returns the verdicts of its devices."""
    inputs = builder.inputs
    has = holder(inputs.snapshot, bdf)
    stays = _stays(inputs, bdf, entry)
    if not entry.intent and inputs.policy is not None and not _paused(inputs, bdf, entry):
        if has and not stays:
            _plan_take_back(builder, bdf, has)
        elif not has:
            _next(builder, bdf, entry, stays)
    seen = {v.device.port for v in builder.verdicts if v.device.controller == bdf and v.state is not State.PROTECTED}
    _leave_alone(builder, seen, entry.guest if stays else None)
    return [_verdict(inputs, bdf, entry, device, stays) for device in entry.devices if not _back(inputs, device)]


def _paused(inputs: PlanInput, bdf: Bdf, entry: PassedController) -> bool:
    """Whether one of its devices, its guest or everything is paused. A controller with a protected device returns to
    dom0 even then.
    """
    left = any(paused(inputs.ledger, device.port, entry.guest) for device in entry.devices)
    return left and bdf not in inputs.pci_outlook.barred


def _back(inputs: PlanInput, device: Device) -> bool:
    """Whether dom0 sees the device again, perhaps a moment before its controller's driver shows."""
    here = inputs.snapshot.devices.get(device.port)
    return here is not None and here.controller == device.controller


def _verdict(inputs: PlanInput, bdf: Bdf, entry: PassedController, device: Device, stays: bool) -> Verdict:
    decision = _decisions(inputs, bdf).get(device.port, Decision(Action.HOST))
    verdict = Verdict(device, decision, State.PCI, Cause.WITH_CONTROLLER, decision.guests, entry.guest, via=Via.PCI)
    has = holder(inputs.snapshot, bdf)
    if _paused(inputs, bdf, entry):
        state, name = (State.PCI, has.name) if has else (State.PENDING, None)
        return replace(verdict, state=state, cause=Cause.PAUSED, guest=name)
    if has:
        if stays or inputs.policy is None:
            return replace(verdict, guest=has.name)
        return replace(verdict, state=State.ATTACHING, cause=Cause.CONTROLLER_MOVING, guest=has.name, target=None)
    guest = inputs.snapshot.guests.get(entry.guest)
    if stays and (guest is None or guest.state not in LIVE_STATES):
        return replace(verdict, state=State.PENDING, cause=Cause.GUEST_STARTING if guest else Cause.REBOOT_GRACE)
    return replace(verdict, state=State.ATTACHING, cause=Cause.CONTROLLER_MOVING, target=entry.guest if stays else None)


def _decisions(inputs: PlanInput, bdf: Bdf) -> dict[BusId, Decision]:
    return dict(inputs.pci_outlook.decisions.get(bdf, {}))


def _stays(inputs: PlanInput, bdf: Bdf, entry: PassedController) -> bool:
    """Whether it should still be with its guest: a rule wants it, nothing forbids it, and the guest exists or is
    expected.
    """
    if bdf in inputs.ledger.pci.stay_orders or bdf in inputs.pci_outlook.barred:
        return False
    if not any(_still(decision.rule, entry) for decision in _decisions(inputs, bdf).values()):
        return False
    guest = inputs.snapshot.guests.get(entry.guest)
    if guest is None:
        return entry.guest_gone_since is None or inputs.now - entry.guest_gone_since < RETURN_GRACE
    allowed = inputs.ledger.pci.open.get(guest.domid) is not False
    return allowed and (bdf in guest.pci or not _recent_failure(inputs, TroubleKey.pass_pci(bdf, guest.domid)))


def _still(rule: Rule | None, entry: PassedController) -> bool:
    if rule is None or entry.guest not in rule.guests:
        return False
    return rule.via == Via.PCI or (rule.fallback is not None and entry.condition in rule.fallback.when)


def _next(builder: PlanBuilder, bdf: Bdf, entry: PassedController, stays: bool) -> None:
    """Neither dom0 nor a guest has it: plan its way to the guest, or back to dom0."""
    inputs = builder.inputs
    order, guest = inputs.ledger.pci.stay_orders.get(bdf), inputs.snapshot.guests.get(entry.guest)
    if order and order.domid is not None and (left := order.at + DOMAIN_END_TIME - inputs.now) > 0:
        builder.wake_in(left)  # its guest may be rebooting, and then needs the controller with pciback
    elif not stays:
        _plan_return(builder, bdf, entry)
    elif guest is None or guest.state not in LIVE_STATES:
        builder.wake_in(POLL_INTERVAL if guest else (entry.guest_gone_since or inputs.now) + RETURN_GRACE - inputs.now)
    elif guest.domid not in inputs.ledger.pci.open:
        builder.steps.append(AskXl(guest.name, guest.domid, bdf))
    elif guest.state is GuestState.RUNNING:
        builder.steps.append(PciAttach(guest.name, guest.domid, bdf))


def _plan_return(builder: PlanBuilder, bdf: Bdf, entry: PassedController) -> None:
    if trouble := _recent_failure(builder.inputs, TroubleKey.return_pci(bdf)):
        builder.wakes.append(trouble.next_try)
        return
    builder.steps.append(ReturnToDom0(entry.guest, bdf, entry.driver))


def _plan_take_back(builder: PlanBuilder, bdf: Bdf, guest: Guest) -> None:
    key = TroubleKey.return_pci(bdf)
    if trouble := _recent_failure(builder.inputs, key):
        builder.wakes.append(trouble.next_try)
        return
    builder.steps.append(PciDetach(guest.name, guest.domid, bdf, force=key in builder.inputs.ledger.troubles))
