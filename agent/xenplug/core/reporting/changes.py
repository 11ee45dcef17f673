"""What changed between two plans' verdicts: one change is one line of the journal and one entry of the history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xenplug.core.planning.steps import Cause, State, Verdict
from xenplug.core.reporting import explain


@dataclass(frozen=True, slots=True)
class Change:
    """A device that stands otherwise than before, or (`verdict` None) was unplugged."""

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
"""Moments on the way to something that will be told."""


def reported_state(verdict: Verdict) -> tuple[Any, ...]:
    """What of a verdict is worth a line when it changes; the number of tries and the claim's depth are not."""
    if verdict.state in (State.ATTACHED, State.FOREIGN, State.PROTECTED):
        return verdict.state, verdict.guest, verdict.by_hand, verdict.cause is Cause.PAUSED, bool(verdict.text)
    return verdict.state, verdict.cause, verdict.target


def changes(before: Iterable[Verdict], after: Iterable[Verdict]) -> list[Change]:
    """All changes from what was told last to what is now, unplugged devices first."""
    old = {v.device.key: v for v in before}
    new = {v.device.key: v for v in after}
    gone = [Change(v, None) for key, v in old.items() if key not in new]
    moved = [
        Change(old.get(key), v)
        for key, v in new.items()
        if key not in old or reported_state(old[key]) != reported_state(v)
    ]
    return gone + [change for change in moved if change.verdict and change.verdict.cause not in PASSING]
