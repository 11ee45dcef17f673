"""Progress: one line per stage with its seconds on stderr; what its commands print goes to a log file, whose end is
shown when a stage fails. Flow: cli -> build, lifecycle -> stage() -> run()."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from labkit.config import LOGS, LabError


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Shows `title`, and once the block is done its seconds."""
    start = time.monotonic()
    print(f"{title} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        print(f" failed after {time.monotonic() - start:.1f} s", file=sys.stderr)
        raise
    print(f" {time.monotonic() - start:.1f} s", file=sys.stderr)


def log_path(name: str) -> Path:
    """The log of that name; the folder is made."""
    LOGS.mkdir(parents=True, exist_ok=True)
    return LOGS / f"{name}.log"


def run(argv: Sequence[str | Path], log: str, env: dict[str, str] | None = None) -> None:
    """Runs a command with its output in the log `log`; LabError with the log's last lines when it fails."""
    path = log_path(log)
    with path.open("ab") as out:
        out.write(f"\n# {' '.join(map(str, argv))}\n".encode())
        out.flush()
        done = subprocess.run([str(word) for word in argv], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env)
    if done.returncode:
        raise LabError(f"{Path(argv[0]).name} failed ({done.returncode}); the end of {path}:\n{tail(path)}")


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a file, for error messages."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join("  " + line for line in text.splitlines()[-lines:])
