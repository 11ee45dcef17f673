"""A scenario's devices as devices of the lab: gadgets made in dom0, which can be anything but a hub or a device that
streams. Those, and the devices behind a hub, are QEMU's, if one of its devices can replace the scenario's.
"""

import shlex
from collections.abc import Iterable
from dataclasses import replace

from labkit.lab import Lab
from labkit.sockets import EMULATED_PORTS, GADGETS, PORT, Sockets
from xenplug.core.matching.match import Matcher
from xenplug.core.model import BusId, Device, Interface, Speed, Tag, Use
from xenplug.core.usb.kinds import kinds
from xenplug.scenario.runner import Unplayable

SPEEDS = {Speed.LOW: "low-speed", Speed.FULL: "full-speed", Speed.HIGH: "high-speed", Speed.SUPER: "super-speed"}
STAND_INS = {
    (Interface(3, 1, 1),): ("keyboard", "0627:0001", "QEMU USB Keyboard"),
    (Interface(3, 1, 2),): ("mouse", "0627:0001", "QEMU USB Mouse"),
    (Interface(8, 6, 0x50),): ("storage", "46f4:0001", "QEMU USB HARDDRIVE"),
    (Interface(0xFF, 0xFF, 0xFF),): ("serial", "0403:6001", "QEMU USB SERIAL"),
    (Interface(1, 1, 0), Interface(1, 2, 0)): ("audio", "46f4:0002", "QEMU USB Audio"),
    (Interface(9, 0, 0),): ("hub", "0409:55aa", "QEMU USB Hub"),
}
"""Interfaces -> lab.plug's kind, and tag and product of what it plugs: full speed where only the hub offers that."""
MOUNT = """
for i in $(seq 150); do
  disk=$(ls -d /sys/bus/usb/devices/{port}:1.*/host*/target*/*/block/* 2>/dev/null) && break; sleep 0.2; done
mke2fs -q -F /dev/${{disk##*/}} && mkdir -p /mnt/scenario && mount /dev/${{disk##*/}} /mnt/scenario
"""
AWAIT = """
exec 3<> <(:)
for i in $(seq 150); do [ {sense} -e /sys/bus/usb/devices/{port} ] && exit; read -t 0.2 -u 3; done; exit 1
"""
"""Wait until a port is taken (sense "") or free ("!"), without a process for each check."""
DECONFIGURE = """
cat > /run/udev/rules.d/39-scenario.rules <<'RULE' && udevadm control --reload
ACTION=="add", SUBSYSTEM=="usb", ATTR{{idVendor}}=="{}", ATTR{{idProduct}}=="{}", ATTR{{bConfigurationValue}}="0"
RULE
"""
"""As usbmuxd's rule does with Apple's devices."""
GADGET = "flock -o /run/gadgets gadget.sh"
"""-o: what a gadget leaves running (ffs.py) does not keep the lock."""


def socket(port: str) -> int:
    """The number of the socket a scenario's port is at or below."""
    found = PORT.match(port)
    if found is None:
        raise Unplayable(f"port {port}: the lab's host has only buses 1 and 2")
    return int(found[2])


def emulated(devices: Iterable[Device]) -> set[int]:
    """The sockets that need QEMU's devices."""
    return {socket(d.port) for d in devices if d.hub or "." in d.port or d.isochronous}


def stand_in(device: Device) -> Device:
    """QEMU's replacement for the device. Raises Unplayable."""
    if device.interfaces not in STAND_INS or device.speed in (Speed.SUPER, Speed.SUPER_PLUS):
        what = "streams" if device.isochronous else "hangs on a hub, or below one"
        raise Unplayable(f"device {device.tag}: it {what}, and QEMU has none like it")
    _, tag, product = STAND_INS[device.interfaces]
    return replace(device, tag=Tag(tag), product=product, manufacturer="QEMU", speed=Speed.FULL)


def playable(device: Device, sockets: set[int]) -> None:
    """Unplayable says why the lab cannot have this device. `sockets` are those that QEMU serves."""
    number = socket(device.port)
    if device.removable != "unknown":
        raise Unplayable(f"device {device.tag}: no firmware here tells whether a socket is removable")
    if device.in_use - {Use.STORAGE}:
        raise Unplayable(f"device {device.tag}: dom0's own network and keyboard are no USB devices here")
    if number in sockets:
        stand_in(device)
        if number > EMULATED_PORTS:
            raise Unplayable(f"port {device.port}: the emulated xHCI has {EMULATED_PORTS} ports")
    elif number > GADGETS or device.speed not in SPEEDS:
        raise Unplayable(f"port {device.port}, speed {device.speed}: dummy_hcd has {GADGETS} ports, up to SuperSpeed")


