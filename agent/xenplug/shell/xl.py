"""xl: builds its argument lists and reads what it answers. Every call ends in an Outcome, never in an exception.

Reconciler -> Xl -> a Commands (shell/proc.py; in the simulator the simulated xl). "ok" says only that xl exited 0: what
came of it is in xenstore (design law 3). What xl says is told by the words alone; the file and line in front of them
differ in every version (recorded answers: tests/data/xl/transcripts, Xen 4.17).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from xenplug.core.faces import Commands, Result
from xenplug.core.guests import MAX_PORTS
from xenplug.core.model import Bdf, ControllerType, GuestPort, GuestState
from xenplug.core.usb.place import BDF

MAX_DOMID = 0x7FEF
"""DOMID_FIRST_RESERVED - 1 (xen/include/public/xen.h)."""
TEXT_LIMIT = 300


class Cause(StrEnum):
    """Why a call of xl did not succeed."""

    NONE = ""
    REFUSED = "refused"
    """xl said no in words that need no reaction of their own: they are in the text."""
    OUT_OF_RANGE = "out_of_range"
    """Not even tried: xl would have cut the number down, or taken it for another (T7, T8, T9)."""
    NOT_ASSIGNABLE = "not_assignable"
    ALREADY_ATTACHED = "already_attached"
    STALE_PORT = "stale_port"
    """Some port of some guest names a device that is gone: all attaches of the host are refused (T1)."""
    PORT_TAKEN = "port_taken"
    PORT_EMPTY = "port_empty"
    """Nothing to detach there; also said of a port whose device is gone (T2)."""
    CONTROLLER_FULL = "controller_full"
    NO_CONTROLLER = "no_controller"
    """xenstore has no such controller, or no such domain."""
    PHANTOM_CONTROLLER = "phantom_controller"
    """xenstore has the controller, the guest's qemu has not (T5)."""
    PHANTOM_DEVICE = "phantom_device"
    """qemu has no device under the address it has now (T22)."""
    DUPLICATE_DEVICE = "duplicate_device"
    """qemu still has an older device of the same address (T21)."""
    NO_DEVICE_MODEL = "no_device_model"
    NO_BACKEND = "no_backend"
    STARTING = "starting"
    UNKNOWN_GUEST = "unknown_guest"
    SPEED_MISMATCH = "speed_mismatch"
    QMP_TIMEOUT = "qmp_timeout"
    UNSURE = "unsure"
    """xl gave up waiting for the other side; often it is done all the same (T30): read xenstore."""
    TIMED_OUT = "timed_out"
    """xl itself did not end in time: what it did is not known, read xenstore."""
    KILLED = "killed"
    XL_MISSING = "xl_missing"
    NO_XEN = "no_xen"
    NOT_UNDERSTOOD = "not_understood"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended. `text` is for people, one clean line; `output` what xl printed, where that was asked for."""

    ok: bool
    cause: Cause = Cause.NONE
    text: str = ""
    output: str = ""


_SAYINGS = (
    (r"cannot determine if device is assigned|fail to get assigned devices", Cause.STALE_PORT),
    (r"USB device already attached to a domain", Cause.ALREADY_ATTACHED),
    (r"USB device is not assignable|failed to (?:find|open) host usb device", Cause.NOT_ASSIGNABLE),
    (r"The controller port isn't available", Cause.PORT_TAKEN),
    (r"No available port under specified controller", Cause.CONTROLLER_FULL),
    (r"Unknown device at controller", Cause.PORT_EMPTY),
    (r"xenstore read failed: `/libxl/\d+/device/vusb/\d+'|Unknown device \d+\.", Cause.NO_CONTROLLER),
    (r"Bus 'xenusb-\d+\.0' not found|Device 'xenusb-\d+' not found", Cause.PHANTOM_CONTROLLER),
    (r"Device 'xenusb-\d+-\d+' not found", Cause.PHANTOM_DEVICE),
    (r"Duplicate (?:device )?ID", Cause.DUPLICATE_DEVICE),
    (r"device model required but not running|Failed to connect to QMP socket", Cause.NO_DEVICE_MODEL),
    (r"backend type not supported by device model", Cause.NO_BACKEND),
    (r"unable to add device with path /local/domain/0/backend/vusb/", Cause.NO_BACKEND),
    (r"speed mismatch", Cause.SPEED_MISMATCH),
    (r"QEMU timed out", Cause.QMP_TIMEOUT),
    (r"Unable to remove vusb with id", Cause.UNSURE),
    (r"is an invalid domain identifier|unable to find domain info|Domain '.*' does not exist", Cause.UNKNOWN_GUEST),
    (r"cannot init xl context|cannot connect to xenstore", Cause.NO_XEN),
)
"""Compiled by re when a call fails for the first time: most starts of a command never see that."""
_PREFIX = re.compile(r"\Alibxl: [a-z]+: [^:\s]+:\d+:[^:\s]+: (?:Domain \d+: ?)?")
_ERROR = re.compile(r"\Alibxl: (?:error|critical): ")
_BARE = re.compile(r"unable to (?:add|remove) device\Z|libxl_device_\w+ failed\.\Z")
"""What every failed call ends with; alone it means that libxl had no reason to give."""
_NOISE = re.compile(r"The kernel doesn't support reset from sysfs for PCI device")
"""Said by pci commands that succeed, too."""
_OBJECT = re.compile(r'^ *dev: [^,\s]+, id "([^"]+)"', re.M)
"""A line of qemu's `info qtree` (qdev-monitor.c: qdev_print); seen with 7.2."""
_MONITOR_ERROR = re.compile(r"\A(?:Error: |unknown command: |Device '.*' not found|.*: extraneous characters)", re.M)
_ROW = re.compile(
    r"(?P<domid>[0-9]+) +[0-9]+ +[0-9]+ +[r-][b-](?P<p>[p-])(?P<s>[s-])[-rscwS](?P<d>[d-]) +[0-9]+\.[0-9]\Z", re.A
)
_INFO = re.compile(r"([a-z][a-z0-9_]*) *: ?(.*)\Z")


