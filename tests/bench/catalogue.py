"""Real devices, from public descriptions of them (`lsusb -v` listings of each model), and the recordings of these.

`python -m bench.catalogue FOLDER` (in tests/) writes the .umockdev files; test_recordings.py compares them with this
module. Serial numbers are made up. Where no listing shows a byte (report descriptor lengths of the Apple keyboard,
sample rates of the headset), it is what such devices usually have.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

from .records import Place, controller_text, device_tree
from .usbspec import BULK, INTERRUPT, ISOCHRONOUS, Bus, Endpoint, HostController, UsbDevice, UsbInterface

HOST = HostController("0000:00:14.0", "xhci_hcd", {1: Bus(8, "high"), 2: Bus(4, "super")}, {"2-1": "1-5", "2-2": "1-6"})
RATES = (44100, 48000, 16000)


def hid(report: int, country: int = 0, version: int = 0x0110) -> bytes:
    """A HID descriptor with the length of its report descriptor."""
    return struct.pack("<BBHBBBH", 9, 0x21, version, country, 1, 0x22, report)


def _streaming(number: int, terminal: int, endpoint: Endpoint, rates: tuple[int, ...]) -> UsbInterface:
    """An audio class 1 streaming interface: nothing in setting 0, one isochronous endpoint in setting 1."""
    general = struct.pack("<BBBBBH", 7, 0x24, 1, terminal, 1, 1)
    frequencies = b"".join(rate.to_bytes(3, "little") for rate in rates)
    form = bytes((8 + len(frequencies), 0x24, 2, 1, 2, 2, 16, len(rates))) + frequencies
    active = UsbInterface((1, 2, 0), None, (endpoint,), general + form)
    return UsbInterface((1, 2, 0), "snd-usb-audio", alternates=active.encode(number, 1))


def _audio_control() -> bytes:
    """Microphone -> feature -> selector -> USB, and USB -> feature -> speaker; header first."""
    units = b"".join(
        (
            struct.pack("<BBBBHBBHBB", 12, 0x24, 2, 2, 0x0101, 0, 2, 3, 0, 0),
            struct.pack("<BBBBHBBHBB", 12, 0x24, 2, 1, 0x0201, 0, 2, 3, 0, 0),
            struct.pack("<BBBBHBBB", 9, 0x24, 3, 3, 0x0101, 0, 10, 0),
            struct.pack("<BBBBHBBB", 9, 0x24, 3, 4, 0x0301, 0, 5, 0),
            bytes((10, 0x24, 6, 5, 2, 1, 1, 2, 2, 0)),
            bytes((10, 0x24, 6, 8, 1, 1, 3, 0, 0, 0)),
            bytes((7, 0x24, 5, 10, 1, 8, 0)),
        )
    )
    return struct.pack("<BBBHHBBB", 10, 0x24, 1, 0x0100, 10 + len(units), 2, 1, 2) + units


def _iso(address: int, sync: int, packet: int) -> Endpoint:
    """bRefresh, bSynchAddress, then the class-specific endpoint descriptor."""
    return Endpoint(address, ISOCHRONOUS | sync << 2, packet, 1, bytes((0, 0, 7, 0x25, 1, 1, 1, 1, 0)))


MOUSE = UsbDevice(
    "046d:c016",
    (UsbInterface((3, 1, 2), "usbhid", (Endpoint(0x81, INTERRUPT, 4, 10),), hid(52)),),
    speed="low", revision=0x0340, packet0=8, attributes=0xA0, max_power=98,
    manufacturer="Logitech", product="Optical USB Mouse",
)  # fmt: skip
KEYBOARD_HUB = UsbDevice(
    "05ac:1006",
    (UsbInterface((9, 0, 0), "hub", (Endpoint(0x81, INTERRUPT, 1, 12),)),),
    device_class=(9, 0, 1), revision=0x9615, attributes=0xE0, max_power=300, maxchild=3,
    manufacturer="Apple, Inc.", product="Keyboard Hub", serial="000000000000",
)  # fmt: skip
KEYBOARD = UsbDevice(
    "05ac:024f",
    (
        UsbInterface((3, 1, 1), "usbhid", (Endpoint(0x81, INTERRUPT, 8, 10),), hid(75, country=33, version=0x0111)),
        UsbInterface((3, 0, 0), "usbhid", (Endpoint(0x82, INTERRUPT, 1, 10),), hid(47, version=0x0111)),
    ),
    speed="low", revision=0x0074, packet0=8, attributes=0xA0, max_power=20, removable="fixed",
    manufacturer="Apple Inc.", product="Apple Keyboard",
)  # fmt: skip
HEADSET = UsbDevice(
    "046d:0a38",
    (
        UsbInterface((1, 1, 0), "snd-usb-audio", extra=_audio_control()),
        _streaming(1, 2, _iso(0x01, 2, 192), RATES[:2]),
        _streaming(2, 3, _iso(0x82, 1, 192), RATES),
        UsbInterface((3, 0, 0), "usbhid", (Endpoint(0x83, INTERRUPT, 4, 2),), hid(61, version=0x0100)),
    ),
    speed="full", revision=0x0113, max_power=120,
    manufacturer="Logitech Inc.", product="Logitech USB Headset H340",
)  # fmt: skip
PHONE = UsbDevice(
    "18d1:4ee2",
    (
        UsbInterface(
            (6, 1, 1), None, (Endpoint(0x81, BULK, 512), Endpoint(0x01, BULK, 512), Endpoint(0x82, INTERRUPT, 28, 6)),
            name=5,
        ),
        UsbInterface((0xFF, 0x42, 1), None, (Endpoint(0x02, BULK, 512), Endpoint(0x83, BULK, 512)), name=6),
    ),
    revision=0x0510, max_power=500, manufacturer="Google", product="Pixel 6", serial="1A2B0DEE6001XY",
)  # fmt: skip
STICK = UsbDevice(
    "0781:5567",
    (UsbInterface((8, 6, 0x50), "usb-storage", (Endpoint(0x81, BULK, 512), Endpoint(0x02, BULK, 512, 1))),),
    revision=0x0100, max_power=200, manufacturer="SanDisk", product="Cruzer Blade", serial="4C530001230456117325",
)  # fmt: skip
SERIAL = UsbDevice(
    "0403:6001",
    (UsbInterface((0xFF, 0xFF, 0xFF), "ftdi_sio", (Endpoint(0x81, BULK, 64), Endpoint(0x02, BULK, 64)), name=2),),
    speed="full", revision=0x0600, packet0=8, attributes=0xA0, max_power=90,
    manufacturer="FTDI", product="FT232R USB UART", serial="A600BENC",
)  # fmt: skip

DESK: dict[str, dict[str, UsbDevice]] = {
    "mouse": {"1-1": MOUSE},
    "keyboard": {"1-2": KEYBOARD_HUB, "1-2.2": KEYBOARD},
    "headset": {"1-3": HEADSET},
    "phone": {"1-4": PHONE},
    "stick": {"1-5": STICK},
    "serial": {"1-6": SERIAL},
}
"""Recording -> its devices by port. They fit on one host together, which is the recording `desk`."""


def recordings() -> dict[str, str]:
    """File name -> contents. Each holds its parents too, as umockdev-record writes them."""
    host = controller_text(HOST)
    numbers = {port: n for n, port in enumerate((p for ports in DESK.values() for p in ports), start=2)}

    def trees(devices: dict[str, UsbDevice]) -> str:
        return "".join(device_tree(device, Place(HOST.path, port, numbers[port])) for port, device in devices.items())

    files = {f"{name}.umockdev": host + trees(devices) for name, devices in DESK.items()}
    everything = "".join(trees(devices) for devices in DESK.values())
    return {"host.umockdev": host, **files, "desk.umockdev": host + everything}


if __name__ == "__main__":
    for name, text in recordings().items():
        (Path(sys.argv[1]) / name).write_text(text)
