"""A guest's device model as a process of its own: it holds device nodes, so its pid can be looked up and killed.

Started by player.py: `python -m bench.qemu JSON`. On stdin: `silent 0|1`, `paused 0|1`. SIGHUP ends it in order
(devices return to dom0's drivers, as with libxl's destroy), SIGKILL does not (they stay without a driver). Its stderr
is the guest's qemu log.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

from .loop import Loop
from .qmp import Qmp, socket_path
from .qusb import Manners, Qusb
from .tree import Tree
from .xswire import Xenstore


def main(options: dict[str, str | int | float | bool]) -> None:
    """Serve one guest until stdin closes or SIGHUP comes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    domid = int(options["domid"])
    manners = Manners(float(options["claim"]), float(options["scan"]), bool(options["bystanders"]))
    loop, socket = Loop(), Path(str(options["socket"]))
    store = Xenstore(socket)
    tree = Tree(Path(str(options["root"])))
    tree.uevents.udev_delay = float(options["udev_delay"])
    store.write(f"/local/domain/{domid}/image/device-model-pid", str(os.getpid()))
    store.write(f"/local/domain/0/device-model/{domid}/backends/qusb", "")
    store.write(f"/local/domain/0/device-model/{domid}/state", "running")
    monitor = socket_path(Path(str(options["qmp"])), domid)
    served = Qusb(domid, socket, tree, loop, manners), Qmp(monitor, tree, loop, manners)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGHUP, lambda *_: loop.stop())
    loop.reader(wake_read, lambda: _drain(wake_read))
    loop.reader(sys.stdin, lambda: _order(sys.stdin.readline(), loop, manners))
    print("ready", flush=True)
    loop.run()
    for one in served:
        one.drop_all()


def _drain(pipe: int) -> None:
    """A signal has woken the loop; its handler has done the rest."""
    os.read(pipe, 4096)


def _order(line: str, loop: Loop, manners: Manners) -> None:
    if not line:
        loop.stop()
    elif line.startswith("silent"):
        manners.silent = line.split()[1] == "1"
    elif line.startswith("paused"):
        manners.paused = line.split()[1] == "1"


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
