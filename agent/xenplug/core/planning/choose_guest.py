"""Which guest of its list a device goes to now: the first that runs, with what may hold it where it is."""

from __future__ import annotations

from dataclasses import replace

from xenplug.core.ledger.ledger import LIVE, is_coming, place
from xenplug.core.model import Guest
from xenplug.core.planning import fit
from xenplug.core.planning.plan_input import LOOK_AGAIN, Draft, Scene, Standing, failed_there
from xenplug.core.planning.steps import Cause, State, Verdict

MOVE_AT_ONCE = frozenset({"keyboard", "mouse", "gamepad"})
"""Kinds that follow the first guest of a list as soon as it starts; others stay where they are used."""


def choose(draft: Draft, verdict: Verdict, at: Standing | None) -> Guest | Verdict:
    """The guest of the list that gets it now, or the verdict that none can yet."""
    scene = draft.scene
    guests = scene.snapshot.guests
    there = [guests[name] for name in verdict.wanted if name in guests]
    home = scene.ledger.homes.get(place(verdict.device))
    running = _willing(scene, verdict, [guest for guest in there if guest.state in LIVE], home)
    if running and running[0].name == scene.ledger.preferred:
        return running[0]
    present = next((g for g in running if g.name == (at.entry.guest if at else home)), None)
    if present and _move(verdict) == "on_stop":
        return present
    coming = [guest.name for guest in there if is_coming(scene.ledger, guest)]
    if coming:
        draft.wake_in(LOOK_AGAIN)
    if _may_return(scene, verdict, home):
        return _awaits(draft, verdict, home, coming)
    if running:
        return running[0]
    cause = Cause.GUEST_STARTING if coming else Cause.GUEST_STOPPED
    target = [*coming, *(guest.name for guest in there), *verdict.wanted][0]
    return replace(verdict, state=State.PENDING, cause=cause, target=target)


def _willing(scene: Scene, verdict: Verdict, running: list[Guest], home: str | None) -> list[Guest]:
    """Without those that failed to take it, if others are left: at once where it has a guest to go back to (a move
    that failed is undone), else after the last try.
    """
    elsewhere = {guest.name for guest in running if guest.name == home}

    def failed(guest: Guest) -> bool:
        trouble = failed_there(scene, verdict.device, guest)
        return trouble is not None and (trouble.given_up or bool(elsewhere - {guest.name}))

    return [guest for guest in running if not failed(guest)] or running


def undone(scene: Scene, verdict: Verdict, here: Guest) -> Verdict:
    """The verdict of a device on its guest, told that one which should rather have it failed to take it."""
    for name in verdict.wanted:
        guest = scene.snapshot.guests.get(name)
        trouble = guest and failed_there(scene, verdict.device, guest)
        if name == here.name:
            break
        if trouble:
            words = f"{name} failed to take it" + (f" ({trouble.text})" if trouble.text else "")
            return replace(verdict, attempts=trouble.count, text=words)
    return verdict


def may_stay(draft: Draft, verdict: Verdict, at: Standing, target: Guest) -> Guest | None:
    """The guest of its list that has it, while the driver of its new one has not connected: it would be nobody's."""
    here = draft.scene.snapshot.guests.get(at.entry.guest)
    if here is None or here is target or here.name not in verdict.wanted or here.state not in LIVE:
        return None
    usbback = draft.scene.snapshot.usbback
    spot = fit.choose_port(target, verdict.device, draft.allotted, usbback=usbback)
    return here if spot is Cause.NO_FRONTEND else None


def _move(verdict: Verdict) -> str:
    rule = verdict.decision.rule
    if rule and rule.move:
        return rule.move
    return "on_start" if verdict.device.kinds & MOVE_AT_ONCE else "on_stop"


def _may_return(scene: Scene, verdict: Verdict, home: str | None) -> bool:
    """Its guest went away and is given time to come back before the device goes to the next of the list."""
    return len(verdict.wanted) > 1 and home in verdict.wanted and home in scene.ledger.gone


def _awaits(draft: Draft, verdict: Verdict, home: str | None, coming: list[str]) -> Verdict:
    if home in coming:
        return replace(verdict, state=State.PENDING, cause=Cause.GUEST_STARTING, target=home)
    scene = draft.scene
    draft.wake_in(scene.ledger.gone[home or ""] + scene.times.reboot_grace - scene.now)
    return replace(verdict, state=State.PENDING, cause=Cause.REBOOT_GRACE, target=home)
