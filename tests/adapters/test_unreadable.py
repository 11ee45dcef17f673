"""Files of the host that cannot be read, for any reason, stop nothing: they count as missing."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.adapters.usbtree import HOST, STICK, Tree

from xenplug.adapters.console_keyboard import console_needs_usb
from xenplug.adapters.domains import XenDomains
from xenplug.adapters.in_use import InUse
from xenplug.adapters.root_hubs import RootHubs
from xenplug.adapters.sysfs import Sysfs
from xenplug.adapters.xl import past_wrapper
from xenplug.core.model import Bdf, Device
from xenplug.core.protocols import Guard
from xenplug.core.usb.device import describe

UUID = "ec2a7b1e-7e6a-4d53-9d1f-0a8b1f0f8a11"


def loop(at: Path) -> None:
    at.symlink_to(at)


def folder(at: Path) -> None:
    at.mkdir()


def too_long(at: Path) -> None:
    at.symlink_to("x" * 300)


def no_folder(at: Path) -> None:
    (at.parent / "file").touch()
    at.symlink_to("file/below")


def no_text(at: Path) -> None:
    at.write_bytes(b"\xff\xfe\0\x80 ) \n")


WAYS: list[Callable[[Path], None]] = [loop, folder, too_long, no_folder, no_text]


@pytest.mark.parametrize(
    "uuid",
    [UUID, "x" * 300, "x" * 5000, "a\0b", "\udce9", ""],
    ids=["good", "long", "longer", "NUL", "no text", "none"],
)
@pytest.mark.parametrize("way", WAYS)
def test_what_libxl_keeps(tmp_path: Path, uuid: str, way: Callable[[Path], None]) -> None:
    (tmp_path / "lib").mkdir()
    way(tmp_path / "lib" / f"userdata-d.5.{UUID}.libxl-json")
    there = way in (folder, no_text) and uuid == UUID
    assert XenDomains(xen_lib=tmp_path / "lib").ready(5, uuid) is there
    way(tmp_path / "bad")
    assert not XenDomains(xen_lib=tmp_path / "bad").ready(5, uuid)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["stat", "fd", "fd/5"])
def test_proc(tmp_path: Path, name: str, way: Callable[[Path], None]) -> None:
    (tmp_path / "77/fd").mkdir(parents=True)
    if name == "fd":
        (tmp_path / "77/fd").rmdir()
    way(tmp_path / "77" / name)
    domains = XenDomains(proc=tmp_path)
    assert domains.held(77) == frozenset()
    assert not domains.lives(77)


@pytest.mark.parametrize("stat", [b"", b"77", b"77 (q", b"77 (q) S", b"77 (q) S 1 2 3", b"77 (\xff\xfe) Z 1\n"])
def test_a_stat_that_is_none(tmp_path: Path, stat: bytes) -> None:
    (tmp_path / "77").mkdir()
    (tmp_path / "77/stat").write_bytes(stat)
    assert not XenDomains(proc=tmp_path).lives(77)


def test_a_process_that_names_itself_in_no_charset() -> None:
    script = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'\\xff) Z (\\xe9'); print(flush=True); sys.stdin.read()"

    async def run() -> bool:
        process = subprocess.Popen(["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        alive = XenDomains().lives(process.pid)
        process.communicate()
        return alive

    assert asyncio.run(run())


def test_nothing_is_kept_of_processes_that_ended() -> None:
    async def run() -> None:
        domains, ended = XenDomains(), list[None]()
        domains.ended = lambda: ended.append(None)
        for count in range(20):
            process = subprocess.Popen(["sleep", "60"])
            assert domains.lives(process.pid)
            process.kill()
            async with asyncio.timeout(20):
                while len(ended) <= count:
                    await asyncio.sleep(0.005)
            process.wait()
        assert domains.remembered <= 2

    asyncio.run(run())


LOOKED_AT = [
    "proc/self/mountinfo", "proc/swaps", "proc/net/route", "proc/net/ipv6_route", "proc/spl/kstat/zfs", "proc/9/comm",
    "proc/9/fd", "sys/fs/btrfs", "sys/fs/btrfs/a-b", "sys/block", "sys/block/loop0",
    "sys/block/loop0/loop/backing_file",
    "sys/bus/xen-backend/devices", "sys/bus/xen-backend/devices/vbd-1",
    "sys/bus/xen-backend/devices/vbd-1/physical_device",
    "sys/class/net", "sys/class/net/br0", "sys/class/net/br0/lower_eth0", "sys/class/net/eth0/upper_ovs-system",
    "sys/class/input", "sys/class/input/input3", "sys/class/drm", "sys/class/drm/card0", "sys/class/drm/card0/status",
    "sys/class/tty/console/active", "sys/bus/usb/drivers", "sys/bus/usb/drivers/usbback", f"sys{HOST}/reset",
    f"sys{HOST}/class", f"sys{HOST}/config", "sys/bus/pci/devices/0000:00:14.0", "sys/bus/pci/devices/0000:00:15.0",
    "sys/bus/usb/devices/usb1", "sys/bus/usb/devices/usb3", "sys/bus/usb/devices/1-9", "run/udev/data/b8:16",
    "run/udev/data/c189:5",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", LOOKED_AT)
def test_anything_that_is_read(tmp_path: Path, path: str, way: Callable[[Path], None]) -> None:
    tree = Tree(tmp_path)
    tree.write("proc/net/route", "br0\t00000000\t0\t0\t0\t0\t0\t00000000\t0\t0\t0\n")
    at = tree.folder("1-4")
    tree.plug("1-4", 6, [STICK], "usb-storage")
    tree.write(f"{at}/1-4:1.0/host1/block/sdb/dev", "8:16\n")
    bad = tmp_path / path
    if bad.is_symlink() or bad.is_file():
        bad.unlink()
    elif bad.exists():
        shutil.rmtree(bad)
    bad.parent.mkdir(parents=True, exist_ok=True)
    way(bad)
    sysfs, inuse, hubs = Sysfs(tree.sys, tree.root / "run/udev"), InUse(tree.root), RootHubs(tree.sys)
    for port in sysfs.ports():
        assert isinstance(describe(raw), Device) if (raw := sysfs.read(port)) else True
        inuse.of(sysfs.folder(port))
    sysfs.controllers()
    sysfs.pci.controller(Bdf("0000:00:15.0"))
    assert sysfs.usbback() is (path == "sys/bus/usb/drivers/usbback" and way in (folder, no_text))
    console_needs_usb(tree.sys)
    hubs.set(Guard(devices=True, interfaces=True))
    hubs.set(Guard())


@pytest.mark.parametrize("way", WAYS)
def test_xl(tmp_path: Path, way: Callable[[Path], None]) -> None:
    (tmp_path / "usr").mkdir()
    way(tmp_path / "usr/xl")
    assert past_wrapper("/usr/xl", tmp_path) == "/usr/xl"
    assert past_wrapper("/" + "x" * 300, tmp_path) == "/" + "x" * 300


def test_a_mounts_source_that_leads_elsewhere(tmp_path: Path) -> None:
    """A user who mounts chooses the source, and the file there may hang; a FIFO or a loop does no harm either."""
    tree = Tree(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    sources = ["/dev/../fifo", "/dev/" + "x" * 300, "/dev/" + "x/" * 3000, "/dev/loop", "/dev/\\000x", "/dev/\udce9"]
    (tmp_path / "dev").mkdir()
    loop(tmp_path / "dev/loop")
    lines = [f"36 35 0:{n} / /m rw - tmpfs {source} rw\n" for n, source in enumerate(sources)]
    tree.write("proc/self/mountinfo", "".join(lines).encode(errors="surrogateescape"))
    assert "fifo" not in InUse(tree.root).needs().names