class Xl:
    """The commands of xl that xenplug uses. One call at a time for one guest (T10): its callers see to that."""

    def __init__(self, commands: Commands, xl: str = "xl", timeout: float = 60.0) -> None:
        self._commands = commands
        self._xl = xl
        self._timeout = timeout

    async def usbctrl_attach(self, domid: int, type_: ControllerType, version: int, ports: int) -> Outcome:
        """Make a controller. Its devid is not told: read it from xenstore."""
        if wrong := _wrong_domid(domid) or _wrong_controller(type_, version, ports):
            return wrong
        return await self._act("usbctrl-attach", str(domid), f"type={type_}", f"version={version}", f"ports={ports}")

    async def usbctrl_detach(self, domid: int, controller: int) -> Outcome:
        """Remove a controller. Takes 20 s and says `unsure` where the guest has no driver (T30)."""
        if wrong := _wrong_domid(domid) or _outside("guest controller", controller, 0, 255):
            return wrong
        return await self._act("usbctrl-detach", str(domid), str(controller))

    async def usbdev_attach(self, domid: int, bus: int, number: int, controller: int, port: int) -> Outcome:
        """Give the device at a bus address to a guest port. For qusb "ok" says no more than "busid written" (T6)."""
        spot = GuestPort(domid, controller, port)
        wrong = _wrong_spot(spot) or _outside("bus", bus, 1, 255) or _outside("device number", number, 1, 255)
        if wrong:
            return wrong
        device = (f"hostbus={bus}", f"hostaddr={number}")
        return await self._act("usbdev-attach", str(domid), *device, f"controller={controller}", f"port={port}")

    async def usbdev_detach(self, domid: int, controller: int, port: int) -> Outcome:
        """Take a device off a guest port. Only xenstore says which controllers are there: of one that is not, or of a
        domid that is gone, xl 4.17 dies (SIGSEGV), told as `killed`.
        """
        if wrong := _wrong_spot(GuestPort(domid, controller, port)):
            return wrong
        return await self._act("usbdev-detach", str(domid), str(controller), str(port))

    async def monitor(self, domid: int, command: str) -> Outcome:
        """A human monitor command to the guest's qemu. Its errors come on stdout with exit 0 (T31); read here."""
        if wrong := _wrong_domid(domid):
            return wrong
        return read_monitor(await self._run("qemu-monitor-command", str(domid), command))

    async def model_objects(self, domid: int) -> frozenset[str] | None:
        """The ids of the devices that the guest's qemu has (`info qtree`); None if it does not tell."""
        told = await self.monitor(domid, "info qtree")
        return frozenset(_OBJECT.findall(told.output)) if told.ok else None

    async def list(self) -> dict[int, GuestState] | Outcome:
        """What the hypervisor says of every domain, dom0 included; an Outcome if it cannot be told."""
        result = await self._run("list")
        outcome = read_outcome(result)
        return parse_list(result.stdout) if outcome.ok else outcome

    async def info(self) -> dict[str, str] | Outcome:
        """The keys of `xl info` (virt_caps, xen_version, …); an Outcome if they cannot be told."""
        result = await self._run("info")
        outcome = read_outcome(result)
        return parse_info(result.stdout) if outcome.ok else outcome

    async def pci_assignable_add(self, bdf: Bdf) -> Outcome:
        """Take a PCI device from dom0: pciback binds to it. Without an IOMMU it says no and does it all the same."""
        return _wrong_bdf(bdf) or await self._act("pci-assignable-add", bdf)

    async def pci_assignable_remove(self, bdf: Bdf) -> Outcome:
        """Give it back to the driver it had. "ok" also where that driver is not known any more: read sysfs."""
        return _wrong_bdf(bdf) or await self._act("pci-assignable-remove", "-r", bdf)

    async def pci_attach(self, domid: int, bdf: Bdf) -> Outcome:
        """Give an assignable device to a guest."""
        return _wrong_domid(domid) or _wrong_bdf(bdf) or await self._act("pci-attach", str(domid), bdf)

    async def pci_detach(self, domid: int, bdf: Bdf, force: bool = False) -> Outcome:
        """Take it off a guest, whose consent an HVM guest is waited for unless forced; it stays with pciback."""
        words = ["-f"] * force + [str(domid), bdf]
        return _wrong_domid(domid) or _wrong_bdf(bdf) or await self._act("pci-detach", *words)

    async def has_pciback(self) -> bool:
        """dom0 has the driver that holds PCI devices for guests. xl tells on stderr, with exit 0 (T41)."""
        result = await self._run("pci-assignable-list")
        return result.ok and "pciback driver not loaded" not in result.stderr

    async def passthrough(self, domid: int) -> bool | None:
        """Whether the guest was made to take PCI devices; None where this xl does not tell (before Xen 4.13)."""
        result = await self._run("list", "-l", str(domid))
        return parse_passthrough(result.stdout) if result.ok else None

    async def _act(self, *words: str) -> Outcome:
        return read_outcome(await self._run(*words))

    async def _run(self, *words: str) -> Result:
        return await self._commands.run([self._xl, *words], self._timeout)


