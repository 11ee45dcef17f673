"""xl: builds its argument lists and reads its output. Every call returns an XlOutcome; none raises.

Reconciler -> Xl -> a Commands (adapters/proc.py; in the simulator the simulated xl). "ok" means only that xl exited 0:
the result is in xenstore (law 3, docs/dev/architecture.md). xl's messages are recognised by their words alone; the file
and line in front of them differ in every version (recorded answers: tests/data/xl/transcripts, Xen 4.17).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from xenplug.core.guests import MAX_PORTS
from xenplug.core.model import Bdf, ControllerType, GuestPort, GuestState
from xenplug.core.printable import printable
from xenplug.core.protocols import Commands, Result
from xenplug.core.usb.place import BDF

MAX_DOMID = 0x7FEF
"""DOMID_FIRST_RESERVED - 1 (xen/include/public/xen.h)."""
TEXT_LIMIT = 300


class XlCause(StrEnum):
    """Why a call of xl did not succeed."""

    NONE = ""
    REFUSED = "refused"
    """Any other refusal of xl: the text has its message."""
    OUT_OF_RANGE = "out_of_range"
    """Not tried: xl would have truncated the number, or misread it (T7, T8, T9)."""
    NOT_ASSIGNABLE = "not_assignable"
    ALREADY_ATTACHED = "already_attached"
    STALE_PORT = "stale_port"
    """Some port of some guest names a device that is gone: then libxl refuses every attach on the host (T1)."""
    PORT_TAKEN = "port_taken"
    PORT_EMPTY = "port_empty"
    """The port is empty; also reported for a port whose device is gone (T2)."""
    CONTROLLER_FULL = "controller_full"
    NO_CONTROLLER = "no_controller"
    """xenstore has no such controller, or no such domain."""
    PHANTOM_CONTROLLER = "phantom_controller"
    """xenstore has the controller, but the guest's qemu lacks it (T5)."""
    PHANTOM_DEVICE = "phantom_device"
    """qemu has no device with the current address (T22)."""
    DUPLICATE_DEVICE = "duplicate_device"
    """qemu still has an older device with the same address (T21)."""
    NO_DEVICE_MODEL = "no_device_model"
    NO_BACKEND = "no_backend"
    STARTING = "starting"
    UNKNOWN_GUEST = "unknown_guest"
    SPEED_MISMATCH = "speed_mismatch"
    QMP_TIMEOUT = "qmp_timeout"
    UNSURE = "unsure"
    """xl timed out waiting for the other side; often the operation still succeeds (T30): read xenstore."""
    TIMED_OUT = "timed_out"
    """xl did not end in time: its effect is unknown, read xenstore."""
    KILLED = "killed"
    XL_MISSING = "xl_missing"
    NO_XEN = "no_xen"
    NOT_UNDERSTOOD = "not_understood"


@dataclass(frozen=True, slots=True)
class XlOutcome:
    """The result of a call. `text`: one printable line for people; `output`: xl's output, if the caller needs it."""

    ok: bool
    cause: XlCause = XlCause.NONE
    text: str = ""
    output: str = ""


