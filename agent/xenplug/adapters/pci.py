"""PCI devices in sysfs: the driver of a USB host controller, the devices that share its slot or a bridge, and the
return to dom0's driver if xl cannot do it.

Used by adapters/sysfs. The topology does not change while the machine runs, so it is read once for each controller;
drivers are read each time.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from xenplug.adapters import kernel_files
from xenplug.core.model import PCIBACK, Bdf, PciController, PciFunction
from xenplug.core.usb.place import BDF

CONFIG = 4096
"""Bytes of configuration space of a PCI Express device; extended capabilities begin at 0x100."""
ACS = 0x000D
ACS_NEEDED = 0x1D
"""Source Validation, P2P Request Redirect, P2P Completion Redirect and Upstream Forwarding are on (PCIe 6.12.1.1)."""
MOST_CAPABILITIES = 96


@dataclass(frozen=True, slots=True)
class _Place:
    """The surroundings of a PCI device."""

    program: str
    slot: tuple[str, ...]
    bridge: tuple[str, ...]
    resettable: bool


class PciTree:
    """The PCI devices of one sysfs tree."""

    def __init__(self, root: str = "/sys") -> None:
        self._devices = f"{root}/bus/pci/devices"
        self._drivers = f"{root}/bus/pci/drivers"
        self._probe = f"{root}/bus/pci/drivers_probe"
        self._places: dict[str, _Place] = {}

    def controller(self, bdf: Bdf) -> PciController:
        """The controller and its surroundings, with their current drivers."""
        place = self._places.get(bdf)
        if place is None:
            place = self._places[bdf] = self._look_around(bdf)
        slot, bridge = (tuple(map(self._function, names)) for names in (place.slot, place.bridge))
        return PciController(bdf, self._driver(bdf), place.program, slot, bridge, place.resettable)

    def rebind(self, bdf: Bdf, driver: str) -> None:
        """Bind the driver to a controller that pciback or no driver has. A failure shows in the driver read next."""
        if self._driver(bdf) == PCIBACK:
            kernel_files.write(f"{self._drivers}/{PCIBACK}/unbind", bdf.encode())
            kernel_files.write(f"{self._drivers}/{PCIBACK}/remove_slot", bdf.encode())
        if self._driver(bdf) is None and driver and "/" not in driver:
            kernel_files.write(f"{self._drivers}/{driver}/bind", bdf.encode())
        if self._driver(bdf) is None:
            kernel_files.write(self._probe, bdf.encode())

    def _function(self, bdf: str) -> PciFunction:
        return PciFunction(Bdf(bdf), self._driver(bdf), self._program(bdf))

    def _driver(self, bdf: str) -> str | None:
        try:
            return posixpath.basename(os.readlink(f"{self._devices}/{bdf}/driver"))  # noqa: PTH115 - read each round
        except OSError:
            return None

    def _program(self, bdf: str) -> str:
        return kernel_files.read_text(f"{self._devices}/{bdf}/class").strip().removeprefix("0x")

    def _look_around(self, bdf: str) -> _Place:
        slot = bdf.rpartition(".")[0]
        names = kernel_files.names(self._devices)
        same_slot = tuple(sorted(n for n in names if n != bdf and n.rpartition(".")[0] == slot))
        behind = tuple(n for n in self._behind_one_bridge(bdf) if n != bdf and n not in same_slot)
        return _Place(self._program(bdf), same_slot, behind, os.path.exists(f"{self._devices}/{bdf}/reset"))  # noqa: PTH110

    def _behind_one_bridge(self, bdf: str) -> tuple[str, ...]:
        """Everything below the topmost bridge above the device that does not isolate the devices below it."""
        try:
            # Not Path.resolve, which raises RuntimeError on a loop of symlinks.
            folder = Path(os.path.realpath(f"{self._devices}/{bdf}", strict=True))
        except OSError:
            return ()
        above = [parent for parent in reversed(folder.parents) if BDF.match(parent.name)]
        mixing = next(
            (parent for parent in above if not keeps_apart(kernel_files.read(f"{parent}/config", CONFIG) or b"")), None
        )
        return tuple(sorted(_below(mixing))) if mixing else ()


def _below(folder: Path) -> list[str]:
    """The PCI devices below a bridge, without further bridges."""
    found = []
    for name in kernel_files.names(str(folder)):
        if BDF.match(name):
            deeper = _below(folder / name)
            found += deeper or [name]
    return found


def keeps_apart(config: bytes) -> bool:
    """A PCI Express port whose Access Control Services send everything up to the IOMMU."""
    at = 0x100
    for _ in range(MOST_CAPABILITIES):
        if not 0x100 <= at <= len(config) - 8:
            return False
        header = int.from_bytes(config[at : at + 4], "little")
        if header & 0xFFFF == ACS:
            control = int.from_bytes(config[at + 6 : at + 8], "little")
            return control & ACS_NEEDED == ACS_NEEDED
        at = header >> 20
    return False