def alike(device: Device, matcher: Matcher) -> bool:
    """Whether the policy treats the device and its replacement alike."""
    other = stand_in(device)
    described = [replace(d, kinds=kinds(d.tag, [*d.interfaces, d.device_class], {})) for d in (device, other)]
    where = f"pci-0000:00:14.0-usb-0:{device.port.partition('-')[2]}"
    return len({matcher.decide(replace(d, path=where, plain_path=where)).rule for d in described}) == 1


class ScenarioDevices:
    """The devices that are plugged in now."""

    def __init__(self, lab: Lab, sockets: Sockets) -> None:
        self._lab, self._sockets = lab, sockets
        self.there: dict[str, Device] = {}
        """By the scenario's port."""

    def emulates(self, port: str) -> bool:
        return socket(port) in self._sockets.emulated

    def plug(self, device: Device) -> None:
        """Returns when dom0 has it."""
        name = f"s{device.port}"
        if not device.configured:
            self._lab.must("mkdir -p /run/udev/rules.d" + DECONFIGURE.format(*device.tag.split(":")))
        if self.emulates(device.port):
            kind = STAND_INS[device.interfaces][0]
            old = {"usb_version": 1} if kind in ("keyboard", "mouse") else {}
            self._lab.plug(name, kind, bus="xhci", port=device.port.partition("-")[2], **old)
        else:
            words = shlex.join(["add", name, *device.tag.split(":"), *_words(device)])
            self._lab.must(f"{GADGET} {words} && {self._await(device.port, True)}", 120)
        self.there[device.port] = device
        if self.emulates(device.port):
            self._lab.must(self._await(device.port, True))
        if Use.STORAGE in device.in_use:
            self._lab.must(MOUNT.format(port=self._sockets.port(device.port)), 90)

    def unplug(self, port: str) -> None:
        """Unplug it with the devices behind it; returns when dom0 no longer has it."""
        if port not in self.there:
            raise Unplayable(f"port {port}: nothing is plugged in there")
        used = Use.STORAGE in self.there[port].in_use
        for below in [p for p in self.there if p == port or p.startswith(f"{port}.")]:
            del self.there[below]
        gone = self._await(port, False)
        if self.emulates(port):
            self._lab.unplug(f"s{port}")
            self._lab.must(gone)
        else:
            # the rest of the gadget is removed in the background, which takes two seconds
            clear = f"{'umount -l /mnt/scenario; ' * used}{GADGET} del s{port}"
            self._lab.must(f"{GADGET} unplug s{port} && ({gone}) && {{ ({clear}) > /dev/null 2>&1 < /dev/null & }}")

    def become(self, port: BusId, tag: str | None) -> None:
        """It disconnects and returns at the same place, perhaps as another device."""
        if port not in self.there or self.emulates(port):
            raise Unplayable(f"port {port}: only a gadget can re-enumerate by itself")
        device = replace(self.there[port], tag=Tag(tag or self.there[port].tag))
        self._lab.must(f"{GADGET} become s{port} {device.tag.replace(':', ' ')} && {self._await(port, True)}")
        self.there[port] = device

    def clear(self) -> None:
        """Unplug everything; devices behind a hub go with the hub."""
        while self.there:
            self.unplug(min(self.there, key=len))
        self._lab.must("rm -f /run/udev/rules.d/39-scenario.rules && udevadm control --reload")

    def _await(self, port: str, present: bool) -> str:
        return AWAIT.format(sense="" if present else "!", port=self._sockets.port(port)).strip()


def _words(device: Device) -> list[str]:
    texts = {
        "manufacturer": device.manufacturer or "",
        "product": device.product or "",
        "serial": device.serial or "",
        "speed": SPEEDS[device.speed or Speed.HIGH],
        "interfaces": " ".join(map(str, device.interfaces)),
        "udc": f"dummy_udc.{socket(device.port) - 1}",
    }
    if device.revision:
        texts["revision"] = device.revision.replace(".", "").zfill(4)
    if device.device_class != Interface(0, 0, 0):
        texts |= dict(zip(("class", "subclass", "protocol"), str(device.device_class).split(":"), strict=True))
    return [f"{key}={value}" for key, value in texts.items()]
