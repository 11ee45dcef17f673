"""What qemu's PVUSB backend does (hw/usb/xen-usb.c), with its traps as xen-facts 3.1 and real Xen showed them.

A port that gets a busid takes the device from dom0; "" returns it; a new busid over an old one is ignored; any change
under a controller makes it check all its ports again; a wrong speed is only a line in the log; a device replugged at a
port that was not cleared is grabbed within the scan and the guest does not learn of it; neighbours attached after a
pulled device are lost when its port is not cleared in time; the same port number on two controllers kills the device
model, and so does a busid that names no device, once the guest asks.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .claimed_device import Held, drop, grab, note_pull
from .loop import Loop
from .tree import Tree
from .xswire import Xenstore

WATCH_PULL = 0.05
CLEARED_IN_TIME = 0.5
BYSTANDERS_LOST = 0.9
"""Seconds after a pull: seen on real Xen with qemu 7.2."""
ASKED = 2.5
"""Seconds until the guest sends a request to a device that never existed (lab 16: qemu crashes within three)."""


@dataclass(slots=True)
class Manners:
    """How a device model behaves. Seconds."""

    claim: float = 0.05
    """From taken to used: the guest finds and configures the device."""
    scan: float = 2.0
    bystanders: bool = True
    silent: bool = False
    """Silently opens no more devices."""
    paused: bool = False
    """The guest is paused: it configures nothing until it runs."""


class Qusb:
    """All qusb controllers of one guest."""

    def __init__(self, domid: int, socket: Path, tree: Tree, loop: Loop, manners: Manners) -> None:
        self.root = f"/local/domain/0/backend/qusb/{domid}"
        self._frontends = f"/local/domain/{domid}/device/vusb"
        self._store, self._watcher = Xenstore(socket), Xenstore(socket)
        self._tree, self._loop, self._manners = tree, loop, manners
        self._ports: dict[tuple[str, str], Held] = {}
        self._serial = 0
        for path in (self.root, self._frontends):
            self._watcher.watch(path)
        loop.reader(self._watcher, self._pump)
        loop.later(WATCH_PULL, self._look_for_pulls)
        loop.later(manners.scan, self._scan)

    def _pump(self) -> None:
        self._watcher.pump()
        while self._watcher.events:
            path, _ = self._watcher.events.popleft()
            for root in (self.root, self._frontends):
                rest = path.removeprefix(root).strip("/")
                for controller in [rest.split("/")[0]] if rest and path.startswith(root) else []:
                    self.changed(controller)

    def drop_all(self) -> None:
        """An orderly end of the device model: every device returns to dom0."""
        for held in self._ports.values():
            drop(self._tree, held)
        self._ports.clear()

    def changed(self, controller: str) -> None:
        """usbback_backend_changed: states first, then every port of the controller."""
        base = f"{self.root}/{controller}"
        state = self._store.read(f"{base}/state")
        if state == "5":
            self._empty(controller)
            self._store.write(f"{base}/state", "6")
        elif state is None:
            self._empty(controller)
        elif state != "6":
            self._states(controller, base, state)
            for port in self._store.ls(f"{base}/port"):
                self._port(controller, port, self._store.read(f"{base}/port/{port}") or "")

    def _states(self, controller: str, base: str, state: str) -> None:
        frontend = self._store.read(f"{self._frontends}/{controller}/state")
        connected = frontend in ("3", "4")
        wanted = "4" if connected else "2"
        if state == wanted:
            return
        self._store.write(f"{base}/state", wanted)
        for (where, _), held in self._ports.items():
            if where == controller and held.fd is not None and not connected:
                self._tree.take(held.busid)
            elif where == controller:
                self._claim_later(controller, held)

    def _empty(self, controller: str) -> None:
        for key in [key for key in self._ports if key[0] == controller]:
            drop(self._tree, self._ports.pop(key))

    def _port(self, controller: str, port: str, busid: str) -> None:
        key = controller, port
        if not busid and key in self._ports:
            drop(self._tree, self._ports.pop(key))
        elif busid and key not in self._ports and not self._manners.silent and self._legal(controller, port):
            self._attach(key, busid)

    def _legal(self, controller: str, port: str) -> bool:
        ports = self._store.read(f"{self.root}/{controller}/num-ports") or "0"
        return 1 <= int(port) <= int(ports)

    def _attach(self, key: tuple[str, str], busid: str) -> None:
        if any(port == key[1] and controller != key[0] for controller, port in self._ports):
            self._abort("vmstate_register_with_alias_id: Assertion failed.")
        self._serial += 1
        held = Held(busid, self._serial)
        grab(self._tree, held)
        if held.fd is not None and not self._fits(key[0], busid):
            print(f"device {busid} wrong speed", file=sys.stderr, flush=True)
            drop(self._tree, held)
            return
        self._ports[key] = held
        if held.fd is None:
            self._loop.later(ASKED, lambda: self._ask(key, held))
        self._claim_later(key[0], held)

    def _ask(self, key: tuple[str, str], held: Held) -> None:
        """The guest sends a request to a device that never existed (lab 16)."""
        absent = self._ports.get(key) is held and held.fd is None and not self._tree.present(held.busid)
        if absent and not self._manners.paused and self._store.read(f"{self.root}/{key[0]}/state") == "4":
            self._abort("usb_handle_packet: Assertion `dev->state == USB_STATE_DEFAULT' failed.")

    def _abort(self, words: str) -> None:
        for held in self._ports.values():
            self._tree.take(held.busid)  # what the kernel's usbfs does when the process has died
        print(words, file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)

    def _fits(self, controller: str, busid: str) -> bool:
        speed = self._tree.attribute(busid, "speed")
        version = self._store.read(f"{self.root}/{controller}/usb-ver")
        return speed in ("1.5", "12") or (speed == "480" and version == "2")

    def _claim_later(self, controller: str, held: Held) -> None:
        def claim() -> None:
            if self._manners.paused:
                self._claim_later(controller, held)
                return
            connected = self._store.read(f"{self.root}/{controller}/state") == "4"
            if held.fd is not None and held.seen and connected and held in self._ports.values():
                self._tree.claim(held.busid)

        self._loop.later(self._manners.claim, claim)

    # ---- pulls -----------------------------------------------------------------------------------------------

    def _look_for_pulls(self) -> None:
        for key, held in list(self._ports.items()):
            if note_pull(self._tree, held) and self._manners.bystanders:
                self._expect_bystanders(key, held)
        self._loop.later(WATCH_PULL, self._look_for_pulls)

    def _expect_bystanders(self, key: tuple[str, str], pulled: Held) -> None:
        cleared: list[float] = []

        def look() -> None:
            if not cleared and self._ports.get(key) is not pulled:
                cleared.append(time.monotonic())
            if pulled.gone is None:
                return
            if time.monotonic() - pulled.gone < BYSTANDERS_LOST:
                self._loop.later(WATCH_PULL, look)
            elif not cleared or cleared[0] - pulled.gone > CLEARED_IN_TIME:
                self._lose_bystanders(key, pulled)

        look()

    def _lose_bystanders(self, key: tuple[str, str], pulled: Held) -> None:
        for (controller, _), held in self._ports.items():
            if controller == key[0] and held.serial > pulled.serial and held.fd is not None:
                held.seen = False
                self._tree.give_back(held.busid)  # its drivers only: the node stays open

    def _scan(self) -> None:
        for held in self._ports.values():
            if held.fd is None and not self._manners.silent and grab(self._tree, held):
                held.seen = held.gone is None  # a phantom's device may come; a replugged one is never announced
        self._loop.later(self._manners.scan, self._scan)
