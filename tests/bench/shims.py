"""Compiles the C parts of the bench (shim/*.c) once and keeps them in a cache folder.

Named by a hash of source and flags, so that a changed source is built again and parallel runs do not collide.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent / "shim"
FLAGS = ("-O1", "-Wall", "-Wextra")
PACKAGES = {
    "xen-utils-4.17": "/usr/lib/xen-4.17/bin/xl",
    "libxen-dev": "/usr/include/xenctrl.h",
    "gcc": "/usr/bin/gcc",
    "libumockdev0": "/usr/lib/*/libumockdev-preload.so.0",
}
"""Debian packages that the bench needs, each with a file (pattern) that shows that it is installed."""


def missing_packages() -> list[str]:
    """The packages that have to be installed before anything here works."""
    return [name for name, file in PACKAGES.items() if not any(Path("/").glob(file.lstrip("/")))]


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/xenplug-bench, else ~/.cache/xenplug-bench."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "xenplug-bench"


def build(name: str) -> Path:
    """The compiled shim/NAME.c: an executable for xl_wrapper, a library to preload for the rest."""
    source = SOURCES / f"{name}.c"
    library = name != "xl_wrapper"
    digest = hashlib.sha256(source.read_bytes() + repr(FLAGS).encode()).hexdigest()[:16]
    target = cache_folder() / f"{name}-{digest}{'.so' if library else ''}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f"{target.name}.{os.getpid()}")
        kind = ("-shared", "-fPIC") if library else ()
        gcc = shutil.which("gcc") or "gcc"
        subprocess.run([gcc, *FLAGS, *kind, "-o", str(scratch), str(source), "-ldl"], check=True)
        scratch.replace(target)  # atomic: another run may build the same
    return target
