"""Whole host controllers in the plan: which are to go to a guest, which come back, and how their devices stand.

core/planning/plan calls `plan_controllers` when every device has its verdict. What is to be done with a controller
follows from where it is seen to be (dom0's driver, pciback, a guest), never from what was begun: so an act that was
cut short is carried on or rolled back by whoever looks next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from xenplug.core.book.ledger import Backoff, Trouble, pci_subject, place
from xenplug.core.book.wishes import paused
from xenplug.core.matching.match import Decision
from xenplug.core.model import Bdf, BusId, Device, Guest, GuestState
from xenplug.core.pci.book import DEATH_THROES, GRACE, LIVE, Given, holder
from xenplug.core.pci.preflight import Ask, Preflight, Table, preflight
from xenplug.core.pci.steps import AskXl, Give, Return, Seize, TakeBack
from xenplug.core.planning.scene import LOOK_AGAIN, Draft, Scene, Standing, take_off
from xenplug.core.planning.steps import Cause, State, Step, Verdict
from xenplug.core.policy.rules import Rule

PCI_BACKOFF = Backoff(first=10.0, most=60.0, tries=3)
"""Each try tears all devices of the controller from dom0 and brings them back: few of them, and not at once."""
RETURN_BACKOFF = Backoff(first=1.0, most=60.0, tries=1 << 30)
"""A controller that is nobody's is never given up."""
FALLBACK_TRIES = 3
"""Failures in a row over USB after which a fallback is taken (not_delivered, refused)."""
FALLBACK_AFTER = {"no_free_port": 10.0}
"""Seconds for which a condition must have held; others count at once, having had their own tries or time."""
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
"""What a verdict's cause is called in a policy's `fallback`."""


def by_controller(draft: Draft, verdict: Verdict, at: Standing | None, guest: Guest) -> Verdict | None:
    """The verdict of a device that is to go to the guest with its controller, until that has been looked at; None if
    its rule does not say via: pci, or a person gave it by hand.
    """
    if not goes_whole(draft.scene, verdict):
        return None
    if at:
        return take_off(draft, replace(verdict, target=guest.name, via="pci"), at)
    return replace(verdict, state=State.PENDING, cause=Cause.CONTROLLER_MOVING, target=guest.name, via="pci")


def goes_whole(scene: Scene, verdict: Verdict) -> bool:
    """Its rule says via: pci, and no person gave it by hand."""
    rule = verdict.decision.rule
    return rule is not None and rule.via == "pci" and place(verdict.device) not in scene.ledger.overrides


def plan_controllers(draft: Draft) -> dict[str, float]:
    """Add what is to be done with controllers to a draft; what is to be kept as PciBook.asked."""
    scene = draft.scene
    for given, entry in scene.ledger.pci.given.items():
        shown = _given(draft, given, entry)
        draft.verdicts += shown
    asked: dict[str, float] = {}
    spoken_for = set(scene.ledger.pci.given)
    for ask in list(_asks(draft, asked)):
        bdf = ask.device.controller
        if bdf not in spoken_for:
            _hand_over(draft, ask)
        spoken_for.update({bdf} if bdf else ())
    return asked


# who asks


def _asks(draft: Draft, asked: dict[str, float]) -> Iterator[Ask]:
    for verdict in draft.verdicts:
        rule, guest = verdict.decision.rule, draft.scene.snapshot.guests.get(verdict.target or "")
        if rule is None or guest is None or guest.state not in LIVE or verdict.state is State.PCI:
            continue
        if verdict.cause is Cause.CONTROLLER_MOVING and verdict.state is State.PENDING:
            yield Ask(verdict.device, guest, rule.siblings)
        elif (condition := _condition(draft.scene, verdict)) and rule.fallback:
            since = asked[place(verdict.device)] = draft.scene.ledger.pci.asked.get(
                place(verdict.device), draft.scene.now
            )
            left = since + FALLBACK_AFTER.get(condition, 0.0) - draft.scene.now
            if left <= 0:
                yield Ask(verdict.device, guest, rule.fallback.siblings, condition)
            else:
                draft.wake_in(left)