_SAYINGS = (
    (r"cannot determine if device is assigned|fail to get assigned devices", XlCause.STALE_PORT),
    (r"USB device already attached to a domain", XlCause.ALREADY_ATTACHED),
    (r"USB device is not assignable|failed to (?:find|open) host usb device", XlCause.NOT_ASSIGNABLE),
    (r"The controller port isn't available", XlCause.PORT_TAKEN),
    (r"No available port under specified controller", XlCause.CONTROLLER_FULL),
    (r"Unknown device at controller", XlCause.PORT_EMPTY),
    (r"xenstore read failed: `/libxl/\d+/device/vusb/\d+'|Unknown device \d+\.", XlCause.NO_CONTROLLER),
    (r"Bus 'xenusb-\d+\.0' not found|Device 'xenusb-\d+' not found", XlCause.PHANTOM_CONTROLLER),
    (r"Device 'xenusb-\d+-\d+' not found", XlCause.PHANTOM_DEVICE),
    (r"Duplicate (?:device )?ID", XlCause.DUPLICATE_DEVICE),
    (r"device model required but not running|Failed to connect to QMP socket", XlCause.NO_DEVICE_MODEL),
    (r"backend type not supported by device model", XlCause.NO_BACKEND),
    (r"unable to add device with path /local/domain/0/backend/vusb/", XlCause.NO_BACKEND),
    (r"speed mismatch", XlCause.SPEED_MISMATCH),
    (r"QEMU timed out", XlCause.QMP_TIMEOUT),
    (r"Unable to remove vusb with id", XlCause.UNSURE),
    (r"is an invalid domain identifier|unable to find domain info|Domain '.*' does not exist", XlCause.UNKNOWN_GUEST),
    # libxl_dom.c: libxl__domain_type, to 4.17 and since. With ", assuming HVM" it is a warning: the domain exists.
    (r"unable to get domain type for domid=\d+\Z|unable to get dominfo: No such process", XlCause.UNKNOWN_GUEST),
    (r"Getting domain info(?: list)?: No such process|Non-existant domain", XlCause.UNKNOWN_GUEST),
    (r"cannot init xl context|cannot connect to xenstore", XlCause.NO_XEN),
)
"""Not compiled here: re compiles them when a call first fails, which most runs of a command never see."""
_PREFIX = re.compile(r"\Alibxl: [a-z]+: [^:\s]+:\d+:[^:\s]+: (?:Domain \d+: ?)?")
_ERROR = re.compile(r"\Alibxl: (?:error|critical): ")
_BARE = re.compile(r"unable to (?:add|remove) device\Z|libxl_device_\w+ failed\.\Z")
"""The last line of every failed call; alone it means that libxl printed no reason."""
_NOISE = re.compile(r"The kernel doesn't support reset from sysfs for PCI device")
"""Also printed by pci commands that succeed."""
_OBJECT = re.compile(r'^ *dev: [^,\s]+, id "([^"]+)"', re.M)
"""A line of qemu's `info qtree` (qdev-monitor.c: qdev_print); seen with 7.2."""
_MONITOR_ERROR = re.compile(r"\A(?:Error: |unknown command: |Device '.*' not found|.*: extraneous characters)", re.M)
_ROW = re.compile(
    r"(?P<domid>[0-9]+) +[0-9]+ +[0-9]+ +[r-][b-](?P<p>[p-])(?P<s>[s-])(?P<why>[-rscwS])(?P<d>[d-]) +[0-9]+\.[0-9]\Z",
    re.A,
)
_INFO = re.compile(r"([a-z][a-z0-9_]*) *: ?(.*)\Z")


