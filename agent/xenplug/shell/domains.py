"""What xenstore does not tell about a guest: whether libxl has finished making it, and whether its device model holds a
USB device. Read anew at every question (design law: the machine says, not our memory).
"""

from __future__ import annotations

import os
from pathlib import Path

from xenplug.core.model import Device


class XenDomains:
    """faces.Domains on a real dom0. The roots are elsewhere for tests."""

    def __init__(
        self, xen_lib: Path = Path("/var/lib/xen"), proc: Path = Path("/proc"), dev: Path = Path("/dev")
    ) -> None:
        self._xen_lib, self._proc, self._dev = xen_lib, proc, dev

    def ready(self, domid: int, uuid: str) -> bool:
        """libxl writes this file last when it makes a domain, and removes it with the domain (libxl_internal.c)."""
        return "/" not in uuid and (self._xen_lib / f"userdata-d.{domid}.{uuid}.libxl-json").exists()

    def lives(self, pid: int) -> bool:
        """A zombie, which holds nothing any more, counts as alive until its parent has looked."""
        return (self._proc / str(pid)).exists()

    def holds(self, pid: int, device: Device) -> bool:
        """False too where the process is gone or may not be looked at."""
        node = f"{self._dev}/bus/usb/{device.bus:03d}/{device.number:03d}"
        folder = f"{self._proc}/{pid}/fd"
        try:
            names = os.listdir(folder)  # noqa: PTH208 - asked often, Path costs ten times as much
        except OSError:
            return False
        return any(_leads_to(f"{folder}/{name}", node) for name in names)


def _leads_to(link: str, node: str) -> bool:
    try:
        return os.readlink(link) == node  # noqa: PTH115
    except OSError:
        return False
