"""The cost of one decision, by number of rules and kind of rule, and of loading a policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from xenplug.core.matching.match import Matcher
from xenplug.core.model import BusId, Device, Interface, Speed, Tag
from xenplug.core.policy.load import load
from xenplug.core.policy.rules import Policy

MOUSE = Device(
    BusId("1-4"), 1, 6, Tag("046d:c016"), path="pci-0000:00:14.0-usb-0:4", interfaces=(Interface(3, 1, 2),),
    kinds=frozenset({"mouse"}), speed=Speed.LOW, serial="SN42", product="USB Optical Mouse",
)  # fmt: skip
KINDS: dict[str, Callable[[int], str]] = {
    "tag": lambda n: f'{{device: "{n:04x}:0001"}}',
    "port": lambda n: f"{{port: 7-{n % 250 + 1}.{n // 250 + 1}}}",
    "path": lambda n: f'{{path: "pci-0000:00:1a.0-usb-0:{n % 250 + 1}.{n // 250 + 1}.*"}}',
    "serial": lambda n: f"{{serial: SN{n:06}}}",
    "glob": lambda n: f'{{product: "*thing {n:05}*"}}',
    "regex": lambda n: f"{{product: '/^thing {n:05}( pro)?$/'}}",
}
MIXED = ("tag", "tag", "tag", "path", "path", "port", "serial", "tag", "glob", "regex")


def policy(count: int, kind: str = "tag") -> str:
    """A policy of `count` rules that do not match, and a last one that does; mixed: a tenth globs, a tenth regexes."""
    kinds = MIXED if kind == "mixed" else (kind,)
    rules = "".join(f"  - {{match: {KINDS[kinds[n % len(kinds)]](n)}, attach: other}}\n" for n in range(count - 1))
    return f'version: 1\nrules:\n{rules}  - {{match: {{device: "046d:c016"}}, attach: kiosk}}\n'


def measure() -> Iterator[tuple[str, list[float]]]:
    """Title and figures of each measurement."""
    for kind in (*KINDS, "mixed"):
        for count in (10, 100, 1_000, 10_000):
            text = policy(count, kind).encode()
            loads, loaded = zip(*(_load(text) for _ in range(3)), strict=True)
            yield f"load {count} {kind} rules, ms", list(loads)
            start = time.perf_counter()
            matcher = Matcher(loaded[0])
            yield f"index {count} {kind} rules, ms", [(time.perf_counter() - start) * 1e3]
            yield f"decide among {count} {kind} rules, µs", [_once(matcher) for _ in range(200)]


def _load(text: bytes) -> tuple[float, Policy]:
    start = time.perf_counter()
    loaded = load({"policy.yaml": text}).policy
    took = time.perf_counter() - start
    assert loaded, "the benchmark's policy must load"
    return took * 1e3, loaded


def _once(matcher: Matcher) -> float:
    start = time.perf_counter()
    matcher.decide(MOUSE)
    return (time.perf_counter() - start) * 1e6
