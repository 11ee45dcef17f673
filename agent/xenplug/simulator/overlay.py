"""A real host's USB bus together with a simulated toolstack: `run --toolstack simulated`.

The devices come from the real bus, event by event; every write and every claim stays in the simulated kernel. Nothing
on the real host is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from xenplug.core.model import BusId, Device
from xenplug.core.protocols import UsbBus, UsbEvent
from xenplug.simulator.kernel import Kernel
from xenplug.simulator.sockets import HostController
from xenplug.simulator.usb import SimBus, UsbCallback


class OverlayBus(SimBus):
    """UsbBus (core/protocols): the simulated kernel's view of the devices on a real bus."""

    def __init__(self, kernel: Kernel, real: UsbBus) -> None:
        super().__init__(kernel)
        self._real = real

    async def start(self, fired: UsbCallback) -> None:
        await self._real.start(self._changed)
        self._follow()
        await super().start(fired)

    async def stop(self) -> None:
        await self._real.stop()
        await super().stop()

    async def rescan(self) -> None:
        await self._real.rescan()
        self._follow()
        await super().rescan()

    def devices(self) -> Mapping[BusId, Device]:
        """What dom0 uses is read from the real bus each time, because no event reports it."""
        real = self._real.devices()
        uses = {port: device.in_use for port, device in real.items()}
        seen = super().devices()
        return {p: d if d.in_use == uses.get(p, d.in_use) else replace(d, in_use=uses[p]) for p, d in seen.items()}

    def _changed(self, event: UsbEvent) -> None:
        self._follow()
        if event.action == "lost":
            self._deliver(event)

    def _follow(self) -> None:
        known = {controller.bdf for controller in self.kernel.sockets.controllers}
        for found in self._real.controllers():
            if found.bdf not in known:
                made = HostController(bdf=found.bdf, driver=found.driver, buses={})
                self.kernel.sockets.controllers.append(made)
        self.kernel.follow(self._real.devices())
