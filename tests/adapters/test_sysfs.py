"""Devices and controllers as a fake sysfs has them."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.adapters.usbtree import HOST, MOUSE, STICK, Tree

from xenplug.adapters.sysfs import Sysfs, triple_of
from xenplug.core.model import BusId, Interface
from xenplug.core.usb.device import RawInterface, describe


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def sysfs(tree: Tree) -> Sysfs:
    return Sysfs(tree.sys, tree.root / "run/udev")


def test_read(tree: Tree, sysfs: Sysfs) -> None:
    tree.plug("1-4.2", 6, [MOUSE, STICK], serial="A1", product="Thing")
    raw = sysfs.read("1-4.2")
    assert raw is not None
    assert raw.devpath == f"{HOST}/usb1/1-4/1-4.2"
    assert raw.interfaces == {"1-4.2:1.0": RawInterface("usbhid", MOUSE), "1-4.2:1.1": RawInterface("usbhid", STICK)}
    assert raw.parents == (("0000:00:14.0", "pci"),)
    device = describe(raw)
    assert device is not None
    assert (device.key, device.path, device.serial) == (("1-4.2", 6), "pci-0000:00:14.0-usb-0:4.2", "A1")
    assert device.configured


def test_interfaces_come_in_order_and_without_those_of_devices_behind(tree: Tree, sysfs: Sysfs) -> None:
    tree.plug("1-4", 2, [MOUSE] * 12)
    tree.plug("1-4.1", 3)
    raw = sysfs.read("1-4")
    assert raw is not None
    assert list(raw.interfaces) == [f"1-4:1.{number}" for number in range(12)]


def test_ports_leave_root_hubs_and_interfaces_out(tree: Tree, sysfs: Sysfs) -> None:
    tree.plug("1-4", 2)
    tree.plug("2-1.3", 2)
    tree.link("sys/bus/usb/devices/1-4:1.0", f"/{tree.folder('1-4')}/1-4:1.0")
    assert sysfs.ports() == ["1-4", "2-1.3"]


def test_peer_of_a_superspeed_device(tree: Tree, sysfs: Sysfs) -> None:
    tree.plug("2-1.3", 4, speed="5000")
    tree.link(f"sys{HOST}/usb2/2-0:1.0/usb2-port1/peer", f"/sys{HOST}/usb1/1-0:1.0/usb1-port5")
    raw = sysfs.read("2-1.3")
    assert raw is not None
    assert raw.peer == f"{HOST}/usb1/1-0:1.0/usb1-port5"
    device = describe(raw)
    assert device is not None
    assert device.path == "pci-0000:00:14.0-usb-0:5.3"


def test_a_device_that_is_being_reset_is_waited_for(tree: Tree, sysfs: Sysfs) -> None:
    """T48: until then its number is 0, as if the device were gone."""
    number = tree.sys / "bus/usb/devices" / "1-4" / "devnum"
    tree.plug("1-4", 6)
    number.write_text("0\n")
    # In one step, as sysfs changes: an emptied file that is written next would be read as no number.
    over = threading.Timer(0.1, tree.write("after", "6\n").replace, [number])
    over.start()
    raw = sysfs.read("1-4")
    over.join()
    assert raw is not None
    assert raw.attrs["devnum"] == b"6\n"


def test_udev_properties(tree: Tree, sysfs: Sysfs) -> None:
    folder = tree.plug("1-4", 2)
    tree.write(f"{folder}/uevent", "MAJOR=189\nMINOR=1\nDRIVER=usb\n")
    tree.write("run/udev/data/c189:1", "I:12\nE:ID_INPUT_JOYSTICK=1\nE:ID_MODEL=a=b\nE:odd\nG:seat\n")
    raw = sysfs.read("1-4")
    assert raw is not None
    assert raw.properties["ID_INPUT_JOYSTICK"] == "1"
    assert raw.properties["ID_MODEL"] == "a=b"


def test_a_line_of_udevs_database_ends_with_a_line_feed_alone(tree: Tree, sysfs: Sysfs) -> None:
    """A device's own string that a rule stored is one value, and cannot begin a new line."""
    folder = tree.plug("1-4", 2)
    tree.write(f"{folder}/uevent", "MAJOR=189\nMINOR=1\nDRIVER=usb\n")
    tree.write("run/udev/data/c189:1", "E:ID_MODEL=a\rE:ID_SMARTCARD_READER=1\x0bE:ID_MTP_DEVICE=1\nE:ID_GPHOTO2=1\n")
    raw = sysfs.read("1-4")
    assert raw is not None
    assert {name for name in raw.properties if name.startswith("ID_")} == {"ID_MODEL", "ID_GPHOTO2"}


def test_descriptors_longer_than_a_page(tree: Tree, sysfs: Sysfs) -> None:
    folder = tree.plug("1-4", 2)
    tree.write(f"{folder}/descriptors", b"\x02\x0b" * 5000)
    raw = sysfs.read("1-4")
    assert raw is not None
    assert len(raw.attrs["descriptors"]) == 10000


