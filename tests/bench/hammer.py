"""A program that writes nodes of xenstore for ever, as fast as xenstored takes them.

    python hammer.py SOCKET NODES PATH      # PATH has {} for the number of the node

Many writes are under way at a time, so it is as fast as a guest that does nothing else. Its first line says it began.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEADER = struct.Struct("=IIII")
WRITE = 11
BATCH = 100


def write(number: int, path: str) -> bytes:
    """One request."""
    payload = path.encode() + b"\0" + b"%d" % number
    return HEADER.pack(WRITE, 0, 0, len(payload)) + payload


def main(path: str, nodes: int, pattern: str) -> None:
    """Never returns."""
    with socket.socket(socket.AF_UNIX) as store:
        store.connect(path)
        number = 0
        while True:
            store.sendall(b"".join(write(number + n, pattern.format((number + n) % nodes)) for n in range(BATCH)))
            store.recv(1 << 16)
            number += BATCH
            if number == 10 * BATCH:
                print("begun", flush=True)


@contextmanager
def hammering(store: Path, nodes: int, pattern: str) -> Iterator[None]:
    """It runs, in a process of its own."""
    argv = [sys.executable, __file__, str(store), str(nodes), pattern]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"begun\n"
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
