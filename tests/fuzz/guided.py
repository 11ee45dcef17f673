"""The fuzzers led by coverage, where atheris is installed: `python -m tests.fuzz.guided TARGET -max_total_time=600`.

Targets and their good inputs are the driver's; what follows the target are libFuzzer's own options. An input that
breaks a reader is written to ./crash-…, and belongs into a test.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def _escaped(token: bytes) -> str:
    """As libFuzzer's dictionaries want it."""
    return "".join(f"\\x{byte:02x}" for byte in token)


def main() -> None:
    """The command line."""
    import atheris  # type: ignore[import-not-found, unused-ignore]  # not a dependency: pip install atheris

    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["xenplug"]):
        from tests.fuzz.driver import target

        aim = target(name)
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for number, seed in enumerate(aim.seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    words = folder.with_suffix(".dict")
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in aim.tokens if len(token) < 60))
    atheris.Setup([sys.argv[0], "-max_len=4096", f"-dict={words}", *options, str(folder)], aim.read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
