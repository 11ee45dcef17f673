"""The changes between the verdicts of two plans: each is one line of the journal and one entry of the history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xenplug.core.planning.steps import Cause, State, Verdict
from xenplug.core.reporting import explain


@dataclass(frozen=True, slots=True)
class Change:
    """A device whose verdict changed, or (`verdict` None) that was unplugged."""

    before: Verdict | None
    verdict: Verdict | None

    @property
    def line(self) -> str:
        """The change in one line."""
        if self.verdict:
            return explain.headline(self.verdict)
        return f"{explain.device_name(self.before.device)}: unplugged" if self.before else ""

    def view(self) -> dict[str, Any]:
        """The change as the history keeps it."""
        verdict = self.verdict or self.before
        if verdict is None:
            return {}
        rule = verdict.decision.rule
        return {
            "port": verdict.device.port,
            "address": verdict.device.address,
            "path": verdict.device.path,
            "device": verdict.device.tag,
            "serial": verdict.device.serial,
            "state": str(verdict.state) if self.verdict else "unplugged",
            "cause": str(verdict.cause) if self.verdict else "unplugged",
            "guest": verdict.guest if self.verdict else None,
            "rule": rule.name if rule and not verdict.by_hand else None,
            "line": self.line,
        }


PASSING = frozenset({Cause.CONFIGURING, Cause.SETTLING, Cause.MOVING, Cause.PORT_EMPTIED, Cause.WAITING_TO_BE_TAKEN})
"""Passing causes, which are not reported: another change follows."""


def reported_state(verdict: Verdict) -> tuple[Any, ...]:
    """The parts of a verdict whose change is reported. The number of tries and the depth of the claim are not."""
    if verdict.state in (State.ATTACHED, State.FOREIGN, State.PROTECTED):
        held = verdict.cause if verdict.cause in explain.HELD else None
        return verdict.state, verdict.guest, verdict.by_hand, held, bool(verdict.text)
    return verdict.state, verdict.cause, verdict.target


def changes(before: Iterable[Verdict], after: Iterable[Verdict]) -> list[Change]:
    """All changes from the verdicts reported last to the present ones, unplugged devices first."""
    old = {v.device.key: v for v in before}
    new = {v.device.key: v for v in after}
    gone = [Change(v, None) for key, v in old.items() if key not in new]
    moved = [
        Change(old.get(key), v)
        for key, v in new.items()
        if key not in old or reported_state(old[key]) != reported_state(v)
    ]
    return gone + [change for change in moved if change.verdict and change.verdict.cause not in PASSING]
