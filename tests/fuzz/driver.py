"""The common driver of the fuzzers: runs a target on mutated valid inputs and random bytes, and collects findings.

A target is a module in tests/fuzz/targets with `seeds() -> Iterable[bytes]` (valid inputs), `read(data: bytes) -> None`
(any exception is a finding) and optionally TOKENS (pieces to insert) and SLOW (the most seconds for one input). The
number of the run alone determines the input, so a finding can be repeated:
`python -m tests.fuzz TARGET --from N --runs 1`.
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
"""The most bytes of an input; the size limits of the parsers are tested elsewhere."""
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
    """One parser to test."""

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], None]
    tokens: Sequence[bytes] = ()
    slow: float = SLOW


@dataclass(frozen=True)
class Finding:
    """An input that caused an error, and the error."""

    run: int
    data: bytes
    words: str


@dataclass
class Report:
    """The result of a fuzzing session."""

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
    """The input of one run, which is always the same."""
    # Not used for secrets, and the run must be repeatable.
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
    """Replace one token with another."""
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
    """Shuffle the lines."""
    lines = data.split(b"\n")
    chance.shuffle(lines)
    data[:] = b"\n".join(lines)


def _splice(data: bytearray, chance: random.Random, aim: Target) -> None:
    """Replace the end with that of another valid input."""
    other = chance.choice(aim.seeds)
    data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]


CHANGES = (_cut, _put, _put, _swap, _swap, _flip, _double, _lines, _splice)


def one(aim: Target, run: int) -> tuple[float, Finding | None]:
    """Run one input: the seconds it took, and the finding, if any."""
    data = data_of(aim, run)
    start = time.perf_counter()
    try:
        aim.read(data)
    except Exception:
        # Any exception of a parser is a finding.
        return time.perf_counter() - start, Finding(run, data, traceback.format_exc())
    took = time.perf_counter() - start
    return took, Finding(run, data, f"took {took:.1f} s") if took > aim.slow else None


def fuzz(aim: Target, first: int, runs: int | None, seconds: float, most: int = 20) -> Report:
    """Run inputs from `first` on, up to `runs` inputs, for at most `seconds`, and until there are `most` findings."""
    report = Report()
    end = time.monotonic() + seconds
    while (runs is None or report.runs < runs) and time.monotonic() < end and len(report.findings) < most:
        took, finding = one(aim, first + report.runs)
        report.runs += 1
        report.slowest = max(report.slowest, took)
        if finding:
            report.findings.append(finding)
    return report