def _condition(scene: Scene, verdict: Verdict) -> str | None:
    """The condition of its rule's fallback that holds for a device."""
    rule, condition = verdict.decision.rule, CONDITIONS.get(verdict.cause)
    if rule is None or rule.fallback is None or condition not in rule.fallback.when:
        return None
    if place(verdict.device) in scene.ledger.overrides:
        return None
    tried = verdict.attempts >= FALLBACK_TRIES
    if verdict.state is State.GIVEN_UP or (verdict.state is State.PENDING and condition == "no_free_port"):
        return condition
    return condition if verdict.state is State.FAILING and tried else None


# there


def _hand_over(draft: Draft, ask: Ask) -> None:
    """From dom0 to the guest: the next step, or why there is none, in the verdict of the device that asks."""
    scene = draft.scene
    controller = next((c for c in scene.snapshot.controllers if c.bdf == ask.device.controller), None)
    if controller is None:
        _tell(draft, ask, State.GIVEN_UP, Cause.NO_HOST_CONTROLLER)
    elif controller.bdf in scene.ledger.pci.kept:
        _tell(draft, ask, State.HOST, Cause.CONTROLLER_BY_HAND)
    elif ask.guest.state is not GuestState.RUNNING:
        _tell(draft, ask, State.PENDING, Cause.GUEST_PAUSED)
    elif _mate_paused(draft, controller.bdf):
        _tell(draft, ask, State.PENDING, Cause.PAUSED)
    elif trouble := _trouble(scene, controller.bdf, ask.guest.domid):
        _after_failure(draft, ask, trouble)
    else:
        verdicts = [v for v in draft.verdicts if v.device.controller == controller.bdf]
        foreign = frozenset(port for port, at in draft.at.items() if not at.entry.ours)
        table = Table(scene.ledger, scene.foresight, foreign)
        flight = preflight(table, ask, controller, verdicts)
        draft.flights.append(flight)
        _fly(draft, flight)


def _mate_paused(draft: Draft, bdf: Bdf) -> bool:
    """What else hangs on the controller would be torn from where it is to be left alone."""
    mates = [v for v in draft.verdicts if v.device.controller == bdf]
    return any(paused(draft.scene.ledger, v.device.port, v.guest) for v in mates)


def _trouble(scene: Scene, bdf: Bdf, domid: int) -> Trouble | None:
    """The last failure, if it is not yet time to try again."""
    trouble = scene.ledger.troubles.get(pci_subject(bdf, domid))
    return trouble if trouble and (trouble.given_up or trouble.next_try > scene.now) else None


def _after_failure(draft: Draft, ask: Ask, trouble: Trouble) -> None:
    state = State.GIVEN_UP if trouble.given_up else State.FAILING
    if not trouble.given_up:
        draft.wakes.append(trouble.next_try)
    _tell(draft, ask, state, Cause(trouble.cause), trouble.text)
    if ask.condition is None:
        next_try = None if trouble.given_up else trouble.next_try
        draft.verdicts = [
            replace(v, attempts=trouble.count, next_try=next_try) if v.device is ask.device else v
            for v in draft.verdicts
        ]


def _tell(draft: Draft, ask: Ask, state: State, cause: Cause, text: str = "") -> None:
    """How the asking device stands. Where USB failed first, that stays the verdict; this is added to its words."""

    def told(verdict: Verdict) -> Verdict:
        if verdict.device is not ask.device:
            return verdict
        if ask.condition is None:
            return replace(verdict, state=state, cause=cause, target=ask.guest.name, text=text or None, via="pci")
        words = f"its controller {ask.device.controller} cannot go instead: {cause}{': ' if text else ''}{text}"
        return replace(verdict, text=f"{verdict.text}; {words}" if verdict.text else words)

    draft.verdicts = [told(verdict) for verdict in draft.verdicts]


