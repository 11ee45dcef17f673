"""A real host's USB bus with a simulated toolstack laid over it: `run --toolstack simulated`.

What is plugged comes from the real bus, event by event; every write and every claim stays in the simulated kernel.
Nothing real is touched.
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
    """faces.UsbBus: the simulated kernel's view of the devices a real bus has."""

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
        """What dom0 itself needs is asked from the real bus each time, as there it makes no event."""
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
