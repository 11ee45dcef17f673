"""Runs next to the emulator until it ends. QEMU 7.2 sometimes stands still with both CPUs halted until a byte comes
in on the serial line. When the emulator has used no CPU time for a while, this sends one.

    python3 -m labkit.watchdog QEMU-PID SERIAL-SOCKET
"""

import os
import socket
import sys
import time
from pathlib import Path

PERIOD = 6.0  # seconds; a healthy idle machine uses about a tenth of that in CPU time
STILL_TICKS = 2


def cpu_ticks(pid: int) -> int:
    """The process's user and system time in clock ticks (proc(5): stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def poke(path: str) -> None:
    """One newline on the serial line: dom0's console shows a prompt, nothing else happens."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(5)
        line.connect(path)
        line.sendall(b"\n")


def watch(pid: int, path: str) -> None:
    before = cpu_ticks(pid)
    while True:
        time.sleep(PERIOD)
        now = cpu_ticks(pid)
        if now - before <= STILL_TICKS:
            print(f"{time.strftime('%H:%M:%S')} stood still ({now - before} ticks in {PERIOD} s): poked", flush=True)
            poke(path)
        before = now


def detach() -> None:
    """Continue as a process without a parent that waits for it."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.nice(5)


if __name__ == "__main__":
    detach()
    try:
        watch(int(sys.argv[1]), sys.argv[2])
    except OSError as gone:
        print(f"ends: {gone}")
