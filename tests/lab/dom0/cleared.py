#!/usr/bin/python3
"""Measures how long after the kernel's `remove` event a guest port is empty, in seconds: `cleared.py PORT`.

PORT is its xenstore path. It prints "ready", waits at most a minute for the removal of a USB device, and then for
xenstored's event of the port (xenstore-watch), which is sent when the port is written."""

import subprocess
import sys
import time

import pyudev

WAIT = 60.0


def main(port: str) -> None:
    """Watch, then print."""
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), "kernel")
    monitor.filter_by("usb", "usb_device")
    monitor.start()
    with subprocess.Popen(["stdbuf", "-oL", "xenstore-watch", port], stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout
        watch.stdout.readline()  # comes at once: it watches by now
        print("ready", flush=True)
        began = time.monotonic()
        while time.monotonic() - began < WAIT:
            device = monitor.poll(WAIT)
            if device is not None and device.action == "remove":
                break
        gone = time.monotonic()
        watch.stdout.readline()
        print(time.monotonic() - gone, flush=True)
        watch.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