def _fly(draft: Draft, flight: Preflight) -> None:
    ask, bdf, guest = flight.ask, flight.controller.bdf, flight.ask.guest
    if flight.cause is Cause.ASKING_XL:
        draft.steps.append(AskXl(guest.name, guest.domid, bdf, flight.lines))
        if ask.condition is None:
            _tell(draft, ask, State.PENDING, flight.cause)
    elif flight.cause:
        _tell(draft, ask, State.GIVEN_UP, flight.cause, flight.text)
    else:
        _clear_the_way(draft, flight)


def _clear_the_way(draft: Draft, flight: Preflight) -> None:
    """Nothing else is done with the devices of the controller; those that stand on guest ports are taken off first."""
    mine = {mate.device.port: mate.device for mate in flight.mates}
    _leave_alone(draft, mine, flight.ask.guest.name)
    standing = [port for port in mine if port in draft.at]
    if not standing:
        draft.steps.append(_seize(draft.scene, flight))

    def off(verdict: Verdict) -> Verdict:
        at = draft.at.get(verdict.device.port) if verdict.device.port in standing else None
        return verdict if at is None or at.entry.intent else take_off(draft, verdict, at)

    draft.verdicts = [off(verdict) for verdict in draft.verdicts]


def _leave_alone(draft: Draft, ports: Collection[BusId], guest: str | None) -> None:
    """Devices that dom0 still, or again, sees of a controller on its way: nothing is done with them one by one."""
    draft.steps = [step for step in draft.steps if getattr(getattr(step, "device", None), "port", None) not in ports]

    def going(verdict: Verdict) -> Verdict:
        moving = replace(verdict, state=State.ATTACHING, cause=Cause.CONTROLLER_MOVING, target=guest, via="pci")
        return replace(moving, text=None)

    draft.verdicts = [going(verdict) if verdict.device.port in ports else verdict for verdict in draft.verdicts]


def _seize(scene: Scene, flight: Preflight) -> Step:
    ask, controller = flight.ask, flight.controller
    given = Given(
        guest=ask.guest.name,
        driver=controller.driver or "",
        asker=ask.device.port,
        devices=tuple(mate.device for mate in flight.mates),
        since=scene.now,
        condition=ask.condition,
        domid=None,
    )
    return Seize(ask.guest.name, ask.guest.domid, controller.bdf, given, flight.lines)


# those given away


def _given(draft: Draft, bdf: Bdf, entry: Given) -> list[Verdict]:
    """The next step for a controller that is not dom0's by our doing, and how the devices that went with it stand."""
    scene = draft.scene
    has = holder(scene.snapshot, bdf)
    stays = _stays(scene, bdf, entry)
    if not entry.intent and scene.policy is not None and not _left_as_it_is(scene, bdf, entry):
        if has and not stays:
            _take_back(draft, bdf, has)
        elif not has:
            _next(draft, bdf, entry, stays)
    seen = {v.device.port for v in draft.verdicts if v.device.controller == bdf and v.state is not State.PROTECTED}
    _leave_alone(draft, seen, entry.guest if stays else None)
    return [_shown(scene, bdf, entry, device, stays) for device in entry.devices if not _back(scene, device)]


def _left_as_it_is(scene: Scene, bdf: Bdf, entry: Given) -> bool:
    """A device of it, its guest or everything is paused; what must be with the host comes home all the same."""
    left = any(paused(scene.ledger, device.port, entry.guest) for device in entry.devices)
    return left and bdf not in scene.foresight.barred


def _back(scene: Scene, device: Device) -> bool:
    """dom0 sees it again, perhaps a moment before it sees its controller's driver."""
    here = scene.snapshot.devices.get(device.port)
    return here is not None and here.controller == device.controller