def read_outcome(result: Result) -> Outcome:
    """What the end of a call means."""
    if result.ok:
        return Outcome(True, output=result.stdout)
    if abnormal := _abnormal(result):
        return abnormal
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    for cause, line in _told(lines):
        return Outcome(False, cause, _clean(line))
    reasons = [line for line in lines if not _BARE.search(line) and not _NOISE.search(line)]
    if lines and not reasons:
        return Outcome(False, Cause.STARTING, "xl gives no reason; the guest is still being created")
    # Warnings may stand before the error: exit 0 has them too, so they are no reason.
    reasons.sort(key=lambda line: not _ERROR.match(line) and line.startswith("libxl: "))
    if not reasons or result.code not in (1, 2):
        words = f": {_clean(reasons[0])}" if reasons else ""
        return Outcome(False, Cause.NOT_UNDERSTOOD, f"xl ended with exit code {result.code}{words}")
    return Outcome(False, Cause.REFUSED, _clean(reasons[0]))


def _abnormal(result: Result) -> Outcome | None:
    if result.error is not None:
        return Outcome(False, Cause.XL_MISSING, result.error)
    if result.timed_out:
        return Outcome(False, Cause.TIMED_OUT, f"xl did not end within {result.seconds:.0f} s and was killed")
    # Above 128 a shell script in between tells of the signal.
    signal = result.signal or (result.code - 128 if result.code is not None and 128 < result.code < 193 else None)
    if signal or result.code is None:
        return Outcome(False, Cause.KILLED, f"xl was killed by signal {signal}" if signal else "xl did not end")
    return None


def _told(lines: Sequence[str]) -> list[tuple[Cause, str]]:
    """The causes the lines tell, best known first."""
    return [(cause, line) for words, cause in _SAYINGS for line in lines if re.search(words, line)]


def read_monitor(result: Result) -> Outcome:
    """What the end of `xl qemu-monitor-command` means; an answer of qemu that is an error is no success."""
    outcome = read_outcome(result)
    if not outcome.ok or not _MONITOR_ERROR.search(result.stdout):
        return outcome
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    cause, line = next(iter(_told(lines)), (Cause.REFUSED, lines[0]))
    return Outcome(False, cause, _clean(line), result.stdout)


