"""The backends that the engine needs, as Protocols: the interface between the engine and the host, real or simulated.

adapters/ has the real backends, simulator/ the simulated ones; the same code drives both. The Protocols are as
low-level as the tools themselves (a command runner, a xenstore, a USB bus), so argument lists, parsers and the order of
actions are the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from xenplug.core.model import Bdf, BusId, Device, PciController


@dataclass(frozen=True, slots=True)
class Result:
    """The result of an external command. Running one never raises: the caller evaluates the result.

    `code` is the exit status; None if the command did not exit by itself (see `signal` and `timed_out`) or did not
    start (see `error`).
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
        """The command exited 0. This does not prove that the action took place (law 3 in docs/dev/architecture.md)."""
        return self.code == 0


class Commands(Protocol):
    """Runs other programs."""

    async def run(self, argv: Sequence[str], timeout: float) -> Result:
        """Run argv without a shell, stdin closed, LC_ALL=C; kill its process group after `timeout` seconds."""


class StoreLost(Exception):
    """The connection to xenstore is lost: reconnect, then read everything again."""


class Store(Protocol):
    """xenstore. Every call raises StoreLost when the connection breaks; a missing node is None or [], not an error."""

    lost: Callable[[], None]
    """Called when an established connection breaks."""

    async def connect(self) -> None:
        """Connect, or reconnect after StoreLost; watches are not kept. Raises OSError if it fails."""

    async def read(self, path: str) -> str | None:
        """The node's value; None if there is no such node."""

    async def directory(self, path: str) -> list[str]:
        """Names of the node's children."""

    async def write(self, path: str, value: str) -> None:
        """Set the node's value; create the node and its parents if needed."""

    async def remove(self, path: str) -> None:
        """Remove the node and everything below it."""

    async def replace(self, path: str, expected: str, value: str) -> bool:
        """In one transaction: if the node's value is `expected`, set it to `value`. False if it is not."""

    def replace_at_once(self, path: str, expected: str, value: str) -> bool:
        """Like `replace`, but synchronous: no other task runs before it returns. Also False if it could not be done
        (no connection, xenstored is slow, another writer): then call `replace`. Never raises StoreLost.
        """

    async def introduced(self, domid: int) -> bool:
        """Whether xenstored knows a live domain with this id (IS_DOMAIN_INTRODUCED)."""

    async def watch(self, path: str, fired: Callable[[str], None]) -> None:
        """Call fired(changed path) now and at every change of the node or below it, until unwatch."""

    async def unwatch(self, path: str) -> None:
        """End the watch on this path."""


@dataclass(frozen=True, slots=True)
class UsbEvent:
    """A hint that something on the USB side changed. It only determines what is read again."""

    action: str
    """add, bind, change, unbind, remove (kernel's uevents), or `lost` after a netlink overflow."""
    port: BusId | None
    """The device concerned; None if all devices must be read again."""
    number: int | None = None
    """The device number in the event, if there is one."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The defaults for new devices: with `devices` they start unauthorised, with `interfaces` only their interfaces."""

    devices: bool = False
    interfaces: bool = False


class UsbBus(Protocol):
    """The USB side of the host: the devices that are plugged in, and the writes to sysfs."""

    async def start(self, fired: Callable[[UsbEvent], None]) -> None:
        """Listen for events, then enumerate. `fired` is called after the data below is up to date, except for `remove`,
        for which it is called immediately.
        """

    async def stop(self) -> None:
        """Stop listening."""

    def devices(self) -> Mapping[BusId, Device]:
        """The present devices without root hubs, kept up to date from events; unchanged devices are the same objects
        as before.
        """

    def controllers(self) -> tuple[PciController, ...]:
        """The PCI USB host controllers."""

    def usbback(self) -> bool:
        """dom0's kernel has the driver that serves guest controllers of type pv."""

    async def rescan(self) -> None:
        """Read everything again."""

    def stuck(self, port: BusId) -> bool:
        """An operation on the device at this port hangs in the kernel: no further operation is started."""

    async def authorize(self, device: Device, allowed: bool) -> bool:
        """Write sysfs `authorized`; False if the device went away, or if the write failed or hangs."""

    async def rebind(self, bdf: Bdf, driver: str) -> None:
        """Bind dom0's driver to a PCI device that is bound to pciback or to no driver. It uses only sysfs, for the case
        that xl failed; `controllers` shows the result.
        """

    async def interfaces(self, device: Device, allowed: bool) -> bool:
        """Write sysfs `authorized` of each interface, which does not probe them; False as above. With `allowed`, it has
        no effect if some of them are authorised.
        """

    def guard(self, guard: Guard) -> None:
        """Set the defaults for new devices, until the next call; failures are logged."""

    async def probe(self, device: Device) -> None:
        """Let dom0's drivers bind to the device's driverless interfaces (sysfs drivers_probe)."""


class Domains(Protocol):
    """Facts about guests that are not in xenstore."""

    ended: Callable[[], None]
    """Called when a process that `lives` was called for ends. The devices it held become free without a uevent: the
    kernel sends none for usbfs (drivers/usb/core/devio.c: claimintf)."""

    def ready(self, domid: int, uuid: str) -> bool:
        """libxl has finished creating the domain: its libxl-json userdata exists (xen-facts 2.8)."""

    def lives(self, pid: int) -> bool:
        """Whether the process exists; from now on its end is reported."""

    def held(self, pid: int) -> Collection[tuple[int, int]]:
        """Bus and number of the devices whose nodes /dev/bus/usb/BBB/DDD the process has open, read now."""


class Clock(Protocol):
    """Time. Seconds."""

    def now(self) -> float:
        """Monotonic time; it continues over restarts of the agent within one boot of the host."""

    def wall(self) -> float:
        """Seconds since the epoch, for people."""
