"""Places as udev's path_id writes them. Expected values marked "seen" are from real machines' ID_PATH."""

import pytest

from xenplug.core.usb import place

PCI = "/devices/pci0000:00/0000:00:14.0"


@pytest.mark.parametrize(
    ("host", "port", "expected", "bdf"),
    [
        pytest.param(PCI, "1-4.2", "pci-0000:00:14.0-usb-0:4.2", "0000:00:14.0", id="PCI (seen)"),
        pytest.param(
            "/devices/pci0000:00/0000:00:1c.4/0000:03:00.0",
            "3-1",
            "pci-0000:03:00.0-usb-0:1",
            "0000:03:00.0",
            id="behind a bridge (seen)",
        ),
        pytest.param(
            "/devices/platform/dummy_hcd.0", "5-1", "platform-dummy_hcd.0-usb-0:1", None, id="dummy_hcd (seen)"
        ),
        pytest.param("/devices/platform/vhci_hcd.0", "6-2", "platform-vhci_hcd.0-usb-0:2", None, id="USB/IP"),
        pytest.param(
            "/devices/platform/scb/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0",
            "1-1.3",
            "platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1.3",
            "0000:01:00.0",
            id="PCI on an ARM board (seen)",
        ),
        pytest.param(
            "/devices/platform/soc/fe980000.usb/xhci-hcd.1.auto",
            "1-1",
            "platform-xhci-hcd.1.auto-usb-0:1",
            None,
            id="platform in platform",
        ),
        pytest.param(
            "/devices/pci0000:00/0000:00:15.0/dwc3.1.auto/xhci-hcd.2.auto",
            "1-1",
            "pci-0000:00:15.0-platform-xhci-hcd.2.auto-usb-0:1",
            "0000:00:15.0",
            id="platform in PCI",
        ),
        pytest.param("/devices/vusb-0", "1-1", "xen-vusb-0-usb-0:1", None, id="PVUSB frontend"),
        pytest.param("/devices/virtual/x", "1-1", None, None, id="nothing that names a place"),
    ],
)
def test_plain_path(host: str, port: str, expected: str | None, bdf: str | None) -> None:
    parents = place.guess_parents(host)
    assert place.plain_path(port, parents) == expected
    assert place.controller(parents) == bdf


def test_other_subsystems_interrupt_a_sequence() -> None:
    parents = [("a", "platform"), ("b", "auxiliary"), ("c", "platform")]
    assert place.prefix(parents) == "platform-c-platform-a"


@pytest.mark.parametrize(
    ("peer", "port", "expected"),
    [
        pytest.param(f"{PCI}/usb1/1-0:1.0/usb1-port5", "2-1", "pci-0000:00:14.0-usb-0:5", id="root port"),
        pytest.param(f"{PCI}/usb1/1-0:1.0/usb1-port5", "2-1.3.1", "pci-0000:00:14.0-usb-0:5.3.1", id="below hubs"),
        pytest.param(
            "/devices/pci0000:00/0000:00:1a.0/usb3/3-0:1.0/usb3-port2",
            "2-1",
            "pci-0000:00:1a.0-usb-0:2",
            id="on another controller",
        ),
        pytest.param(None, "2-1", None, id="no peer"),
        pytest.param(f"{PCI}/usb1/1-0:1.0/odd", "2-1", None, id="no port"),
        pytest.param("nonsense", "2-1", None, id="no path"),
    ],
)
def test_peer_path(peer: str | None, port: str, expected: str | None) -> None:
    assert place.peer_path(port, peer, place.guess_parents(PCI), PCI) == expected


@pytest.mark.parametrize(
    ("devpath", "expected"),
    [
        pytest.param(f"{PCI}/usb1/1-4/1-4.2", (PCI, "usb1", "1-4/1-4.2"), id="device"),
        pytest.param(f"{PCI}/usb1", (PCI, "usb1", ""), id="root hub"),
        pytest.param(PCI, None, id="no bus"),
        pytest.param("", None, id="empty"),
    ],
)
def test_split(devpath: str, expected: tuple[str, str, str] | None) -> None:
    assert place.split(devpath) == expected
