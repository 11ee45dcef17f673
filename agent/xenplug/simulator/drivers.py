"""Which of dom0's drivers binds to an interface, by its class (the kernel's own tables, for the common classes)."""

from __future__ import annotations

from xenplug.core.model import Device, Interface

DRIVER_BY_CLASS = {
    0x01: "snd-usb-audio",
    0x02: "cdc_acm",
    0x03: "usbhid",
    0x07: "usblp",
    0x08: "usb-storage",
    0x09: "hub",
    0x0A: "cdc_acm",
    0x0E: "uvcvideo",
}
DRIVER_BY_TRIPLE = {
    Interface(0x02, 0x06, 0x00): "cdc_ether",
    Interface(0x02, 0x0D, 0x00): "cdc_ncm",
    Interface(0x08, 0x06, 0x62): "uas",
    Interface(0xE0, 0x01, 0x01): "btusb",
}
USBFS = "usbfs"
"""The driver link of an interface that a process has claimed through libusb."""


def dom0_drivers(device: Device) -> tuple[str | None, ...]:
    """The driver of each interface after dom0 has probed them; None if it has none."""
    return tuple(DRIVER_BY_TRIPLE.get(i) or DRIVER_BY_CLASS.get(i.class_) for i in device.interfaces)
