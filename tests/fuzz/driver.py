"""The common driver of the fuzzers: feeds a target mutated good inputs and noise, and keeps what breaks it.

A target is a module in tests/fuzz/targets with `seeds() -> Iterable[bytes]` (good inputs), `read(data: bytes) -> None`
(raises when something is wrong: any exception is a finding) and, if it wants, TOKENS (pieces worth putting in) and SLOW
(seconds that one input may take at most). The inputs follow from the number of the run alone, so a finding can be
repeated: `python -m tests.fuzz TARGET --from N --runs 1`.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.fuzz import targets

SLOW = 2.0
MOST = 1 << 16
"""Bytes of an input; what the readers refuse for its size is tested elsewhere."""
NOISE = (
    b"\0",
    b"\xff",
    b"\n",
    b"\t",
    b" ",
    b'"',
    b"'",
    b"\\",
    b"\xc3",
    b"\xe2\x80\xae",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"-",
    b"*",
)


@dataclass(frozen=True)
class Target:
    """One reader under fire."""

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], None]
    tokens: Sequence[bytes] = ()
    slow: float = SLOW


@dataclass(frozen=True)
class Finding:
    """An input that broke the reader, and how."""

    run: int
    data: bytes
    words: str


@dataclass
class Report:
    """What came of it."""

    runs: int = 0
    slowest: float = 0.0
    findings: list[Finding] = field(default_factory=list)


def names() -> list[str]:
    """All targets."""
    return sorted(module.name for module in pkgutil.iter_modules(targets.__path__))


def target(name: str) -> Target:
    """The target of that name."""
    module = importlib.import_module(f"tests.fuzz.targets.{name}")
    tokens = tuple(getattr(module, "TOKENS", ()))
    return Target(name, tuple(module.seeds()), module.read, tokens, getattr(module, "SLOW", SLOW))


def data_of(aim: Target, run: int) -> bytes:
    """The input of one run: the same for ever."""
    # No secret is made here, and the run must be repeatable.
    chance = random.Random(f"{aim.name} {run}")
    if chance.random() < 0.02:
        return chance.randbytes(chance.randrange(200))
    data = bytearray(chance.choice(aim.seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 5, 10))):
        chance.choice(CHANGES)(data, chance, aim)
    return bytes(data[:MOST])


def _cut(data: bytearray, chance: random.Random, _: Target) -> None:
    at = chance.randrange(len(data) + 1)
    del data[at : at + chance.choice((1, 2, 4, 16, 200))]


def _put(data: bytearray, chance: random.Random, aim: Target) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice((*NOISE, *aim.tokens)) * chance.choice((1, 1, 1, 2, 50))


def _swap(data: bytearray, chance: random.Random, aim: Target) -> None:
    """One piece that the reader knows in the place of another."""
    here = [token for token in aim.tokens if token in data]
    if here:
        old = chance.choice(here)
        at = chance.choice([i for i in range(len(data)) if data.startswith(old, i)])
        data[at : at + len(old)] = chance.choice(aim.tokens)


def _flip(data: bytearray, chance: random.Random, _: Target) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _double(data: bytearray, chance: random.Random, _: Target) -> None:
    at, end = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
    data[at:at] = data[at:end] * chance.choice((1, 1, 3))


def _lines(data: bytearray, chance: random.Random, _: Target) -> None:
    """Lines in another order."""
    lines = data.split(b"\n")
    chance.shuffle(lines)
    data[:] = b"\n".join(lines)


def _splice(data: bytearray, chance: random.Random, aim: Target) -> None:
    """The end of another good input."""
    other = chance.choice(aim.seeds)
    data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]


CHANGES = (_cut, _put, _put, _swap, _swap, _flip, _double, _lines, _splice)


def one(aim: Target, run: int) -> tuple[float, Finding | None]:
    """Feed one input: the seconds it took, and what was wrong."""
    data = data_of(aim, run)
    start = time.perf_counter()
    try:
        aim.read(data)
    except Exception:
        # Whatever a reader lets out is what is looked for.
        return time.perf_counter() - start, Finding(run, data, traceback.format_exc())
    took = time.perf_counter() - start
    return took, Finding(run, data, f"took {took:.1f} s") if took > aim.slow else None


def fuzz(aim: Target, first: int, runs: int | None, seconds: float, most: int = 20) -> Report:
    """Runs from `first` on until there are enough of them, the time is over, or `most` findings were made."""
    report = Report()
    end = time.monotonic() + seconds
    while (runs is None or report.runs < runs) and time.monotonic() < end and len(report.findings) < most:
        took, finding = one(aim, first + report.runs)
        report.runs += 1
        report.slowest = max(report.slowest, took)
        if finding:
            report.findings.append(finding)
    return report
