"""Reads the facts of a host for the doctor: files below a root, xl, xenstore. Facts that cannot be read are None;
nothing is raised.

cli/doctor.py uses it with the real backends, tests with an invented tree and the simulated xl and xenstore.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from xenplug.adapters.host_files import HostFiles
from xenplug.adapters.mirror import Mirror
from xenplug.adapters.packages import package_of
from xenplug.adapters.programs import found_xl, unsafe
from xenplug.adapters.sysfs import Sysfs
from xenplug.adapters.xl import Xl
from xenplug.core.doctor.facts import Install, OwnedPath, RunningGuest, ToolstackFacts, UsbFacts, WaitingProcess
from xenplug.core.doctor.host import GUEST_RULES, NEEDED, OLD_RULES, RULE_FILES
from xenplug.core.guests import beyond, claims, moving, read_guests
from xenplug.core.model import BusId, Device, Guest, GuestState, GuestType
from xenplug.core.protocols import Commands, Domains, Store, StoreLost
from xenplug.core.settings import Settings
from xenplug.core.usb.device import describe

XL_TIME = 10.0
"""Seconds for one call of xl, and for the connection to xenstored."""
QEMUS = (
    "/usr/libexec/xen-qemu-system-i386",
    "/usr/lib/xen/bin/qemu-system-i386",
    "/usr/libexec/xen/bin/qemu-system-i386",
    "/usr/local/lib/xen/bin/qemu-system-i386",
    "/usr/bin/qemu-system-i386",
    "/usr/bin/qemu-system-x86_64",
)
"""Where distributions and Xen's own build install the device model, the most likely path first."""
QEMU_MODULES = (
    "/usr/lib64/qemu",
    "/usr/lib/qemu",
    "/usr/lib/x86_64-linux-gnu/qemu",
    "/usr/lib/aarch64-linux-gnu/qemu",
    "/usr/local/lib/qemu",
)
"""Where distributions' QEMU looks for its modules."""
UNIT_FILES = ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
INIT_SCRIPT = "/etc/init.d/xenplug"
"""OpenRC's or a SysV init's; used where there is no unit."""
RULES = ("/etc/udev/rules.d", "/run/udev/rules.d", "/lib/udev/rules.d", "/usr/lib/udev/rules.d")
LONG = 60.0
"""A call of xl that takes more seconds hangs."""
CALLS = re.compile(r"(?:usb|pci-|qemu-monitor-command|list\b)")
"""xl's commands that end by themselves; `xl create` and `xl console` run as long as their guest."""
MOVERS = re.compile(r"xl\s+usb(?:dev|ctrl)-(?:at|de)tach|xl\s+qemu-monitor-command|virsh\b.*(?:at|de)tach-device")
"""Commands that move USB devices between guests."""
PROGRAMS: Mapping[str, str] = {
    "/usr/sbin/usbguard-daemon": "USBGuard deauthorises devices before they can be attached to a guest",
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_libxl.so": (
        "libvirt's Xen driver attaches USB devices and controllers to guests, and keeps its own records"
    ),
    "/opt/xensource/bin/xapi": "XAPI attaches USB devices to guests by /etc/xensource/usb-policy.conf",
    "/usr/bin/qubesd": "Qubes attaches USB devices with its own tools",
}


@dataclass(frozen=True, slots=True)
class DoctorBackends:
    """What the checks need of the host."""

    commands: Commands
    store: Store
    domains: Domains
    alive: Callable[[int], bool] = lambda pid: Path(f"/proc/{pid}").exists()
    """Whether a process with this number exists."""


async def toolstack(tree: HostFiles, backends: DoctorBackends, settings: Settings, socket: str) -> ToolstackFacts:
    """Xen as its tools show it."""
    info = await Xl(backends.commands, settings.toolstack.xl, XL_TIME).info()
    known = info if isinstance(info, dict) else None
    where = next((path for path in QEMUS if tree.at(path).exists()), None)
    return ToolstackFacts(
        dom0="control_d" in (tree.text(f"{settings.paths.proc}/xen/capabilities") or ""),
        xl=known,
        xl_package=await package_of(backends.commands, found_xl(settings.toolstack.xl))
        if tree.root == Path("/")
        else None,
        xl_error=None if isinstance(info, dict) else info.text or str(info.cause),
        store_error=await _store_error(backends.store),
        store_socket=socket,
        qemu=await qemu_version(backends.commands, tree, where) if where else None,
        qemu_missing=where is None,
        qemu_of_distribution=where is not None and _of_distribution(tree, where),
        usb_host=any(tree.exists(f"{folder}/hw-usb-host.so") for folder in QEMU_MODULES),
        usbback=tree.exists(f"{settings.paths.sys}/bus/usb/drivers/usbback"),
        pciback=tree.exists(f"{settings.paths.sys}/bus/pci/drivers/pciback"),
    )


