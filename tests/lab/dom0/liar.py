#!/usr/bin/python3
"""High speed USB devices that answer with any bytes as their descriptors, on dom0's own vhci_hcd bus: a configfs gadget
cannot send false descriptors. Returns once the device is plugged; a process stays, its id in /run/liar-NAME.pid, and is
the device.

  liar.py plug NAME PORT DEVICE CONFIGURATION...   PORT 0 to 7; the descriptors in hex
  liar.py unplug NAME
  liar.py clear unplugs all

It answers GET_DESCRIPTOR for these, takes SET_CONFIGURATION and SET_INTERFACE, stalls all other requests to endpoint 0,
and keeps other transfers waiting. Wire format: Documentation/usb/usbip_protocol.rst, the side of a server."""

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

ATTACH = Path("/sys/devices/platform/vhci_hcd.0/attach")
RUN = Path("/run")
HIGH_SPEED = 3  # enum usb_device_speed
SUBMIT, UNLINK = 1, 2
ANSWERED, UNLINKED = 3, 4
HEADER = 48
GET_DESCRIPTOR, SET_CONFIGURATION, SET_INTERFACE = (0x80, 6), (0x00, 9), (0x01, 11)
Descriptors = Mapping[tuple[int, int], bytes]
"""By type and index."""


def answer(setup: bytes, descriptors: Descriptors) -> bytes | None:
    """What the device sends for this request to endpoint 0; None: it stalls."""
    request = (setup[0], setup[1])
    if request in (SET_CONFIGURATION, SET_INTERFACE):
        return b""
    if request != GET_DESCRIPTOR:
        return None
    return descriptors.get((setup[3], setup[2]))


def submitted(head: bytes, descriptors: Descriptors) -> bytes:
    """The reply to a transfer; empty while it waits."""
    sequence, endpoint = struct.unpack_from(">I", head, 4)[0], struct.unpack_from(">I", head, 16)[0]
    if endpoint:
        return b""
    setup = head[40:48]
    data = answer(setup, descriptors)
    status = -errno.EPIPE if data is None else 0
    sent = (data or b"")[: int.from_bytes(setup[6:8], "little")]
    return struct.pack(">5IiiiIi8x", ANSWERED, sequence, 0, 0, 0, status, len(sent), 0, 0, 0) + sent


def serve(wire: socket.socket, descriptors: Descriptors) -> None:
    """Act as the device, until the other side closes."""
    stream = wire.makefile("rwb")
    while len(head := stream.read(HEADER)) == HEADER:
        command, sequence, _, into, _ = struct.unpack_from(">5I", head)
        if command == UNLINK:
            stream.write(struct.pack(">5Ii24x", UNLINKED, sequence, 0, 0, 0, -errno.ECONNRESET))
        elif command == SUBMIT:
            size = struct.unpack_from(">i", head, 24)[0]
            if not into and size > 0:
                stream.read(size)
            stream.write(submitted(head, descriptors))
        stream.flush()


def plug(name: str, port: str, device: str, *configurations: str) -> None:
    subprocess.run(["modprobe", "vhci-hcd"], check=True)
    descriptors = {(2, index): bytes.fromhex(text) for index, text in enumerate(configurations)}
    descriptors[1, 0] = bytes.fromhex(device)
    ours, kernels = socket.socketpair()
    ATTACH.write_text(f"{port} {kernels.fileno()} {1 + int(port)} {HIGH_SPEED}")
    kernels.close()
    if pid := os.fork():
        (RUN / f"liar-{name}.pid").write_text(str(pid))
        return
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    serve(ours, descriptors)


def unplug(name: str) -> None:
    file = RUN / f"liar-{name}.pid"
    with suppress(ProcessLookupError):
        os.kill(int(file.read_text()), signal.SIGTERM)
    file.unlink()


def main(verb: str, *words: str) -> None:
    if verb == "plug":
        plug(*words)
    elif verb == "unplug":
        unplug(*words)
    else:
        for file in RUN.glob("liar-*.pid"):
            unplug(file.stem.removeprefix("liar-"))


if __name__ == "__main__":
    main(*sys.argv[1:])