def _shown(scene: Scene, bdf: Bdf, entry: Given, device: Device, stays: bool) -> Verdict:
    decision = _decisions(scene, bdf).get(device.port, Decision("host"))
    verdict = Verdict(device, decision, State.PCI, Cause.WITH_CONTROLLER, decision.guests, entry.guest, via="pci")
    has = holder(scene.snapshot, bdf)
    if _left_as_it_is(scene, bdf, entry):
        state, name = (State.PCI, has.name) if has else (State.PENDING, None)
        return replace(verdict, state=state, cause=Cause.PAUSED, guest=name)
    if has:
        if stays or scene.policy is None:
            return replace(verdict, guest=has.name)
        return replace(verdict, state=State.ATTACHING, cause=Cause.CONTROLLER_MOVING, guest=has.name, target=None)
    guest = scene.snapshot.guests.get(entry.guest)
    if stays and (guest is None or guest.state not in LIVE):
        return replace(verdict, state=State.PENDING, cause=Cause.GUEST_STARTING if guest else Cause.REBOOT_GRACE)
    return replace(verdict, state=State.ATTACHING, cause=Cause.CONTROLLER_MOVING, target=entry.guest if stays else None)


def _decisions(scene: Scene, bdf: Bdf) -> dict[BusId, Decision]:
    return dict(scene.foresight.decisions.get(bdf, {}))


def _stays(scene: Scene, bdf: Bdf, entry: Given) -> bool:
    """It is still to be with its guest: a rule asks for it, nothing keeps it, and the guest is there or expected."""
    if bdf in scene.ledger.pci.kept or bdf in scene.foresight.barred:
        return False
    if not any(_still(decision.rule, entry) for decision in _decisions(scene, bdf).values()):
        return False
    guest = scene.snapshot.guests.get(entry.guest)
    if guest is None:
        return entry.gone is None or scene.now - entry.gone < GRACE
    able = scene.ledger.pci.open.get(guest.domid) is not False
    return able and (bdf in guest.pci or not _trouble(scene, bdf, guest.domid))


def _still(rule: Rule | None, entry: Given) -> bool:
    if rule is None or entry.guest not in rule.guests:
        return False
    return rule.via == "pci" or (rule.fallback is not None and entry.condition in rule.fallback.when)


def _next(draft: Draft, bdf: Bdf, entry: Given, stays: bool) -> None:
    """It is nobody's: to its guest, or home."""
    scene = draft.scene
    order, guest = scene.ledger.pci.kept.get(bdf), scene.snapshot.guests.get(entry.guest)
    if order and order.domid is not None and (left := order.at + DEATH_THROES - scene.now) > 0:
        draft.wake_in(left)  # its guest may be on its way out, and back: a reboot needs it where it is
    elif not stays:
        _home(draft, bdf, entry)
    elif guest is None or guest.state not in LIVE:
        draft.wake_in(LOOK_AGAIN if guest else (entry.gone or scene.now) + GRACE - scene.now)
    elif guest.domid not in scene.ledger.pci.open:
        draft.steps.append(AskXl(guest.name, guest.domid, bdf))
    elif guest.state is GuestState.RUNNING:
        draft.steps.append(Give(guest.name, guest.domid, bdf))


def _home(draft: Draft, bdf: Bdf, entry: Given) -> None:
    if trouble := _trouble(draft.scene, bdf, 0):
        draft.wakes.append(trouble.next_try)
        return
    draft.steps.append(Return(entry.guest, bdf, entry.driver))


def _take_back(draft: Draft, bdf: Bdf, guest: Guest) -> None:
    last = draft.scene.ledger.troubles.get(pci_subject(bdf, 0))
    if trouble := _trouble(draft.scene, bdf, 0):
        draft.wakes.append(trouble.next_try)
        return
    draft.steps.append(TakeBack(guest.name, guest.domid, bdf, force=last is not None))