def test_identity_where_there_are_no_descriptors(tree: Tree, sysfs: Sysfs) -> None:
    (tree.root / tree.plug("1-4", 2) / "descriptors").unlink()
    raw = sysfs.read("1-4")
    assert raw is not None
    device = describe(raw)
    assert device is not None
    assert (str(device.tag), device.kinds) == ("046d:c016", frozenset({"mouse"}))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda tree: tree.pull("1-4"), id="gone"),
        pytest.param(lambda tree: (tree.root / tree.folder("1-4") / "devnum").unlink(), id="going"),
        pytest.param(lambda tree: tree.link("sys/bus/usb/devices/1-4", "/sys/elsewhere/1-4"), id="leads elsewhere"),
    ],
)
def test_nothing_to_read(tree: Tree, sysfs: Sysfs, spoil: Callable[[Tree], None]) -> None:
    tree.plug("1-4", 2)
    spoil(tree)
    assert sysfs.read("1-4") is None


def test_replaced_while_being_read(tree: Tree, sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.plug("1-4", 2)

    def meanwhile(*_: object) -> dict[str, str]:
        tree.write(f"{tree.folder('1-4')}/devnum", "3\n")
        return {}

    monkeypatch.setattr(sysfs, "_properties", meanwhile)
    assert sysfs.read("1-4") is None


def test_controllers(tree: Tree, sysfs: Sysfs) -> None:
    for bdf, class_, driver in [("0000:03:00.0", "0x0c0330", "pciback"), ("0000:05:00.0", "0x030000", "i915")]:
        tree.write(f"sys/devices/pci0000:00/{bdf}/class", class_ + "\n")
        tree.link(f"sys/devices/pci0000:00/{bdf}/driver", f"/sys/bus/pci/drivers/{driver}")
        tree.link(f"sys/bus/pci/devices/{bdf}", f"/sys/devices/pci0000:00/{bdf}")
    found = [(controller.bdf, controller.driver) for controller in sysfs.controllers()]
    assert found == [("0000:00:14.0", "xhci_hcd"), ("0000:03:00.0", "pciback")]


def test_a_controller_of_unusual_class_is_found_by_its_bus(tree: Tree, sysfs: Sysfs) -> None:
    tree.write(f"sys{HOST}/class", "0x0c0380\n")
    assert [(c.bdf, c.driver) for c in sysfs.controllers()] == [("0000:00:14.0", "xhci_hcd")]


def test_authorize(tree: Tree, sysfs: Sysfs) -> None:
    folder = tree.plug("1-4", 2)
    assert sysfs.authorize(BusId("1-4"), 2, False)
    assert (tree.root / folder / "authorized").read_bytes() == b"0\n"  # one byte, as sysfs takes it
    assert not sysfs.authorize(BusId("1-4"), 9, True)
    assert not sysfs.authorize(BusId("1-9"), 2, True)
    (tree.root / folder / "authorized").unlink()
    assert not sysfs.authorize(BusId("1-4"), 2, True)


def test_probe_names_the_driverless_interfaces(tree: Tree, sysfs: Sysfs) -> None:
    tree.plug("1-4", 2, [MOUSE, STICK])
    tree.bind("1-4", 1, None)
    sysfs.probe(BusId("1-4"))
    assert (tree.sys / "bus/usb/drivers_probe").read_text() == "1-4:1.1"


@pytest.mark.parametrize(
    ("property_", "expected"),
    [("3/1/2", Interface(3, 1, 2)), ("255/93/1", Interface(255, 93, 1)), ("3/1", None), ("a/b/c", None), ("", None)],
)
def test_triple_of(property_: str, expected: Interface | None) -> None:
    assert triple_of({"INTERFACE": property_}) == expected


def test_interfaces_are_shut_and_opened_for_the_device_meant(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    folder = tree.plug("1-4", 6, [STICK, MOUSE], driver=None)
    files = [tree.write(f"{folder}/1-4:1.{index}/authorized", "0\n") for index in (0, 1)]
    sysfs = Sysfs(tree.sys, tmp_path / "run/udev")
    raw = sysfs.read("1-4")
    assert raw is not None
    assert [each.authorized for each in raw.interfaces.values()] == [False, False]
    assert describe(raw).shut  # type: ignore[union-attr]
    assert not sysfs.interfaces(BusId("1-4"), 7, True)
    assert sysfs.interfaces(BusId("1-4"), 6, True)
    assert [file.read_bytes() for file in files] == [b"1\n", b"1\n"]
    files[0].write_text("0\n")
    assert not describe(sysfs.read("1-4")).shut  # type: ignore[arg-type, union-attr]  # one of two: somebody closed it on purpose
    files[1].unlink()
    assert not sysfs.interfaces(BusId("1-4"), 6, False)
    assert files[0].read_bytes() == b"0\n"
    assert not sysfs.interfaces(BusId("1-9"), 6, False)
