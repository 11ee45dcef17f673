"""What dom0 uses, read from this machine's own kernel: real mounts, namespaces, swap and loop devices.

The disk is a loop device, made to hang below the folder of a USB device. For dm, md, LVM and ZFS: test_inuse.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from xenplug.adapters.in_use import InUse
from xenplug.core.model import Use

TOOLS = ("losetup", "mkfs.ext4", "mkswap", "swapon", "unshare", "mount", "nsenter")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def sh(*argv: str) -> str:
    """Run it; what it printed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env={"PATH": PATH})
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout.strip()


def can() -> bool:
    """Whether this machine allows loop devices to be created and mounted."""
    if os.geteuid() != 0 or not all(shutil.which(tool, path=PATH) for tool in TOOLS):
        return False
    argv = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    mounts = subprocess.run(argv, capture_output=True, check=False, env={"PATH": PATH}).returncode == 0
    loops = subprocess.run(["losetup", "-f"], capture_output=True, check=False, env={"PATH": PATH}).returncode == 0
    return mounts and loops


pytestmark = pytest.mark.skipif(not can(), reason="needs root, loop devices, and leave to mount")


@contextmanager
def loop(of: Path) -> Iterator[Path]:
    """A loop device over a file or a device."""
    node = sh("losetup", "-f", "--show", str(of))
    try:
        yield Path(node)
    finally:
        sh("losetup", "-d", node)


@contextmanager
def mounted(what: Path, where: Path, *more: str) -> Iterator[None]:
    """Mounted in this namespace."""
    where.mkdir(exist_ok=True)
    sh("mount", *more, str(what), str(where))
    try:
        yield
    finally:
        sh("umount", str(where))


class Stick:
    """A USB stick whose disk is a loop device with an ext4 file system."""

    def __init__(self, folder: Path, node: Path) -> None:
        self.folder, self.node = folder, node
        disk = folder / "usb/1-4/1-4:1.0/host0/target0:0:0/0:0:0:0/block" / node.name
        disk.mkdir(parents=True)
        shutil.copy(f"/sys/block/{node.name}/dev", disk / "dev")
        (folder / "usb/1-4/1-4:1.0/driver").symlink_to("/sys/bus/usb/drivers/usb-storage")

    def used(self) -> bool:
        """What the agent would see now."""
        return Use.STORAGE in InUse().of(str(self.folder / "usb/1-4"))


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Stick]:
    """Nothing uses it."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    with loop(image) as node:
        sh("mkfs.ext4", "-q", str(node))
        made = Stick(tmp_path, node)
        assert not made.used()
        yield made
        assert not made.used()


def by_a_mount(stick: Stick, stack: ExitStack) -> None:
    stack.enter_context(mounted(stick.node, stick.folder / "a"))


def by_a_bind_mount_of_a_folder(stick: Stick, stack: ExitStack) -> None:
    """The mount itself is gone, a folder of it is still bound elsewhere."""
    with mounted(stick.node, stick.folder / "a"):
        (stick.folder / "a/inner").mkdir()
        stack.enter_context(mounted(stick.folder / "a/inner", stick.folder / "b", "--bind"))


def in_another_namespace(stick: Stick, stack: ExitStack) -> None:
    """Only a process in a private mount namespace sees it."""
    (stick.folder / "a").mkdir()
    script = f"mount {stick.node} {stick.folder}/a && echo there && exec sleep 100"
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
    inside = subprocess.Popen(argv, stdout=subprocess.PIPE, env={"PATH": PATH})
    stack.callback(inside.wait)
    stack.callback(inside.kill)
    assert inside.stdout
    stack.enter_context(inside.stdout)
    assert inside.stdout.readline() == b"there\n"
    assert str(stick.node) not in Path("/proc/self/mountinfo").read_text()


def by_swap(stick: Stick, stack: ExitStack) -> None:
    sh("mkswap", "-f", str(stick.node))
    sh("swapon", str(stick.node))
    stack.callback(sh, "swapoff", str(stick.node))


def under_a_loop_device(stick: Stick, stack: ExitStack) -> None:
    stack.enter_context(loop(stick.node))


@pytest.mark.parametrize(
    "use", [by_a_mount, by_a_bind_mount_of_a_folder, in_another_namespace, by_swap, under_a_loop_device]
)
def test_in_use(stick: Stick, use: Callable[[Stick, ExitStack], None]) -> None:
    with ExitStack() as stack:
        use(stick, stack)
        assert stick.used()
