"""What qemu's monitor does with libxl's emulated USB: controllers, usb-host devices, HMP; error texts are qemu's.

A pulled device is not noticed: the object and its id stay until device_del (xen-facts T21).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .claimed_device import Held, drop, grab
from .loop import Loop
from .qusb import Manners
from .tree import Tree

ACCEPTS = {
    "piix3-usb-uhci": ("full", {"1.5", "12", "480"}),
    "usb-ehci": ("high", {"480"}),
    "nec-usb-xhci": ("super", {"1.5", "12", "480", "5000", "10000"}),
}
"""Controller model -> speed of its ports in qemu's words, device speeds it takes (480 on UHCI is downgraded)."""
WORDS = {"1.5": "low", "12": "full", "480": "high", "5000": "super", "10000": "super"}
GREETING = {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}


class QmpError(Exception):
    """The command fails with this text; `kind` is QMP's error class."""

    def __init__(self, text: str, kind: str = "GenericError") -> None:
        super().__init__(text)
        self.kind = kind


class Qmp:
    """The monitor socket of one guest's device model, and the emulated USB behind it."""

    def __init__(self, path: Path, tree: Tree, loop: Loop, manners: Manners) -> None:
        self._tree, self._loop, self._manners = tree, loop, manners
        self._controllers: dict[str, str] = {}
        self._devices: dict[str, Held] = {}
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        loop.reader(self._socket, self._accept)

    def drop_all(self) -> None:
        """An orderly end: every device returns to dom0."""
        for held in self._devices.values():
            drop(self._tree, held)
        self._devices.clear()

    # ---- the wire --------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        client, _ = self._socket.accept()
        client.sendall(json.dumps(GREETING).encode() + b"\r\n")
        buffer = bytearray()

        def read() -> None:
            try:
                data = client.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                self._loop.forget(client)
                client.close()
                return
            buffer.extend(data)
            while b"\n" in buffer:
                line, _, rest = bytes(buffer).partition(b"\n")
                buffer[:] = rest
                if line.strip():
                    client.sendall(json.dumps(self._answer(json.loads(line))).encode() + b"\r\n")

        self._loop.reader(client, read)

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = {"id": request["id"]} if "id" in request else {}
        try:
            reply["return"] = self.execute(request["execute"], request.get("arguments", {}))
        except QmpError as error:
            reply["error"] = {"class": error.kind, "desc": str(error)}
        return reply

    def execute(self, command: str, arguments: Mapping[str, Any]) -> object:
        """Run one QMP command; unknown ones succeed and do nothing."""
        commands: dict[str, Callable[[Mapping[str, Any]], object]] = {
            "device_add": self._add,
            "device_del": self._delete,
            "human-monitor-command": self._human,
        }
        return commands[command](arguments) if command in commands else {}

    # ---- USB -------------------------------------------------------------------------------------------------

    def _add(self, arguments: Mapping[str, Any]) -> object:
        name, driver = arguments.get("id", ""), arguments.get("driver", "")
        bus = arguments.get("bus")
        if bus is not None and bus.removesuffix(".0") not in self._controllers:
            raise QmpError(f"Bus '{bus}' not found")
        if name in self._controllers or name in self._devices:
            raise QmpError(f"Duplicate device ID '{name}'")
        if driver == "usb-host":
            self._devices[name] = self._plug(arguments, str(bus).removesuffix(".0"))
        elif driver in ACCEPTS:
            self._controllers[name] = driver
        else:
            raise QmpError(f"'{driver}' is not a valid device model name")
        return {}

    def _plug(self, arguments: Mapping[str, Any], controller: str) -> Held:
        bus = int(arguments["hostbus"])
        if "hostport" in arguments:
            busid: str | None = f"{bus}-{arguments['hostport']}"
        else:
            number = int(arguments["hostaddr"])
            busid = self._tree.at_address(bus, number)
            if busid is None:
                raise QmpError(f"failed to find host usb device {bus}:{number}")
        self._check_speed(busid or "", controller, arguments.get("port", "1"))
        held = Held(busid or "", len(self._devices))
        if not self._manners.silent and grab(self._tree, held):
            self._claim_later(held)
        return held

    def _check_speed(self, busid: str, controller: str, port: str) -> None:
        word, accepted = ACCEPTS[self._controllers[controller]]
        speed = self._tree.attribute(busid, "speed")
        if speed and speed not in accepted:
            product = self._tree.attribute(busid, "product")
            raise QmpError(
                f'Warning: speed mismatch trying to attach usb device "{product}" ({WORDS[speed]} speed)'
                f' to bus "{controller}.0", port "{port}" ({word} speed)'
            )

    def _claim_later(self, held: Held) -> None:
        self._loop.later(self._manners.claim, lambda: self._claim(held))

    def _claim(self, held: Held) -> None:
        if self._manners.paused:
            self._claim_later(held)
        elif held.fd is not None and held in self._devices.values():
            self._tree.claim(held.busid)

    def _delete(self, arguments: Mapping[str, Any]) -> object:
        name = arguments["id"]
        if name in self._devices:
            held = self._devices.pop(name)
            drop(self._tree, held)
        elif name in self._controllers:
            del self._controllers[name]
        else:
            raise QmpError(f"Device '{name}' not found", "DeviceNotFound")
        return {}

    def _human(self, arguments: Mapping[str, Any]) -> str:
        command, _, rest = str(arguments["command-line"]).partition(" ")
        try:
            if command == "device_del":
                self._delete({"id": rest.strip()})
            elif command == "device_add":
                driver, *pairs = rest.strip().split(",")
                self._add({"driver": driver, **dict(pair.split("=", 1) for pair in pairs)})
            elif (command, rest.strip()) == ("info", "usb"):
                return "".join(self._line(held) for held in self._devices.values())
            else:
                return f"unknown command: '{command}'\r\n"
        except QmpError as error:
            return f"Error: {error}\r\n"
        return ""

    def _line(self, held: Held) -> str:
        speed, product = self._tree.attribute(held.busid, "speed"), self._tree.attribute(held.busid, "product")
        return f"  Device 0.{held.serial + 1}, Port {held.serial + 1}, Speed {speed} Mb/s, Product {product}\r\n"


def socket_path(folder: Path, domid: int) -> Path:
    """Where libxl looks for the monitor of a guest."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"qmp-libxl-{domid}"