class Xl:
    """The commands of xl that xenplug uses. Callers must make one call at a time for one guest (T10)."""

    def __init__(self, commands: Commands, xl: str = "xl", timeout: float = 60.0) -> None:
        self._commands = commands
        self._xl = xl
        self._timeout = timeout

    async def usbctrl_attach(self, domid: int, type_: ControllerType, version: int, ports: int) -> XlOutcome:
        """Create a controller. xl does not print its devid: read it from xenstore."""
        if wrong := _wrong_domid(domid) or _wrong_controller(type_, version, ports):
            return wrong
        return await self._act("usbctrl-attach", str(domid), f"type={type_}", f"version={version}", f"ports={ports}")

    async def usbctrl_detach(self, domid: int, controller: int) -> XlOutcome:
        """Remove a controller. Takes 20 s and returns `unsure` if the guest has no driver (T30)."""
        if wrong := _wrong_domid(domid) or _outside("guest controller", controller, 0, 255):
            return wrong
        return await self._act("usbctrl-detach", str(domid), str(controller))

    async def usbdev_attach(self, domid: int, bus: int, number: int, controller: int, port: int) -> XlOutcome:
        """Attach the device at a bus address to a guest port. For qusb "ok" means only that the busid is written
        (T6).
        """
        guest_port = GuestPort(domid, controller, port)
        wrong = _wrong_spot(guest_port) or _outside("bus", bus, 1, 255) or _outside("device number", number, 1, 255)
        if wrong:
            return wrong
        device = (f"hostbus={bus}", f"hostaddr={number}")
        return await self._act("usbdev-attach", str(domid), *device, f"controller={controller}", f"port={port}")

    async def usbdev_detach(self, domid: int, controller: int, port: int) -> XlOutcome:
        """Detach the device on a guest port. Read from xenstore first which controllers exist: for a missing one, or a
        domid that is gone, xl 4.17 crashes (SIGSEGV), reported as `killed`.
        """
        if wrong := _wrong_spot(GuestPort(domid, controller, port)):
            return wrong
        return await self._act("usbdev-detach", str(domid), str(controller), str(port))

    async def monitor(self, domid: int, command: str) -> XlOutcome:
        """Run a human monitor command in the guest's qemu. Its errors, on stdout with exit 0 (T31), are recognised."""
        if wrong := _wrong_domid(domid):
            return wrong
        return read_monitor(await self._run("qemu-monitor-command", str(domid), command))

    async def model_objects(self, domid: int) -> frozenset[str] | None:
        """The ids of the devices that the guest's qemu has (`info qtree`); None if it cannot be read."""
        outcome = await self.monitor(domid, "info qtree")
        return frozenset(_OBJECT.findall(outcome.output)) if outcome.ok else None

    async def list(self) -> dict[int, GuestState] | XlOutcome:
        """The state of every domain, including dom0, from the hypervisor; an XlOutcome if the call failed."""
        result = await self._run("list")
        outcome = read_outcome(result)
        return parse_list(result.stdout) if outcome.ok else outcome

    async def info(self) -> dict[str, str] | XlOutcome:
        """The keys of `xl info` (virt_caps, xen_version, …); an XlOutcome if the call failed."""
        result = await self._run("info")
        outcome = read_outcome(result)
        return parse_info(result.stdout) if outcome.ok else outcome

    async def pci_assignable_add(self, bdf: Bdf) -> XlOutcome:
        """Take a PCI device from dom0: pciback binds to it. Without an IOMMU xl reports a failure and still does it."""
        return _wrong_bdf(bdf) or await self._act("pci-assignable-add", bdf)

    async def pci_assignable_remove(self, bdf: Bdf) -> XlOutcome:
        """Return it to its earlier driver. "ok" also if that driver is unknown: read sysfs."""
        return _wrong_bdf(bdf) or await self._act("pci-assignable-remove", "-r", bdf)

    async def pci_attach(self, domid: int, bdf: Bdf) -> XlOutcome:
        """Attach an assignable device to a guest."""
        return _wrong_domid(domid) or _wrong_bdf(bdf) or await self._act("pci-attach", str(domid), bdf)

    async def pci_detach(self, domid: int, bdf: Bdf, force: bool = False) -> XlOutcome:
        """Detach it from a guest; it stays with pciback. xl waits for the consent of an HVM guest unless `force`."""
        words = ["-f"] * force + [str(domid), bdf]
        return _wrong_domid(domid) or _wrong_bdf(bdf) or await self._act("pci-detach", *words)

    async def has_pciback(self) -> bool:
        """Whether dom0 has the driver that holds PCI devices for guests. xl reports its absence on stderr, with exit 0
        (T41).
        """
        result = await self._run("pci-assignable-list")
        return result.ok and "pciback driver not loaded" not in result.stderr

    async def passthrough(self, domid: int) -> bool | None:
        """Whether the guest was created with PCI passthrough; None if this xl does not show it (before Xen 4.13)."""
        result = await self._run("list", "-l", str(domid))
        return parse_passthrough(result.stdout) if result.ok else None

    async def _act(self, *words: str) -> XlOutcome:
        return read_outcome(await self._run(*words))

    async def _run(self, *words: str) -> Result:
        return await self._commands.run([self._xl, *words], self._timeout)


def read_outcome(result: Result) -> XlOutcome:
    """The outcome of a call that ended."""
    if result.ok:
        return XlOutcome(True, output=result.stdout)
    if abnormal := _abnormal(result):
        return abnormal
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    for cause, line in _told(lines):
        return XlOutcome(False, cause, _clean(line))
    reasons = [line for line in lines if not _BARE.search(line) and not _NOISE.search(line)]
    if lines and not reasons:
        return XlOutcome(False, XlCause.STARTING, "xl gives no reason; the guest is still being created")
    # Warnings may come before the error. They are no reason, because they also come with exit 0.
    reasons.sort(key=lambda line: not _ERROR.match(line) and line.startswith("libxl: "))
    if not reasons or result.code not in (1, 2):
        words = f": {_clean(reasons[0])}" if reasons else ""
        return XlOutcome(False, XlCause.NOT_UNDERSTOOD, f"xl ended with exit code {result.code}{words}")
    return XlOutcome(False, XlCause.REFUSED, _clean(reasons[0]))


def _abnormal(result: Result) -> XlOutcome | None:
    if result.error is not None:
        return XlOutcome(False, XlCause.XL_MISSING, result.error)
    if result.timed_out:
        return XlOutcome(False, XlCause.TIMED_OUT, f"xl did not end within {result.seconds:.0f} s and was killed")
    # Above 128 it is a signal, reported by a shell script in between.
    signal = result.signal or (result.code - 128 if result.code is not None and 128 < result.code < 193 else None)
    if signal or result.code is None:
        return XlOutcome(False, XlCause.KILLED, f"xl was killed by signal {signal}" if signal else "xl did not end")
    return None


