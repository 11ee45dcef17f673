"""How long operations take on the simulated host, in (virtual) seconds.

The values follow a real Xen host under emulation; if one is a trap, the trap is named.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SimulatedTimes:
    """Every duration of the simulated host."""

    call: float = 0.3
    """An ordinary xl call; its effect comes at its end."""
    claim: float = 0.5
    """From the busid in xenstore until qemu has opened the device's node."""
    configure: float = 0.1
    """From taken to used, in a guest that is up and has a driver."""
    drivers: float = 1.0
    """From used until the drivers of the guest have asked the device everything."""
    connect: float = 0.2
    """From a controller's appearance to its frontend in state 4."""
    interfaces: float = 0.03
    """From a device's `add` to its configuration."""
    bind: float = 0.05
    """From a device's `add` to the last of its `bind` events."""
    rules: float = 0.1
    """From a device's `add` until a udev rule has taken its configuration away."""
    reset: float = 0.06
    """From the time qemu closes a device, which is then reset, until it has no device number (xen-facts T48)."""
    unnumbered: float = 0.1
    """How long it has no device number."""
    scan: float = 2.0
    """The interval at which qemu searches for a device that left a port it still serves (xen-facts T20)."""
    phantom_crash: float = 2.5
    """From a busid that names no device, on a connected qusb controller, until qemu crashes because of it (lab 16)."""
    bystander_grace: float = 0.51
    """If the port is cleared up to half a second after the unplug, the other devices are not lost (lab 13)."""
    bystander_loss: float = 0.9
    """From the unplug until the other devices are lost."""
    create: float = 1.0
    """From a domain's first node in xenstore to its libxl-json."""
    shutdown: float = 1.0
    """From a guest's own shutdown to its domain's end."""
    undress: float = 0.5
    """From the emptied ports of a domain that ends until it is gone."""
    reboot_sleep: float = 2.0
    """xl sleeps this long between the domain's end and the next one's creation (xl_vmcontrol.c:create_domain)."""
    dm_exit: float = 0.3
    """qemu ends after the domain, and only then returns the devices (xen-facts 2.7)."""
    backend_wait: float = 10.35
    """How long libxl waits for a backend's state, and the same again when it uses force."""
    paused_wait: float = 2.0
    """libxl's wait for a qemu backend of a paused or dying domain (LIBXL_QEMU_BODGE_TIMEOUT)."""
    pci_detach: float = 7.0
    """xl pci-detach, with the guest's consent."""
