"""Coverage-guided fuzzing, if atheris is installed: `python -m tests.fuzz.guided TARGET -max_total_time=600`.

Targets, their valid inputs and half of the mutations come from the driver, the other half from libFuzzer. Options after
the target are libFuzzer's. An input that causes an error is written to ./crash-…; add it to a test.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path


def _escaped(token: bytes) -> str:
    """The escaped form for libFuzzer's dictionaries."""
    return "".join(f"\\x{byte:02x}" for byte in token)


def main() -> None:
    """The command line."""
    import atheris  # type: ignore[import-not-found, unused-ignore]  # not a dependency: pip install atheris

    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["xenplug"]):
        from tests.fuzz.driver import CHANGES, target

        aim = target(name)

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        changed = bytearray(data)
        chance.choice(CHANGES)(changed, chance, aim)
        return bytes(changed[:most])

    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for number, seed in enumerate(aim.seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    words = folder.with_suffix(".dict")
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in aim.tokens if len(token) < 60))
    longest = max(4096, *map(len, aim.seeds))
    argv = [sys.argv[0], f"-max_len={longest}", f"-dict={words}", *options, str(folder)]
    atheris.Setup(argv, aim.read, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
