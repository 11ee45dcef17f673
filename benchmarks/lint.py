"""What `check` spends on warnings (core/matching/lint), by number and kind of rules: it must not compare all pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from xenplug.core.matching.lint import lint
from xenplug.core.policy.load import load
from xenplug.core.policy.rules import Policy

KINDS: dict[str, Callable[[int], str]] = {
    "glob": lambda n: f"product: '*thing {n:05}*'",
    "same letter": lambda n: f"product: 'x{n}*'",
    "three texts": lambda n: f"{('product', 'serial', 'manufacturer')[n % 3]}: '*x{n}*', kind: mouse",
    "any": lambda n: f"any: [{{product: '*a{n}*'}}, {{serial: 'b{n}*'}}]",
    "not": lambda n: f"kind: mouse, not: {{device: {n % 65536:04x}:0001}}",
    "one device": lambda n: f"device: 1:1, serial: sn{n:05}",
    "alike": lambda n: f"product: '[a-c]{'?' * (n % 9)}*', serial: '?*', revision: {n % 99}.{n // 99 % 100:02}",
}
"""alike: no text tells the rules apart, so the budget ends the search."""


def policy(count: int, kind: str) -> Policy:
    """Rules of one kind for two guests; a tenth as many entries of protect."""
    entries = ", ".join(f"{{{KINDS[kind](n)}}}" for n in range(count, count + count // 10))
    rules = "".join(f"  - {{match: {{{KINDS[kind](n)}}}, attach: {'ab'[n % 2]}}}\n" for n in range(count))
    loaded = load({"policy.yaml": f"version: 1\nprotect: [{entries}]\nrules:\n{rules}".encode()})
    assert loaded.policy, loaded.problems
    return loaded.policy


def measure() -> Iterator[tuple[str, list[float]]]:
    """Title and figures of each measurement."""
    for kind in KINDS:
        for count in (1_000, 2_000, 4_000, 10_000):
            yield f"warnings about {count} rules, {kind}, s", [_once(policy(count, kind))]


def _once(subject: Policy) -> float:
    start = time.perf_counter()
    lint(subject)
    return time.perf_counter() - start
