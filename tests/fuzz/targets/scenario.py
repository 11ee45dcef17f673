"""The scenario loader: every text loads or is refused with problems and positions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xenplug.core.documents.document import schema
from xenplug.scenario.format import load

ROOT = Path(__file__).parents[3]
TOKENS = [f"{key}: ".encode() for key in schema("scenario")["properties"]]
TOKENS += [b"- plug: ", b"- expect: ", b"- together: ", b"within: 5s", b"1-4.2", b"port: ", b"children: ", b"kind: hub"]


def seeds() -> Iterable[bytes]:
    """The shipped scenarios."""
    for folder in ("tests/scenarios", "policies/tests"):
        yield from (file.read_bytes() for file in sorted((ROOT / folder).glob("*.yaml")))


def read(data: bytes) -> None:
    """Load it; the result must be a scenario, or problems with a position."""
    scenario, problems = load(data, "a.yaml")
    assert (scenario is None) == bool(problems)
    for problem in problems:
        assert problem.line > 0
        assert str(problem).isprintable()
