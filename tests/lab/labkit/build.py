"""Builds what the lab boots from: kernel module -> dom0's file system -> guests' initramfs -> disk image. Each product
is named by a hash of what goes into it, so an unchanged one is never built again and a changed one always is."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labkit import kernel
from labkit.config import BUILD_DISK_GB, CACHE, IMAGE_SOURCES, KEY, LabError, check_cache
from labkit.stages import run, stage

NEEDED = {  # program -> Debian package
    "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs", "ssh": "openssh-client", "cpio": "cpio", "xz": "xz-utils", "depmod": "kmod",
    "make": "make", "gcc-12": "gcc-12", "strip": "binutils",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: the folder that holds disk.qcow2, xen, vmlinux, initrd.img and the guests' initramfs."""

    folder: Path
    key: str

    @property
    def complete(self) -> bool:
        return (self.folder / "done").exists()


def build() -> Image:
    """Builds all that is missing; returns the image. LabError says what stands in the way."""
    check_cache()
    CACHE.mkdir(parents=True, exist_ok=True)
    image = current()
    if not image.complete:
        check_root()
        check_space()
        install_packages(kernel_version())
        make_image(image, kernel_version())
        drop_old(image)
    return image


def current() -> Image:
    """The image that today's inputs lead to, built or not."""
    key = digest(kernel_version(), *sorted(IMAGE_SOURCES.iterdir()), Path(__file__), Path(kernel.__file__))
    return Image(CACHE / f"image-{key}", key)


def digest(*parts: str | Path) -> str:
    """A short hash over texts and the contents of files."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part.name.encode() + b"\0" + part.read_bytes())
        total.update(b"\0")
    return total.hexdigest()[:12]


def kernel_version() -> str:
    """The newest 6.1 kernel that this machine's Debian sources offer, or the one an earlier build took.

    The choice is kept in the cache so that a point release in the archive does not rebuild the lab unasked.
    """
    chosen = CACHE / "kernel-version"
    if chosen.exists():
        return chosen.read_text().strip()
    found = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True).stdout
    match = re.search(r"Depends: linux-image-(6\.1\.\S+)", found)
    if match is None:
        raise LabError("apt knows no 6.1 kernel (linux-image-amd64); the lab needs Debian 12, after `apt-get update`")
    chosen.parent.mkdir(parents=True, exist_ok=True)
    chosen.write_text(match[1] + "\n")
    return match[1]


def check_root() -> None:
    if os.geteuid() != 0:
        raise LabError("building needs root (mmdebstrap --mode=root); run `sudo -E tests/lab/lab build`")


def check_space() -> None:
    free = shutil.disk_usage(CACHE).free / 1e9
    if free < BUILD_DISK_GB:
        raise LabError(f"{CACHE} has {free:.1f} GB free, {BUILD_DISK_GB} are needed; set XENPLUG_LAB_CACHE elsewhere")


def install_packages(kver: str) -> None:
    """Installs the Debian packages the build and the emulator need, if any is missing."""
    missing = {package for program, package in NEEDED.items() if not shutil.which(program)}
    if not Path(f"/lib/modules/{kver}/build").exists():
        missing.add(f"linux-headers-{kver}")
    if not Path("/usr/src/linux-source-6.1.tar.xz").exists():
        missing.add("linux-source-6.1")
    if not missing:
        return
    with stage(f"installing {' '.join(sorted(missing))}"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "install", "-y", "--no-install-recommends", *sorted(missing)], "build", env)


def make_image(image: Image, kver: str) -> None:
    """Everything that goes into the folder of `image`."""
    make_key()
    modules = make_modules(kver)
    root = make_root(kver)
    shutil.rmtree(image.folder, ignore_errors=True)
    image.folder.mkdir()
    with stage("guests' initramfs"):
        run([IMAGE_SOURCES / "initramfs.sh", root, kver, modules, image.folder / "guest-initrd"], "build")
    with stage("kernels"):
        extract_kernels(image.folder, root, kver)
    with stage("disk image"):
        pack(image.folder, root)
    (image.folder / "done").touch()


def make_key() -> None:
    if not KEY.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "xenplug-lab", "-f", KEY], "build")


def make_modules(kver: str) -> Path:
    """The folder with xen-hcd.ko."""
    script = IMAGE_SOURCES / "modules.sh"
    folder = CACHE / f"modules-{digest(kver, script)}"
    if not (folder / "xen-hcd.ko").exists():
        with stage("kernel module xen-hcd"):
            run([script, kver, folder], "build")
    return folder


def make_root(kver: str) -> Path:
    """dom0's file system, kept unpacked so that a change of the guests alone does not fetch Debian again."""
    script, packages = IMAGE_SOURCES / "rootfs.sh", IMAGE_SOURCES / "packages.txt"
    folder = CACHE / f"rootfs-{digest(kver, script, packages, KEY.with_suffix('.pub'))}"
    done = folder.with_name(folder.name + ".done")
    if not done.exists():
        with stage("dom0 (Debian 12, mmdebstrap)"):
            shutil.rmtree(folder, ignore_errors=True)
            run([script, folder, kver, packages, KEY.with_suffix(".pub")], "build")
        done.touch()
    return folder


def extract_kernels(folder: Path, root: Path, kver: str) -> None:
    """xen, dom0's kernel and initrd for the emulator; the same kernel in dom0's /guest for the guests."""
    hypervisor = max((root / "boot").glob("xen-4.*-amd64.gz"))
    (folder / "xen").write_bytes(subprocess.run(["zcat", hypervisor], capture_output=True, check=True).stdout)
    shutil.copy(root / "boot" / f"initrd.img-{kver}", folder / "initrd.img")
    kernel.extract(root / "boot" / f"vmlinuz-{kver}", folder / "vmlinux")
    (root / "guest").mkdir(exist_ok=True)
    shutil.copy(folder / "vmlinux", root / "guest" / "vmlinux")
    shutil.copy(folder / "guest-initrd", root / "guest" / "initrd")


def pack(folder: Path, root: Path) -> None:
    """dom0's file system as a qcow2 disk."""
    raw = folder / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(4 << 30)
    run(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", root, raw], "build")
    run(["qemu-img", "convert", "-O", "qcow2", raw, folder / "disk.qcow2"], "build")
    raw.unlink()


def drop_old(image: Image) -> None:
    """Removes images and file systems of earlier inputs; the running machine's is held open by it and outlives this."""
    keep = newest(CACHE.glob("rootfs-*.done"))
    for path in CACHE.glob("image-*"):
        if path != image.folder:
            shutil.rmtree(path)
    for done in CACHE.glob("rootfs-*.done"):
        if done != keep:
            shutil.rmtree(done.with_suffix(""), ignore_errors=True)
            done.unlink()


def newest(paths: Iterable[Path]) -> Path | None:
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)
