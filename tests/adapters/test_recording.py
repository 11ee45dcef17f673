"""umockdev recordings read as devices; other files are refused with the place and a remedy."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplug.adapters.recording import MAX_RECORDING_BYTES, RecordedBus, controllers, parse, read
from xenplug.core.model import Bdf, Interface, PciController
from xenplug.core.usb.device import RawInterface, describe

HOST = "/devices/pci0000:00/0000:00:14.0"
MOUSE = f"""\
P: {HOST}/usb1/1-4
N: bus/usb/001/006=12010002
S: input/by-id/mouse
E: DEVTYPE=usb_device
E: SUBSYSTEM=usb
E: ID_INPUT_JOYSTICK=1
A: authorized=1\\n
A: bConfigurationValue=1\\n
A: bNumInterfaces= 1\\n
A: busnum=1\\n
A: devnum=6\\n
A: idVendor=046d\\n
A: idProduct=c016\\n
A: product=Gr\\303\\266\\303\\237e \\"L\\"\\n
A: speed=1.5\\n
H: descriptors=12010002000000086D0416C04003010200010904000001030102
L: driver=../../../../../bus/usb/drivers/usb
"""
INTERFACE = f"""\

P: {HOST}/usb1/1-4/1-4:1.0
E: DRIVER=usbhid
A: bInterfaceClass=03\\n
A: bInterfaceSubClass=01\\n
A: bInterfaceProtocol=02\\n
L: driver=../../../../../../bus/usb/drivers/usbfs
"""
LINES = [line for line in (MOUSE + INTERFACE).split("\n") if line]
CONTROLLER = f"\nP: {HOST}\nE: SUBSYSTEM=pci\nE: DRIVER=xhci_hcd\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "host.umockdev"
    path.write_text(text)
    return path


def test_a_mouse(tmp_path: Path) -> None:
    (raw,) = read(write(tmp_path, MOUSE + INTERFACE + CONTROLLER))
    assert raw.interfaces == {"1-4:1.0": RawInterface("usbfs", Interface(3, 1, 2))}
    assert raw.parents == (("0000:00:14.0", "pci"),)
    device = describe(raw)
    assert device is not None
    assert device.product == 'Größe "L"'
    assert device.path == "pci-0000:00:14.0-usb-0:4"
    assert device.kinds == {"mouse", "gamepad"}
    assert device.configured


def test_interfaces_that_were_not_recorded(tmp_path: Path) -> None:
    (raw,) = read(write(tmp_path, MOUSE))
    assert raw.interfaces == {"1-4:1.0": RawInterface()}
    device = describe(raw)
    assert device is not None
    assert device.configured


def test_an_unauthorised_device_has_none(tmp_path: Path) -> None:
    text = MOUSE.replace("A: bConfigurationValue=1\\n", "A: bConfigurationValue=\\n")
    (raw,) = read(write(tmp_path, text))
    assert raw.interfaces == {}


def test_peer(tmp_path: Path) -> None:
    text = MOUSE.replace("usb1/1-4", "usb2/2-1").replace("speed=1.5", "speed=5000")
    port = f"\nP: {HOST}/usb2/2-0:1.0/usb2-port1\nL: peer=../../../usb1/1-0:1.0/usb1-port7\n"
    (raw,) = read(write(tmp_path, text + port))
    device = describe(raw)
    assert device is not None
    assert device.path == "pci-0000:00:14.0-usb-0:7"


def test_controllers(tmp_path: Path) -> None:
    assert controllers(write(tmp_path, MOUSE + CONTROLLER)) == (PciController(Bdf("0000:00:14.0"), "xhci_hcd"),)
    assert controllers(write(tmp_path, MOUSE)) == (PciController(Bdf("0000:00:14.0"), None),)
    bare = f"P: {HOST}/usb1\nE: SUBSYSTEM=usb\n" + CONTROLLER
    assert controllers(write(tmp_path, bare)) == (PciController(Bdf("0000:00:14.0"), "xhci_hcd"),)


def test_root_hubs_and_others_are_left_out(tmp_path: Path) -> None:
    assert read(write(tmp_path, f"P: {HOST}/usb1\nA: idVendor=1d6b\\n\n\n# a remark\nP: {HOST}/x\n")) == []


@pytest.mark.parametrize(
    ("text", "line", "fact"),
    [
        pytest.param("", 1, "contains no device", id="empty"),
        pytest.param("rules:\n  - x\n", 1, "not a line of a umockdev recording", id="a policy"),
        pytest.param("P: /sys/devices/x\n", 1, "not a device path", id="wrong path"),
        pytest.param("E: A=b\n", 1, "before any P:", id="no device begun"),
        pytest.param("P: /devices/x\n\nE: A=b\n", 3, "before any P:", id="after an empty line"),
        pytest.param("P: /devices/x\nA: name\n", 2, "without NAME=VALUE", id="no value"),
        pytest.param("P: /devices/x\nH: descriptors=12G0\n", 2, "not hexadecimal", id="no hex"),
        pytest.param("P: /devices/x\nH: descriptors=123\n", 2, "not hexadecimal", id="odd hex"),
        pytest.param("P: /devices/x\nZ: 1\n", 2, "Z: is unknown", id="unknown letter"),
        pytest.param("\x7fELF\0\0\n", 1, "not a line", id="binary"),
    ],
)
def test_malformed(tmp_path: Path, text: str, line: int, fact: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=fact) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert "; " in str(caught.value)


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(MAX_RECORDING_BYTES + 1)
    with pytest.raises(ValueError, match="larger than 16 MiB"):
        read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


@settings(deadline=None)
@given(st.text(max_size=300) | st.lists(st.sampled_from(MOUSE.split("\n"))).map("\n".join), st.text(max_size=20))
def test_any_text(text: str, noise: str) -> None:
    for variant in (text, text[: len(text) // 2] + noise + text[len(text) // 2 :]):
        try:
            blocks = parse(variant, "f")
        except ValueError as problem:
            assert str(problem).startswith("f:")
        else:
            assert blocks


@settings(deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=40))
def test_any_recording_can_be_described(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.umockdev"
    path.write_text("\n".join([f"P: {HOST}/usb1/1-4", *lines]))
    RecordedBus(path)


def test_bus(tmp_path: Path) -> None:
    async def story() -> None:
        bus = RecordedBus(write(tmp_path, MOUSE + INTERFACE + CONTROLLER))
        events: list[object] = []
        await bus.start(events.append)
        await bus.rescan()
        (device,) = bus.devices().values()
        assert device.tag == "046d:c016"
        assert not await bus.authorize(device, False)
        await bus.probe(device)
        await bus.stop()
        assert events == []
        assert bus.controllers() == (PciController(Bdf("0000:00:14.0"), "xhci_hcd"),)

    asyncio.run(story())
