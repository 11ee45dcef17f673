"""What the shell's tests share: the real xenstored, where this machine has it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def toolstack() -> Iterator[object]:
    """A BenchToolstack with the real xenstored running in a scratch folder of a short name."""
    bench = pytest.importorskip("tests.bench.toolstack")
    if not (bench.XEN_BIN / "xenstored").exists() or not shutil.which("gcc"):
        pytest.skip("no xenstored here; apt install xen-utils-4.17 libxen-dev gcc")
    with tempfile.TemporaryDirectory(prefix="xp") as scratch, bench.BenchToolstack(Path(scratch)) as running:
        yield running