def _of_distribution(tree: HostFiles, qemu: str) -> bool:
    """Whether this is the distribution's QEMU, or (openSUSE's /usr/lib/xen/bin) a script that starts it."""
    return qemu.startswith("/usr/bin/") or (tree.text(qemu) or "").startswith("#!")


async def _store_error(store: Store) -> str | None:
    try:
        async with asyncio.timeout(XL_TIME):
            await store.connect()
            await store.read("/local/domain/0/name")
    except TimeoutError:
        return f"no answer within {XL_TIME:.0f} s"
    except (OSError, StoreLost) as error:
        return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return None


async def qemu_version(commands: Commands, tree: HostFiles, path: str) -> tuple[int, ...] | None:
    """The version of the qemu at `path`; None if it does not print one, or if `tree` is another system's files."""
    if tree.root != Path("/"):
        return None
    result = await commands.run([path, "-version"], XL_TIME)
    found = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", result.stdout)
    return tuple(int(part) for part in found.groups() if part) if found else None


@dataclass(frozen=True, slots=True)
class SeenGuests:
    """What xenstore shows of guests."""

    running: tuple[RunningGuest, ...] | None = None
    """None without a xenstore."""
    moving: tuple[str, ...] = ()
    beyond: Mapping[str, str] = field(default_factory=dict)


async def guests(backends: DoctorBackends, settings: Settings, devices: Mapping[BusId, Device]) -> SeenGuests:
    """The guests, as the agent sees them, and the answers of their device models."""
    mirror, xl = Mirror(backends.store), Xl(backends.commands, settings.toolstack.xl, XL_TIME)
    try:
        async with asyncio.timeout(XL_TIME):
            await mirror.load()
    except (OSError, StoreLost, TimeoutError):
        return SeenGuests()
    states = await xl.list()
    known: Mapping[int, GuestState] = states if isinstance(states, dict) else {}
    found = read_guests(mirror.tree(), mirror.introduced, backends.domains.ready, known)
    running = [await _running(guest, backends, xl, devices) for guest in found.values()]
    return SeenGuests(tuple(running), moving(mirror.tree()), beyond(mirror.tree()))


async def _running(guest: Guest, backends: DoctorBackends, xl: Xl, devices: Mapping[BusId, Device]) -> RunningGuest:
    model = guest.device_model
    alive = model is None or backends.alive(model)
    ask = guest.type is GuestType.HVM and model is not None and alive
    objects = await xl.model_objects(guest.domid) if ask else None
    return RunningGuest(guest, alive, claims(guest, devices, backends.domains.held), objects)


def usb(tree: HostFiles, settings: Settings) -> UsbFacts:
    """dom0's devices, host controllers and root hubs."""
    sysfs = Sysfs(tree.at(settings.paths.sys), tree.at("/run/udev"))
    raw = [found for port in sysfs.ports() if (found := sysfs.read(port))]
    devices = {device.port: device for device in map(describe, raw) if device}
    return UsbFacts(devices, sysfs.controllers(), tuple(_shut(tree, f"{settings.paths.sys}/bus/usb/devices")))


def _shut(tree: HostFiles, folder: str) -> Iterator[str]:
    for name in tree.names(folder) or []:
        for attribute in ("authorized_default", "interface_authorized_default"):
            if name.startswith("usb") and (tree.text(f"{folder}/{name}/{attribute}") or "").strip() == "0":
                yield f"{folder}/{name}/{attribute}"