def past_wrapper(xl: str, root: Path = Path("/")) -> str:
    """Debian's xl is a shell script that looks which Xen runs and starts the xl of that one (xen-utils-common:
    xen-utils-wrapper). The xl it would start, where it would start one: that saves a shell in every call.
    """
    folders = [""] if "/" in xl else os.get_exec_path()
    files = (root / f"{folder}/{xl}".lstrip("/") for folder in folders)
    found = next((file for file in files if os.path.exists(file)), None)  # noqa: PTH110 - Path.exists may raise
    if found is None or not os.path.realpath(found).endswith("/xen-utils-wrapper"):
        return xl
    try:
        major, minor = ((root / f"sys/hypervisor/version/{part}").read_text().strip() for part in ("major", "minor"))
    except (OSError, ValueError):
        return xl
    own = f"/usr/lib/xen-{major}.{minor}/bin/xl"
    return own if (root / own.lstrip("/")).is_file() else xl


def parse_list(text: str) -> dict[int, GuestState] | Outcome:
    """Read `xl list` (xl_info.c: list_domains). Names may hold anything and run into the columns: rows are read from
    the right. A row that is not understood makes the whole answer not understood.
    """
    header, *rows = text.splitlines() or [""]
    if header.split()[:2] != ["Name", "ID"]:
        return Outcome(False, Cause.NOT_UNDERSTOOD, f"xl list: no header of xl's: {_clean(header)!r}")
    states: dict[int, GuestState] = {}
    for row in rows:
        found = _ROW.search(row)
        if not found:
            return Outcome(False, Cause.NOT_UNDERSTOOD, f"xl list: a line that is not understood: {_clean(row)!r}")
        states[int(found["domid"])] = _state(found)
    return states


def _state(row: re.Match[str]) -> GuestState:
    """A domain that has shut down is about to be destroyed or made anew. All dashes: it could run, another runs now."""
    if "d" in row["d"] or "s" in row["s"]:
        return GuestState.STOPPING
    return GuestState.PAUSED if row["p"] == "p" else GuestState.RUNNING


def parse_passthrough(text: str) -> bool | None:
    """Read `xl list -l DOMID` for c_info.passthrough (libxl_types.idl: libxl_passthrough)."""
    try:
        told = json.loads(text)[0]["config"]["c_info"].get("passthrough")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return None if told is None else told in ("enabled", "sync_pt", "share_pt")


def parse_info(text: str) -> dict[str, str] | Outcome:
    """Read `xl info`: one `key : value` a line; other lines (its topology tables) are skipped."""
    found = {pair[1]: pair[2] for pair in map(_INFO.match, text.splitlines()) if pair}
    return found or Outcome(False, Cause.NOT_UNDERSTOOD, "xl info: nothing in it is understood")


def _clean(line: str) -> str:
    """qemu's words may carry a device's own name: nothing but printable characters is passed on."""
    text = _PREFIX.sub("", line)[:TEXT_LIMIT]
    return "".join(c if c.isprintable() else "?" for c in text)


def _wrong_domid(domid: int) -> Outcome | None:
    return _outside("domid", domid, 1, MAX_DOMID)


def _wrong_bdf(bdf: Bdf) -> Outcome | None:
    """xl dies of an address without a function (T40)."""
    return None if BDF.match(bdf) else Outcome(False, Cause.OUT_OF_RANGE, f"{bdf!r} is no PCI address in full")


def _wrong_spot(spot: GuestPort) -> Outcome | None:
    return (
        _wrong_domid(spot.domid)
        or _outside("guest controller", spot.controller, 0, 255)
        or _outside("guest port", spot.port, 1, MAX_PORTS)
    )


def _wrong_controller(type_: ControllerType, version: int, ports: int) -> Outcome | None:
    """The limits of libxl__device_usbctrl_setdefault."""
    if type_ is not ControllerType.DEVICEMODEL:
        return _outside("version", version, 1, 2) or _outside("ports", ports, 1, MAX_PORTS)
    least, most = {1: (2, 2), 2: (6, 6)}.get(version, (1, 15))
    return _outside("version", version, 1, 3) or _outside("ports", ports, least, most)


def _outside(what: str, value: int, least: int, most: int) -> Outcome | None:
    if least <= value <= most:
        return None
    return Outcome(False, Cause.OUT_OF_RANGE, f"{what} {value} is not within {least} to {most}")
