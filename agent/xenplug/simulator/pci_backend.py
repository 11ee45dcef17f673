"""The PCI devices of a guest in xenstore, as libxl leaves them (libxl_pci.c: libxl__create_pci_backend)."""

from __future__ import annotations

from collections.abc import Sequence

from xenplug.core.model import Bdf
from xenplug.simulator.store import StoreTree


def write_pci(tree: StoreTree, domid: int, devices: Sequence[Bdf]) -> None:
    """Make the backend's folder contain exactly these devices."""
    base = f"/local/domain/0/backend/pci/{domid}/0"
    tree.remove(base)
    if not devices:
        return
    values = {"frontend-id": str(domid), "online": "1", "state": "4", "num_devs": str(len(devices))}
    for number, bdf in enumerate(devices):
        values |= {f"dev-{number}": bdf, f"state-{number}": "3"}
    for name, value in values.items():
        tree.write(f"{base}/{name}", value)
