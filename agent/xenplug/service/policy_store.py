"""The policy in force: loaded completely or not at all. A reload that fails changes nothing and reports why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenplug.adapters import policy_files
from xenplug.core.documents.problems import Problem
from xenplug.core.policy.digest import PolicyIdentity
from xenplug.core.policy.load import Loaded, load
from xenplug.core.policy.rules import Policy

if TYPE_CHECKING:
    from xenplug.core.reporting.views import PolicyView

log = logging.getLogger("xenplug")


def read_policy(path: Path, *, guarded: bool = False) -> Loaded:
    """The policy in a file or folder, with all problems: files that cannot be read, wrong syntax, wrong values.

    `guarded`: refuse files that users other than root may write, as the agent does.
    """
    files, problems = policy_files.read(path, guarded=guarded)
    loaded = load(files)
    everything = tuple(sorted([*problems, *loaded.problems], key=lambda p: (p.file, p.line, p.column)))
    return Loaded(None, everything) if everything else loaded


def problem_view(problem: Problem) -> dict[str, Any]:
    """A problem in JSON."""
    return asdict(problem)


class PolicyStore:
    """Reads the policy and remembers the last valid one. `wall` returns the time of day."""

    def __init__(self, read: Callable[[], Loaded], wall: Callable[[], float]) -> None:
        self._read = read
        self._wall = wall
        self._since: float | None = None
        self.policy: Policy | None = None
        self.identity: PolicyIdentity | None = None
        """Which policy is in force; None if none is."""
        self.named: frozenset[str] = frozenset()
        """Guests that the policy in force names."""
        self.problems: tuple[Problem, ...] = ()

    def reload(self) -> bool:
        """Read the policy again. False if it has problems; then the last valid one, if any, stays in force."""
        loaded = self._read()
        self.problems = loaded.problems
        for problem in loaded.problems:
            log.error("%s", problem)
        if loaded.policy is None:
            log.error("%s", self.message)
            return False
        self.policy, self._since = loaded.policy, self._wall()
        self.identity = PolicyIdentity(loaded.digest, loaded.policy.label)
        rules = {guest for rule in loaded.policy.rules for guest in rule.guests}
        self.named = frozenset(rules | set(loaded.policy.guests))
        log.info("%s", self.message)
        return True

    @property
    def message(self) -> str:
        """The result of the last reading, in one sentence."""
        count = len(self.problems)
        if count == 0 and self.policy:
            rules = len(self.policy.rules)
            return f"policy in force: {rules} rule{'s' * (rules != 1)}"
        rest = "the last good policy stays in force" if self.policy else "nothing will be attached"
        return f"the policy has {count} problem{'s' * (count != 1)}; {rest}"

    def view(self) -> PolicyView:
        """For status."""
        from xenplug.core.reporting.views import PolicyView  # here, so that `check` need not import the planner

        problems = tuple(problem_view(p) for p in self.problems)
        return PolicyView(self.policy is not None, self._since, problems, self.identity or PolicyIdentity())
