"""PCI devices in a sysfs of plain files: the surroundings of a host controller, and the return to dom0's driver."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplug.adapters.pci import ACS_NEEDED, PciTree, keeps_apart
from xenplug.core.model import Bdf, PciFunction

XHCI = Bdf("0000:03:00.0")


def device(root: Path, path: str, program: str, driver: str | None = None, config: bytes = b"") -> Path:
    """A PCI device at its place in the tree, linked where sysfs lists it."""
    folder = root / "devices/pci0000:00" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "class").write_text(f"0x{program}\n")
    (folder / "config").write_bytes(config)
    listed = root / "bus/pci/devices" / folder.name
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.symlink_to(folder)
    if driver:
        home = root / "bus/pci/drivers" / driver
        home.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(home)
    return folder


def config(*capabilities: tuple[int, int]) -> bytes:
    """A configuration space whose extended capabilities are these: id, and the word at offset 6."""
    text = bytearray(4096)
    for index, (name, word) in enumerate(capabilities):
        at = 0x100 + 16 * index
        following = at + 16 if index < len(capabilities) - 1 else 0
        text[at : at + 4] = (name | 1 << 16 | following << 20).to_bytes(4, "little")
        text[at + 6 : at + 8] = word.to_bytes(2, "little")
    return bytes(text)


APART = config((0x0001, 0), (0x000D, ACS_NEEDED))


def test_a_controller_alone_in_its_slot(tmp_path: Path) -> None:
    device(tmp_path, "0000:00:1c.0", "060400", "pcieport", APART)
    folder = device(tmp_path, "0000:00:1c.0/0000:03:00.0", "0c0330", "xhci_hcd")
    (folder / "reset").touch()
    found = PciTree(str(tmp_path)).controller(XHCI)
    assert (found.driver, found.program, found.slot, found.bridge, found.resettable) == (
        *("xhci_hcd", "0c0330"),
        *((), (), True),
    )


def test_functions_of_its_slot(tmp_path: Path) -> None:
    device(tmp_path, "0000:03:00.0", "0c0330", "xhci_hcd")
    device(tmp_path, "0000:03:00.2", "050000")
    device(tmp_path, "0000:04:00.2", "020000", "e1000e")
    found = PciTree(str(tmp_path)).controller(XHCI)
    assert found.slot == (PciFunction(Bdf("0000:03:00.2"), None, "050000"),)
    assert (found.bridge, found.resettable) == ((), False)


@pytest.mark.parametrize(("upper", "lower"), [(b"", APART), (APART, b""), (config((0x000D, 1)), APART)])
def test_what_is_behind_the_same_bridge(tmp_path: Path, upper: bytes, lower: bytes) -> None:
    """One bridge on the way that does not keep devices apart is enough, seen from the top."""
    device(tmp_path, "0000:00:1c.0", "060400", "pcieport", upper)
    device(tmp_path, "0000:00:1c.0/0000:02:00.0", "060400", "pcieport", lower)
    device(tmp_path, "0000:00:1c.0/0000:02:00.0/0000:03:00.0", "0c0330", "pciback")
    device(tmp_path, "0000:00:1c.0/0000:02:00.0/0000:04:00.0", "020000", "e1000e")
    device(tmp_path, "0000:00:1d.0", "0c0320", "ehci-pci")
    found = PciTree(str(tmp_path)).controller(XHCI)
    assert found.bridge == (PciFunction(Bdf("0000:04:00.0"), "e1000e", "020000"),)
    assert found.driver == "pciback"


def test_a_controller_that_is_gone(tmp_path: Path) -> None:
    found = PciTree(str(tmp_path)).controller(XHCI)
    assert (found.driver, found.slot, found.bridge) == (None, (), ())


def test_acs_must_be_switched_on_completely() -> None:
    assert keeps_apart(APART)
    assert not keeps_apart(config((0x000D, ACS_NEEDED & ~1)))
    assert not keeps_apart(config((0x0001, 0), (0x0003, 0)))
    assert not keeps_apart(APART[:256]), "as much as is read without rights"


@given(st.binary(max_size=64), st.integers(0, 4096))
def test_reading_any_configuration_space_ends(part: bytes, length: int) -> None:
    keeps_apart((bytes(0x100) + part * 64)[:length])


def test_returned_by_sysfs(tmp_path: Path) -> None:
    """What is written where; a folder of plain files binds nothing, so all ways are tried in turn."""
    folder = device(tmp_path, "0000:03:00.0", "0c0330", "pciback")
    drivers = tmp_path / "bus/pci/drivers"
    for name in ("pciback/unbind", "pciback/remove_slot", "xhci_hcd/bind"):
        (drivers / name).parent.mkdir(exist_ok=True)
        (drivers / name).touch()
    (tmp_path / "bus/pci/drivers_probe").touch()
    tree = PciTree(str(tmp_path))
    tree.rebind(XHCI, "xhci_hcd")
    assert (drivers / "pciback/unbind").read_text() == (drivers / "pciback/remove_slot").read_text() == XHCI
    assert (drivers / "xhci_hcd/bind").read_text() == "", "it is pciback's still"
    (folder / "driver").unlink()
    tree.rebind(XHCI, "xhci_hcd")
    assert (drivers / "xhci_hcd/bind").read_text() == (tmp_path / "bus/pci/drivers_probe").read_text() == XHCI
    tree.rebind(XHCI, "../../../etc")
