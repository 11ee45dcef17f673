"""Plays the guests: a process per device model (qemu.py), a thread for all their PVUSB frontends.

    player = Player(toolstack, testbed); player.start()
    player.boot(5, "kiosk", "pvh")      # domain, device model, frontend, then ready, in libxl's order
    player.kill_device_model(5); player.set_silent(5, True); player.set_frontend(5, False); player.destroy(5)

What real qemus do with devices is in qusb.py and qmp.py, with the sources of those facts.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .domains import Domain, GuestKind
from .qusb import Manners
from .toolstack import BenchToolstack
from .usb import Testbed
from .wait import until
from .xswire import Xenstore

PACKAGE = __package__ or "bench"
IMPORT_ROOT = Path(__file__).resolve().parents[len(PACKAGE.split("."))]


@dataclass(slots=True)
class _Guest:
    process: subprocess.Popen[str] | None
    frontend: bool


class Player:
    """All guests of one toolstack and testbed."""

    def __init__(self, toolstack: BenchToolstack, testbed: Testbed, manners: Manners | None = None) -> None:
        self.toolstack, self.testbed = toolstack, testbed
        self.manners = manners or Manners()
        self._guests: dict[int, _Guest] = {}
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        self._thread: threading.Thread | None = None
        self._stopping = False

    # ---- life of the guests ----------------------------------------------------------------------------------

    def boot(
        self,
        domid: int,
        name: str,
        kind: GuestKind,
        *,
        uuid: str | None = None,
        frontend: bool | None = None,
        device_model: bool = True,
        controllers: Sequence[Sequence[str]] = (),
        ready: bool = True,
    ) -> Domain:
        """Start a guest. frontend: true unless it is hvm. controllers: words for usbctrl-attach, one list each."""
        domain = self.toolstack.add_domain(domid, name, kind, uuid=uuid, backend=None, ready=False)
        self.serve(domid, device_model=device_model, frontend=kind != "hvm" if frontend is None else frontend)
        if ready:
            self.toolstack.make_ready(domid)
        for words in controllers:
            self.toolstack.xl("usbctrl-attach", str(domid), *words)
        return domain

    def destroy(self, domid: int, *, orderly: bool = True) -> None:
        """Destroy a guest: device model first (orderly: SIGHUP, else SIGKILL), then the domain."""
        self.dismiss(domid, orderly=orderly)
        self.toolstack.remove_domain(domid)

    def serve(self, domid: int, *, device_model: bool = True, frontend: bool = True) -> int | None:
        """Play for a domain that exists; the device model's pid."""
        process = self._start_device_model(domid) if device_model else None
        with self._lock:
            self._guests[domid] = _Guest(process, frontend)
        self._wake()
        return process.pid if process else None

    def dismiss(self, domid: int, *, orderly: bool = True) -> None:
        """Stop playing for a domain."""
        if not orderly:
            self.kill_device_model(domid)
        with self._lock:
            guest = self._guests.pop(domid)
        if guest.process is not None:
            self._end(guest.process, signal.SIGHUP)

    def _start_device_model(self, domid: int) -> subprocess.Popen[str]:
        options = {
            "domid": domid,
            "socket": str(self.toolstack.socket),
            "root": str(self.testbed.root),
            "qmp": str(self.toolstack.qmp_folder),
            "udev_delay": self.testbed.uevents.udev_delay,
            "claim": self.manners.claim,
            "scan": self.manners.scan,
            "bystanders": self.manners.bystanders,
        }
        environment = {**os.environ, "PYTHONPATH": str(IMPORT_ROOT)}
        with (self.toolstack.scratch / f"qemu-{domid}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"{PACKAGE}.qemu", json.dumps(options)],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the device model of {domid} did not start: {self.qemu_log(domid)}")
        return process

    def _end(self, process: subprocess.Popen[str], how: signal.Signals) -> None:
        process.send_signal(how)
        process.wait(5)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    # ---- failures -----------------------------------------------------------------------------------------

    def kill_device_model(self, domid: int) -> None:
        """SIGKILL: xenstore keeps its pid and backends, held devices stay without a driver."""
        tree = self.testbed.tree
        held = [name for name in tree.names() if ":" not in name and self.holds(domid, name)]
        with self._lock:
            process, self._guests[domid].process = self._guests[domid].process, None
        if process is not None:
            self._end(process, signal.SIGKILL)
        for busid in held:
            tree.take(busid)  # the kernel's usbfs releases the claims of a dead process

    def revive_device_model(self, domid: int) -> int:
        """A new device model for a guest that lost its own."""
        process = self._start_device_model(domid)
        with self._lock:
            self._guests[domid].process = process
        return process.pid

    def set_silent(self, domid: int, silent: bool) -> None:
        """The device model silently opens no more devices; or opens again those attached from now on."""
        self._order(domid, f"silent {int(silent)}")

    def set_paused(self, domid: int, paused: bool) -> None:
        """Pause the guest, so that it configures nothing; or let it run again."""
        self.toolstack.set_flags(domid, "p" if paused else "")
        self._order(domid, f"paused {int(paused)}")

    def _order(self, domid: int, line: str) -> None:
        with self._lock:
            process = self._guests[domid].process
        if process is not None and process.stdin is not None:
            process.stdin.write(line + "\n")
            process.stdin.flush()

    def set_frontend(self, domid: int, connected: bool) -> None:
        """The guest loads or loses its PVUSB driver."""
        with self._lock:
            self._guests[domid].frontend = connected
        self._wake()

    # ---- observing ---------------------------------------------------------------------------------------------

    def pid(self, domid: int) -> int | None:
        """The device model's process."""
        with self._lock:
            process = self._guests[domid].process
        return process.pid if process else None

    def holds(self, domid: int, busid: str) -> bool:
        """The device model holds the device's node open (taken: law 3, docs/dev/architecture.md), read from /proc."""
        pid = self.pid(domid)
        if pid is None or not self.testbed.tree.present(busid):
            return False
        node = str(self.testbed.tree.node(busid))
        links = Path(f"/proc/{pid}/fd").iterdir()
        return any(link.is_symlink() and str(link.readlink()) == node for link in links)

    def wait_used(self, domid: int, busid: str, seconds: float = 5.0) -> float:
        """Until the device is taken and all its interfaces are claimed; the seconds it took."""

        def used() -> bool:
            return self.holds(domid, busid) and set(self.testbed.tree.drivers(busid)) == {"usbfs"}

        return until(used, seconds, f"{busid} in use by domain {domid}")

    def wait_at_host(self, busid: str, seconds: float = 5.0) -> float:
        """Until dom0's own drivers are back; the seconds it took."""
        tree = self.testbed.tree

        def back() -> bool:
            names = tree.interfaces(busid)
            return bool(names) and all(tree.driver(name) == tree.natural(name) for name in names)

        return until(back, seconds, f"{busid} at dom0's drivers")

    def qemu_log(self, domid: int) -> str:
        """The log of the guest's device model."""
        return (self.toolstack.scratch / f"qemu-{domid}.log").read_text()

    # ---- frontends -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to play; xenstored must be up."""
        store, watcher = Xenstore(self.toolstack.socket), Xenstore(self.toolstack.socket)
        watcher.watch("/local/domain/0/backend/qusb")
        self._thread = threading.Thread(target=self._play, args=(store, watcher), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End all device models and the thread."""
        self._stopping = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        for domid in list(self._guests):
            self.dismiss(domid)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        os.write(self._wake_write, b"x")

    def _play(self, store: Xenstore, watcher: Xenstore) -> None:
        try:
            while not self._stopping:
                ready, _, _ = select.select([watcher.fileno(), self._wake_read], [], [])
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                if watcher.fileno() in ready:
                    watcher.pump()
                watcher.events.clear()
                with self._lock:
                    guests = {domid: guest.frontend for domid, guest in self._guests.items()}
                for domid, frontend in guests.items():
                    self._play_frontends(store, domid, frontend)
        except ConnectionError:  # xenstored was stopped
            pass
        finally:
            store.close()
            watcher.close()

    def _play_frontends(self, store: Xenstore, domid: int, driver: bool) -> None:
        home = f"/local/domain/{domid}/device/vusb"
        for controller in store.ls(home):
            mine = store.read(f"{home}/{controller}/state")
            backend = store.read(f"/local/domain/0/backend/qusb/{domid}/{controller}/state")
            wanted = mine
            if driver and backend in ("2", "3", "4"):
                wanted = "4"
            elif driver and backend == "5":
                wanted = "6"
            elif not driver and mine == "4":
                wanted = "1"
            if wanted is not None and wanted != mine:
                store.write(f"{home}/{controller}/state", wanted)