def _told(lines: Sequence[str]) -> list[tuple[XlCause, str]]:
    """The causes found in the lines, in the order of the table."""
    return [(cause, line) for words, cause in _SAYINGS for line in lines if re.search(words, line)]


def read_monitor(result: Result) -> XlOutcome:
    """The outcome of `xl qemu-monitor-command`; an error message of qemu is a failure."""
    outcome = read_outcome(result)
    if not outcome.ok or not _MONITOR_ERROR.search(result.stdout):
        return outcome
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    cause, line = next(iter(_told(lines)), (XlCause.REFUSED, lines[0]))
    return XlOutcome(False, cause, _clean(line), result.stdout)


def past_wrapper(xl: str, root: Path = Path("/")) -> str:
    """The xl that Debian's xl would start, if it is that wrapper: a shell script that starts the xl of the running Xen
    (xen-utils-common: xen-utils-wrapper). This saves a shell in every call.
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


def parse_list(text: str) -> dict[int, GuestState] | XlOutcome:
    """Read `xl list` (xl_info.c: list_domains). Names may contain anything and run into the columns, so rows are read
    from the right. One invalid row makes the whole answer invalid.
    """
    header, *rows = text.splitlines() or [""]
    if header.split()[:2] != ["Name", "ID"]:
        return XlOutcome(False, XlCause.NOT_UNDERSTOOD, f"xl list: unexpected header: {_clean(header)!r}")
    states: dict[int, GuestState] = {}
    for row in rows:
        found = _ROW.search(row)
        if not found:
            return XlOutcome(False, XlCause.NOT_UNDERSTOOD, f"xl list: unexpected line: {_clean(row)!r}")
        states[int(found["domid"])] = _state(found)
    return states


def _state(row: re.Match[str]) -> GuestState:
    """The state in a row. A domain that has shut down will soon be destroyed or restarted, or is kept
    (on_poweroff=preserve); with the reason `s` it is suspended and keeps its device model. All dashes: it is runnable,
    but another domain runs now.
    """
    if row["s"] == "s" and row["why"] == "s" and row["d"] == "-":
        return GuestState.SUSPENDED
    if row["d"] == "d" or row["s"] == "s":
        return GuestState.STOPPING
    return GuestState.PAUSED if row["p"] == "p" else GuestState.RUNNING


def parse_passthrough(text: str) -> bool | None:
    """Read `xl list -l DOMID` for c_info.passthrough (libxl_types.idl: libxl_passthrough)."""
    try:
        setting = json.loads(text)[0]["config"]["c_info"].get("passthrough")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return None if setting is None else setting in ("enabled", "sync_pt", "share_pt")


def parse_info(text: str) -> dict[str, str] | XlOutcome:
    """Read `xl info`: one `key : value` a line; other lines (its topology tables) are skipped."""
    found = {pair[1]: pair[2] for pair in map(_INFO.match, text.splitlines()) if pair}
    return found or XlOutcome(False, XlCause.NOT_UNDERSTOOD, "xl info: no known line in its output")


def _clean(line: str) -> str:
    """The printable characters of a text: qemu's messages may contain a name that a device chose."""
    text = _PREFIX.sub("", line)[:TEXT_LIMIT]
    return printable(text)


def _wrong_domid(domid: int) -> XlOutcome | None:
    return _outside("domid", domid, 1, MAX_DOMID)


def _wrong_bdf(bdf: Bdf) -> XlOutcome | None:
    """Refuse an address without a function: xl crashes on it (T40)."""
    return None if BDF.match(bdf) else XlOutcome(False, XlCause.OUT_OF_RANGE, f"{bdf!r} is not a full PCI address")


def _wrong_spot(guest_port: GuestPort) -> XlOutcome | None:
    return (
        _wrong_domid(guest_port.domid)
        or _outside("guest controller", guest_port.controller, 0, 255)
        or _outside("guest port", guest_port.port, 1, MAX_PORTS)
    )


def _wrong_controller(type_: ControllerType, version: int, ports: int) -> XlOutcome | None:
    """The limits of libxl__device_usbctrl_setdefault."""
    if type_ is not ControllerType.DEVICEMODEL:
        return _outside("version", version, 1, 2) or _outside("ports", ports, 1, MAX_PORTS)
    least, most = {1: (2, 2), 2: (6, 6)}.get(version, (1, 15))
    return _outside("version", version, 1, 3) or _outside("ports", ports, least, most)


def _outside(what: str, value: int, least: int, most: int) -> XlOutcome | None:
    if least <= value <= most:
        return None
    return XlOutcome(False, XlCause.OUT_OF_RANGE, f"{what} {value} is not within {least} to {most}")
