"""Reads what real xl commands answered in the lab: tests/data/xl/VERSION/*.json, made by `tests/lab/lab record-xl`."""

from __future__ import annotations

import json
from pathlib import Path

from xenplug.core.protocols import Result

FOLDER = Path(__file__).parent


def versions() -> list[str]:
    """The Xen versions there are recordings of."""
    return sorted(folder.name for folder in FOLDER.iterdir() if any(folder.glob("*.json")))


def names(version: str) -> list[str]:
    """The recorded calls of a version."""
    return sorted(file.stem for file in (FOLDER / version).glob("*.json"))


def result(version: str, name: str) -> Result:
    """A recorded call, as adapters/proc would return it."""
    call = json.loads((FOLDER / version / f"{name}.json").read_text())
    return Result(tuple(call["argv"]), call["code"], call["stdout"], call["stderr"], signal=call["signal"])
