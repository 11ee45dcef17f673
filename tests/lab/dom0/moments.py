#!/usr/bin/python3
"""Notes when a plugged device reaches each stage on its way to a guest, and prints it as JSON: `moments.py TAG PORT
GUEST PID`.

PORT is the xenstore path of the guest port, GUEST the guest's console log, PID its device model. It prints "ready",
waits for the device at most a minute, and prints each moment in seconds after the kernel's own event: `udev`, `xl` and
`done` (from the timed xl of test_compare.py), `written`, `backend` (the device model holds the device's node open) and
`guest` (the guest has reported it)."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pyudev

CALLS = Path("/run/compare-calls")
WAIT = 60.0
EVERY = 0.02
NAMES = ("kernel", "udev", "xl", "written", "done", "backend", "guest")

moments: dict[str, float] = {}


def listen(source: str, name: str, product: str) -> None:
    """The first event that reports the complete device."""
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source)
    monitor.filter_by("usb", "usb_device")
    monitor.start()
    for device in iter(monitor.poll, None):
        if device.properties.get("PRODUCT", "").startswith(product) and device.action in ("add", "bind"):
            moments.setdefault(name, time.monotonic())
            return


def calls() -> None:
    """What the timed xl wrote: /proc/uptime at its start and at its end, which counts as CLOCK_BOOTTIME does."""
    away = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    for line in CALLS.read_text().splitlines() if CALLS.exists() else ():
        name, when = line.split()
        moments.setdefault(name, float(when) - away)


def held(pid: str) -> bool:
    """Whether the device model has a device's node open."""
    try:
        links = [str(number.readlink()) for number in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(link.startswith("/dev/bus/usb/") for link in links)


def main(tag: str, port: str, guest: str, pid: str) -> None:
    """Watch, then print."""
    product = "/".join(f"{int(part, 16):x}" for part in tag.split(":")) + "/"
    for source, name in (("kernel", "kernel"), ("udev", "udev")):
        threading.Thread(target=listen, args=(source, name, product), daemon=True).start()
    log, before = Path(guest), Path(guest).read_text(errors="replace").count(f" {tag} ")
    time.sleep(0.5)  # the monitors listen by now
    print("ready", flush=True)
    end = time.monotonic() + WAIT
    while set(NAMES) - moments.keys() and time.monotonic() < end:
        time.sleep(EVERY)
        if "xl" in moments and "written" not in moments and os.popen(f"xenstore-read {port}").read().strip():
            moments["written"] = time.monotonic()
        if "backend" not in moments and held(pid):
            moments["backend"] = time.monotonic()
        if "guest" not in moments and log.read_text(errors="replace").count(f" {tag} ") > before:
            moments["guest"] = time.monotonic()
        calls()
    zero = moments.get("kernel", 0.0)
    print(json.dumps({name: when - zero for name, when in moments.items()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
