"""A listener for tests: prints what real pyudev reports of USB events, one JSON list a line, until stdin closes.

First line: "ready". Then [source, action, name, devtype, devnum, driver, busnum attribute, initialized].
"""

import json
import select
import sys

import pyudev


def main() -> None:
    """Listen to the kernel's and udev's events, as an agent would."""
    context = pyudev.Context()
    monitors = {}
    for source in ("kernel", "udev"):
        monitor = pyudev.Monitor.from_netlink(context, source=source)
        monitor.filter_by("usb")
        monitor.start()
        monitors[monitor.fileno()] = source, monitor
    print(json.dumps("ready"), flush=True)
    while True:
        ready, _, _ = select.select([sys.stdin, *monitors], [], [])
        if sys.stdin in ready:
            return
        for fd in ready:
            report(*monitors[fd])


def report(source: str, monitor: pyudev.Monitor) -> None:
    """Print one event, or the error that stands for lost ones."""
    try:
        device = monitor.poll(0)
    except OSError as error:
        print(json.dumps([source, "error", error.errno]), flush=True)
        return
    if device is None:
        return
    number, driver = device.properties.get("DEVNUM"), device.properties.get("DRIVER")
    bus = device.attributes.get("busnum")
    facts = [device.action, device.sys_name, device.device_type, number, driver, bus and bus.decode()]
    print(json.dumps([source, *facts, device.is_initialized]), flush=True)


if __name__ == "__main__":
    main()
