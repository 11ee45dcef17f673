"""How long things take in the simulated host, in (virtual) seconds.

The figures follow a real Xen host under emulation; where one is a trap, the trap is named.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SimulatedTimes:
    """Every duration of the simulated host."""

    call: float = 0.3
    """An ordinary xl call; its effect comes at its end."""
    claim: float = 0.5
    """From the busid in xenstore to qemu holding the device's node."""
    configure: float = 0.1
    """From taken to used, in a guest that is up and has a driver."""
    connect: float = 0.2
    """From a controller's appearance to its frontend in state 4."""
    interfaces: float = 0.03
    """From a device's `add` to its configuration."""
    bind: float = 0.05
    """From a device's `add` to the last of its `bind` events."""
    reset: float = 0.06
    """From qemu's letting go of a device, which is then reset, to its having no device number (xen-facts T48)."""
    unnumbered: float = 0.1
    """How long it has none."""
    scan: float = 2.0
    """qemu looks this often for a device that left a port it still has to serve (xen-facts T20)."""
    nobody: float = 2.5
    """From a busid that names no device, on a connected qusb controller, to qemu's death of it (lab 16)."""
    bystander_grace: float = 0.51
    """A port cleared up to half a second after the pull saves the neighbours (lab 13)."""
    bystander_loss: float = 0.9
    """When, after the pull, the neighbours are lost."""
    create: float = 1.0
    """From a domain's first node in xenstore to its libxl-json."""
    shutdown: float = 1.0
    """From a guest's own shutdown to its domain's end."""
    undress: float = 0.5
    """From the emptied ports of a domain that ends to its going."""
    reboot_sleep: float = 2.0
    """xl sleeps this long between the domain's end and the next one's creation (xl_vmcontrol.c:create_domain)."""
    dm_exit: float = 0.3
    """qemu goes after the domain did, and only then gives devices back (xen-facts 2.7)."""
    backend_wait: float = 10.35
    """libxl waits so long for a backend's state, and as long again when it forces."""
    paused_wait: float = 2.0
    """libxl's wait for a qemu backend of a paused or dying domain (LIBXL_QEMU_BODGE_TIMEOUT)."""
    pci_detach: float = 7.0
    """xl pci-detach, with the guest's consent."""
