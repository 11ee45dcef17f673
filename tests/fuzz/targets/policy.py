"""The policy loader: every text loads or is refused with problems and positions; a loaded policy can decide."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.core.make import device

from xenplug.core.documents.document import schema
from xenplug.core.matching.match import Matcher, matches
from xenplug.core.policy.load import load
from xenplug.core.reporting import explain

ROOT = Path(__file__).parents[3]
KEYS = [*schema("policy")["properties"], *schema("policy")["$defs"]["match"]["properties"]]
KEYS += list(schema("policy")["$defs"]["rule"]["properties"])
WORDS = "046d:c016 046d:* 1.10 1-4.* pci-0000:00:14.0-usb-0:4.2 0000:00:14.0 03:01:01 keyboard high block host win11"
TOKENS = [
    *(f"{key}: ".encode() for key in KEYS),
    *map(str.encode, WORDS.split()),
    b"*:*",
    b"&a ",
    b"*a",
    b"!!int ",
    b"- ",
]
DEVICES = [device(), device("1-4.2", 7, serial="a" * 100, product="mouse\x1b", kinds=frozenset({"storage"}))]


def seeds() -> Iterable[bytes]:
    """The shipped policies and the invalid ones of the loader's tests."""
    for folder in ("policies", "tests/data/policy-errors"):
        yield from (file.read_bytes() for file in sorted((ROOT / folder).glob("*.yaml")))


def read(data: bytes) -> None:
    """Load it; the result must be a policy, or problems with a position and a remedy."""
    loaded = load({"a.yaml": data})
    assert (loaded.policy is None) == bool(loaded.problems)
    for problem in loaded.problems:
        assert problem.line >= 1, str(problem)
        assert problem.column >= 1, str(problem)
        assert "; " in problem.message, str(problem)
        assert str(problem).isprintable(), repr(str(problem))
    if loaded.policy:
        matcher = Matcher(loaded.policy)
        for here in DEVICES:
            naive = next((rule for rule in loaded.policy.rules if matches(rule.conditions, here)), None)
            assert matcher.decide(here).rule is naive
            matcher.protection(here)
            explain.rules_table(matcher, here)