def waiting(tree: HostFiles, settings: Settings) -> tuple[WaitingProcess, ...]:
    """xl calls that have run for a long time (/proc/PID/stat: the start in ticks since the boot is field 22)."""
    proc = settings.paths.proc
    up = (tree.text(f"{proc}/uptime") or "0").split()[0]
    found = []
    for name in tree.names(proc) or []:
        program, *words = (tree.text(f"{proc}/{name}/cmdline") or "").split("\0") if name.isdecimal() else [""]
        if program.rpartition("/")[2] != "xl" or not words or not CALLS.match(words[0]):
            continue
        stat = (tree.text(f"{proc}/{name}/stat") or "").rpartition(")")[2].split()
        seconds = float(up) - int(stat[19]) / os.sysconf("SC_CLK_TCK") if len(stat) > 19 else 0.0
        if seconds > LONG:
            found.append(WaitingProcess(int(name), " ".join(["xl", *words]).strip(), seconds))
    return tuple(found)


def saved_by(tree: HostFiles) -> str:
    """The settings of Xen's init script; its place is the distribution's choice."""
    files = ("/etc/default/xendomains", "/etc/sysconfig/xendomains", "/etc/conf.d/xendomains")
    return next((file for file in files if tree.text(file)), files[0])


def saved_to(tree: HostFiles) -> str:
    """XENDOMAINS_SAVE of Xen's init script, as a shell reads it: the last assignment counts."""
    text = tree.text(saved_by(tree)) or ""
    values = re.findall(r"^\s*XENDOMAINS_SAVE=[\"']?([^\"'\s#]*)", text, re.M)
    return values[-1] if values else ""


def install(tree: HostFiles, settings: Settings, policy: Path) -> Install:
    """The files of the installed xenplug. The caller adds the agent's answer and the rules."""
    unit = next(
        (file for file in (*(f"{folder}/xenplug.service" for folder in UNIT_FILES), INIT_SCRIPT) if tree.exists(file)),
        None,
    )
    return Install(
        packages={name: _package(name) for name in NEEDED},
        unit=unit,
        enabled=any(tree.exists(link) for link in _boot_links(tree, unit)),
        udev_rules=frozenset(name for name in RULE_FILES for folder in RULES if tree.exists(f"{folder}/{name}")),
        old_rules=tuple(path for name in OLD_RULES if tree.exists(path := f"{RULES[0]}/{name}")),
        guest_rules=tree.text(f"{RULES[0]}/{GUEST_RULES}"),
        group=_group_exists(tree, settings.control.group),
        owned=tuple(_owned(tree, ["/etc/xenplug", "/etc/xenplug/xenplug.yaml", str(policy)], policy)),
        unsafe=tuple((str(place), words) for place, words in unsafe(settings, tree.root)),
        free={folder: free for folder in (settings.state, str(Path(settings.history.file).parent))
              if (free := _free(tree.at(folder))) is not None},
    )  # fmt: skip


def _boot_links(tree: HostFiles, unit: str | None) -> list[str]:
    """The links of which one exists if the service starts at boot."""
    if unit != INIT_SCRIPT:
        return ["/etc/systemd/system/multi-user.target.wants/xenplug.service"]
    openrc = [f"/etc/runlevels/{level}/xenplug" for level in tree.names("/etc/runlevels") or []]
    sysv = [f"/etc/rc2.d/{name}" for name in tree.names("/etc/rc2.d") or [] if re.fullmatch(r"S\d\dxenplug", name)]
    return [*openrc, *sysv]


def _package(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _group_exists(tree: HostFiles, group: str) -> bool:
    text = tree.text("/etc/group")
    return group.isdecimal() or text is None or any(line.startswith(f"{group}:") for line in text.splitlines())


def _owned(tree: HostFiles, paths: Sequence[str], policy: Path) -> Iterator[OwnedPath]:
    files = [str(policy / name) for name in tree.names(str(policy)) or [] if name.endswith(".yaml")]
    for path in dict.fromkeys([*paths, *files]):
        try:
            found = tree.at(path).stat()
        except OSError:
            continue
        yield OwnedPath(path, found.st_uid, found.st_mode & 0o7777)


def _free(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return -1 if found.f_flag & os.ST_RDONLY else found.f_bavail * found.f_frsize


def others(tree: HostFiles) -> dict[str, str]:
    """Traces of other programs that move USB devices."""
    found = {path: what for path, what in PROGRAMS.items() if tree.exists(path)}
    for folder in (*RULES, "/etc/systemd/system", "/etc/cron.d", "/etc/xen/scripts"):
        for name in tree.names(folder) or []:
            if "xenplug" in name:
                continue
            match = MOVERS.search(tree.text(f"{folder}/{name}") or "")
            if match:
                found[f"{folder}/{name}"] = f"runs `{' '.join(match[0].split())}`"
    return found
