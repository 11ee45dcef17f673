"""Sends uevents into a umockdev testbed, as kernel and udev would, from any process and without any preload.

umockdev's preload turns each netlink monitor into a UNIX socket ROOT/eventFD. umockdev's own sender gives every
monitor, whatever its source, one message in udev's format. Here, if the listener also has shim/uevent_groups
preloaded, monitors of the kernel's group get the kernel's format at once, those of udev's group udev's format after
`udev_delay` seconds (on real hosts 50 ms and more: its rules run first). Without it: as umockdev does.
One listening process per testbed: the sockets are named by file descriptor only.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path

MAGIC = 0xFEEDCAFE
KERNEL_GROUP = "1"
OVERFLOW = b"xenplug-bench: netlink overflow".ljust(64, b".")
"""shim/uevent_groups turns this message into ENOBUFS."""


def murmur(text: str) -> int:
    """MurmurHash2 with seed 0, which libudev's socket filters compare (systemd src/basic/MurmurHash2.c)."""
    mix, word = 0x5BD1E995, 0xFFFFFFFF
    data = text.encode()
    value = len(data)
    whole = len(data) // 4 * 4
    for (piece,) in struct.iter_unpack("<I", data[:whole]):
        piece = piece * mix & word
        piece = (piece ^ piece >> 24) * mix & word
        value = (value * mix & word) ^ piece
    if data[whole:]:
        value = (value ^ int.from_bytes(data[whole:], "little")) * mix & word
    value = (value ^ value >> 13) * mix & word
    return value ^ value >> 15


def kernel_message(action: str, path: str, properties: Mapping[str, str]) -> bytes:
    """The kernel's format (lib/kobject_uevent.c); DEVNAME without /dev/."""
    fields = {"ACTION": action, "DEVPATH": path, **properties}
    if "DEVNAME" in fields:
        fields["DEVNAME"] = fields["DEVNAME"].removeprefix("/dev/")
    return b"\0".join([f"{action}@{path}".encode(), *_fields(fields)]) + b"\0"


def udev_message(action: str, path: str, properties: Mapping[str, str]) -> bytes:
    """udev's format (systemd device-monitor.c, device_monitor_send_device)."""
    fields = {"ACTION": action, "DEVPATH": path, "USEC_INITIALIZED": "1", **properties}
    if "DEVNAME" in fields:
        fields["DEVNAME"] = "/dev/" + fields["DEVNAME"].removeprefix("/dev/")
    body = b"\0".join(_fields(fields)) + b"\0"
    kind = properties.get("DEVTYPE")
    head = struct.pack("=8s", b"libudev") + struct.pack(">I", MAGIC) + struct.pack("=III", 40, 40, len(body))
    hashes = struct.pack(">II", murmur(properties["SUBSYSTEM"]), murmur(kind) if kind else 0)
    return head + hashes + bytes(8) + body


def _fields(fields: Mapping[str, str]) -> list[bytes]:
    return [f"{key}={value}".encode("utf-8", "surrogateescape") for key, value in fields.items()]


class Uevents:
    """The senders of one testbed root. `muted`: events are not sent to any listener."""

    def __init__(self, root: Path, udev_delay: float = 0.0) -> None:
        self.root = root
        self.udev_delay = udev_delay
        self.muted = False
        self.sent: dict[tuple[str, str], float] = {}
        """When each action on each device or interface was sent last, by its name (monotonic seconds)."""
        self._late: queue.Queue[tuple[float, bytes]] = queue.Queue()
        self._worker: threading.Thread | None = None

    def send(self, action: str, path: str, properties: Mapping[str, str]) -> None:
        """Announce the action on the device at /sys + PATH with these kernel properties (SUBSYSTEM among them)."""
        if self.muted:
            return
        self.sent[action, path.rpartition("/")[2]] = time.monotonic()
        numbered = {**properties, "SEQNUM": str(time.monotonic_ns() // 1000)}
        self._deliver(kernel_message(action, path, numbered), kernel=True)
        message = udev_message(action, path, numbered)
        if not self.udev_delay:
            self._deliver(message, kernel=False)
            return
        if self._worker is None:
            self._worker = threading.Thread(target=self._deliver_late, daemon=True)
            self._worker.start()
        self._late.put((time.monotonic() + self.udev_delay, message))

    def overflow(self) -> None:
        """Make every monitor's next read fail with ENOBUFS, as after lost messages."""
        for listener in self._listeners():
            self._post(listener, OVERFLOW)

    def _deliver_late(self) -> None:
        while True:
            due, message = self._late.get()
            time.sleep(max(0.0, due - time.monotonic()))
            self._deliver(message, kernel=False)

    def _listeners(self) -> list[Path]:
        return sorted(self.root.glob("event[0-9]*"))

    def _deliver(self, message: bytes, kernel: bool) -> None:
        for listener in self._listeners():
            group = self.root / "groups" / listener.name.removeprefix("event")
            of_kernel = group.is_symlink() and str(group.readlink()) == KERNEL_GROUP
            if of_kernel == kernel:
                self._post(listener, message)

    def _post(self, listener: Path, message: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                sender.connect(str(listener))
                sender.send(message)
            except ConnectionRefusedError:  # the monitor is closed; its socket file stays behind
                with contextlib.suppress(FileNotFoundError):
                    listener.unlink()
            except FileNotFoundError:
                pass
