#!/usr/bin/python3
"""Serves USB interfaces of any class through a mounted FunctionFS: `ffs.py FOLDER CLASS:SUBCLASS:PROTOCOL...`, called
by gadget.sh. Each interface has one bulk endpoint and no function behind it: every request is stalled. Returns once the
interfaces are there; a process stays, its id in FOLDER.pid, and with it the interfaces.

Formats: linux/usb/functionfs.h; USB 2.0 9.6.5 and 9.6.6; the SuperSpeed companion: USB 3.2 9.6.7."""

import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

DESCRIPTORS, STRINGS = 3, 2  # FUNCTIONFS_DESCRIPTORS_MAGIC_V2, FUNCTIONFS_STRINGS_MAGIC
ALL_SPEEDS = 7  # full, high, super
BULK_SIZES = (64, 512, 1024)
COMPANION = bytes((6, 0x30, 0, 0, 0, 0))
SETUP = 4  # FUNCTIONFS_SETUP
EVENT = 12


def block(triples: Sequence[str], size: int) -> list[bytes]:
    """The descriptors at one speed, whose bulk packets have `size` bytes."""
    made = []
    for number, triple in enumerate(triples):
        made.append(struct.pack("9B", 9, 4, number, 0, 1, *(int(part, 16) for part in triple.split(":")), 0))
        made.append(struct.pack("<BBBBHB", 7, 5, 0x81 + number, 2, size, 0))
        made += [COMPANION] if size == BULK_SIZES[-1] else []
    return made


def describe(ep0: int, triples: Sequence[str]) -> None:
    """Hands the kernel the descriptors, and no strings."""
    blocks = [block(triples, size) for size in BULK_SIZES]
    counts = struct.pack("<3I", *map(len, blocks))
    body = counts + b"".join(part for one in blocks for part in one)
    os.write(ep0, struct.pack("<3I", DESCRIPTORS, 12 + len(body), ALL_SPEEDS) + body)
    os.write(ep0, struct.pack("<4I", STRINGS, 16, 0, 0))


def serve(ep0: int) -> None:
    """Stalls every request, which is done by answering in the wrong direction."""
    while event := os.read(ep0, EVENT):
        if event[8] != SETUP:
            continue
        try:
            if event[0] & 0x80:
                os.read(ep0, 0)
            else:
                os.write(ep0, b"")
        except OSError:
            continue  # EL2HLT: stalled, as meant


def main(folder: str, *triples: str) -> None:
    ep0 = os.open(f"{folder}/ep0", os.O_RDWR)
    describe(ep0, triples)
    if pid := os.fork():
        Path(f"{folder}.pid").write_text(str(pid))
        return
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    serve(ep0)


if __name__ == "__main__":
    main(*sys.argv[1:])
