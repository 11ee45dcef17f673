"""What the reconciler and the rooms around it need of the outside, as Protocols: the seam between the floors.

The real faces live in adapters/, the simulated ones in simulator/, and both are driven by the same code above them. They sit as
low as the outside tools themselves (a command runner, a xenstore, a USB bus), so that argument lists, parsers and the
order of acts are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from xenplug.core.model import Bdf, BusId, Device, PciController


@dataclass(frozen=True, slots=True)
class Result:
    """How an outside command ended. It never raises: the caller decides.

    `code` is the exit status, None when the command did not exit by itself (`signal` or `timed_out` tell), or could
    not be started (`error` tells).
    """

    argv: tuple[str, ...]
    code: int | None
    stdout: str = ""
    stderr: str = ""
    signal: int | None = None
    timed_out: bool = False
    error: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """The command exited 0. That is all it says (design law 3)."""
        return self.code == 0


class Commands(Protocol):
    """The one door to other programs."""

    async def run(self, argv: Sequence[str], timeout: float) -> Result:
        """Run argv without a shell, stdin closed, LC_ALL=C; kill its process group after `timeout` seconds."""


class StoreLost(Exception):
    """The connection to xenstore is gone: reconnect, then read everything anew."""


class Store(Protocol):
    """xenstore. Every call raises StoreLost when the connection breaks; a missing node is None or [], not an error."""

    lost: Callable[[], None]
    """Called when a connection that stood breaks."""

    async def connect(self) -> None:
        """Connect, or connect again after StoreLost; watches are not carried over. Raises OSError if it cannot."""

    async def read(self, path: str) -> str | None:
        """The node's value; None if there is no such node."""

    async def directory(self, path: str) -> list[str]:
        """Names of the node's children."""

    async def write(self, path: str, value: str) -> None:
        """Set the node's value, making it and its parents if needed."""

    async def remove(self, path: str) -> None:
        """Remove the node and all below it."""

    async def replace(self, path: str, expected: str, value: str) -> bool:
        """In one transaction: if the node holds `expected`, set `value`. False if it does not."""

    def replace_at_once(self, path: str, expected: str, value: str) -> bool:
        """As `replace`, done when it returns, before anything else has its turn. False also where that could not be
        had (no connection, xenstored is slow, another writer): then `replace` tells. Never raises StoreLost.
        """

    async def introduced(self, domid: int) -> bool:
        """Whether xenstored knows a live domain of this id (IS_DOMAIN_INTRODUCED)."""

    async def watch(self, path: str, fired: Callable[[str], None]) -> None:
        """Call fired(changed path) at once and at every change of the node or below it, until unwatch."""

    async def unwatch(self, path: str) -> None:
        """End the watch on this path."""


@dataclass(frozen=True, slots=True)
class UsbEvent:
    """A hint that something on the USB side changed. Nothing is decided from it but where to look."""

    action: str
    """add, bind, change, unbind, remove (kernel's uevents), or `lost` after a netlink overflow."""
    port: BusId | None
    """The device concerned; None where all must be looked at."""
    number: int | None = None
    """The device number the event names, where it does."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What new devices begin without: `devices` any authorisation, `interfaces` that of their interfaces."""

    devices: bool = False
    interfaces: bool = False


class UsbBus(Protocol):
    """The USB side of the host: what is plugged, and the writes to sysfs."""

    async def start(self, fired: Callable[[UsbEvent], None]) -> None:
        """Listen for events (first), then enumerate. `fired` is called after the facts below are up to date, but
        for `remove`, for which it is called at once.
        """

    async def stop(self) -> None:
        """Listen no more."""

    def devices(self) -> Mapping[BusId, Device]:
        """The present devices (root hubs left out), kept up to date from events; unchanged devices are the same
        objects as before.
        """

    def controllers(self) -> tuple[PciController, ...]:
        """The PCI USB host controllers."""

    def usbback(self) -> bool:
        """dom0's kernel has the driver that serves guest controllers of type pv."""

    async def rescan(self) -> None:
        """Read everything anew."""

    def stuck(self, port: BusId) -> bool:
        """The kernel does not come back from an operation on the device at this port: none more is begun."""

    async def authorize(self, device: Device, allowed: bool) -> bool:
        """Write sysfs `authorized`; False if the device went away, the write failed or does not come back."""

    async def rebind(self, bdf: Bdf, driver: str) -> None:
        """Have dom0's driver take a PCI device from pciback, or from nobody, by sysfs alone: what xl did not manage.
        Failure shows in `controllers`.
        """

    async def interfaces(self, device: Device, allowed: bool) -> bool:
        """Write sysfs `authorized` of each of its interfaces, which does not probe them; False as above. `allowed`
        does nothing where some of them are authorised.
        """

    def guard(self, guard: Guard) -> None:
        """Set what new devices begin without, until told otherwise; failures are logged."""

    async def probe(self, device: Device) -> None:
        """Let dom0's drivers bind to the device's driverless interfaces (sysfs drivers_probe)."""


class Domains(Protocol):
    """What xenstore does not tell about a guest."""

    ended: Callable[[], None]
    """Called when a process that `lives` was asked about ends. No uevent tells that what it held is nobody's: the
    kernel sends none for usbfs (drivers/usb/core/devio.c: claimintf)."""

    def ready(self, domid: int, uuid: str) -> bool:
        """libxl has finished creating the domain: its libxl-json userdata exists (xen-facts 2.8)."""

    def lives(self, pid: int) -> bool:
        """There is such a process; from now on its end is told."""

    def held(self, pid: int) -> Collection[tuple[int, int]]:
        """Bus and number of the devices whose nodes /dev/bus/usb/BBB/DDD the process holds open, read now."""


class Clock(Protocol):
    """Time. Seconds."""

    def now(self) -> float:
        """Monotonic; the same scale over restarts of the agent within one boot of the host."""

    def wall(self) -> float:
        """Seconds since the epoch, for people."""
