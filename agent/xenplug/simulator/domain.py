"""A guest as in its xl config, and what the simulated host knows of its domain while it has one.

guests.py moves these records through a domain's life.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xenplug.core.model import Bdf, ControllerType, GuestType
from xenplug.core.policy.rules import ControllerSpec
from xenplug.simulator.emulated import QemuMonitor
from xenplug.simulator.qemu import DeviceModel
from xenplug.simulator.qusb import QusbBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """A guest as in its xl config."""

    name: str
    type: GuestType
    controllers: tuple[ControllerSpec, ...] = ()
    frontend: bool | None = None
    """Whether its system has the PVUSB driver; None: yes for pv and pvh, no for hvm."""
    device_model: bool | None = None
    """Whether a qemu runs for it; None: if libxl would start one (xen-facts T14, T15)."""
    passthrough: bool = False
    kept: bool = False
    """on_poweroff="preserve": the domain stays after it has shut down, with its device model, until `xl destroy`."""
    boots_in: float = 5.0
    """Seconds from creation until its system is up."""

    @property
    def has_frontend(self) -> bool:
        return self.type is not GuestType.HVM if self.frontend is None else self.frontend

    @property
    def has_device_model(self) -> bool:
        """Whether it has a device model: libxl starts one for hvm, and for others only if the config says type=qusb."""
        if self.device_model is not None:
            return self.device_model
        return self.type is GuestType.HVM or any(c.type is ControllerType.QUSB for c in self.controllers)


@dataclass(slots=True, eq=False)
class SimGuest:
    """A guest and, while it has one, its domain (domid not None)."""

    config: GuestConfig
    uuid: str
    driver: bool
    """Whether its system has a driver for qusb controllers."""
    domid: int | None = None
    ready: bool = False
    """Whether libxl-json is written."""
    up: bool = False
    """Whether its system has booted."""
    paused: bool = False
    ending: str = ""
    """Shutdown reason as `xl list` shows it: `-` poweroff, `r` reboot, `s` suspend."""
    saved: dict[int, ControllerSpec] = field(default_factory=dict)
    """The controllers in libxl-json, by devid: those a reboot brings back (xen-facts 2.9)."""
    pci: list[Bdf] = field(default_factory=list)
    model: DeviceModel | None = None
    qusb: QusbBackend | None = None
    monitor: QemuMonitor | None = None
    connected: set[int] = field(default_factory=set)
    """qusb controllers whose frontend is in state 4."""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def serving(self) -> DeviceModel | None:
        """The device model, if it runs."""
        return self.model if self.model and self.model.alive else None

    def configures(self, controller: int | None) -> bool:
        """qemu.Owner."""
        awake = self.up and not self.paused and not self.ending
        return awake and (controller is None or controller in self.connected)
