"""The lab's other machine: the same image booted without Xen, for HVM guests. A Linux inside a real HVM guest does not
boot under this emulation; here only the hypervisor is missing: real USB devices, real udev, real xl and xenstored (on
the bench's shims), and a guest that is a real qemu with a Linux inside (hvm/host.py).

Files that the image lacks are on a second disk, made from this machine's files. Flow: cli -> hvm -> lifecycle, machine.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from labkit import console, ssh
from labkit.build import Image, current
from labkit.config import DOM0_SOURCES, HVM_SOURCES, IMAGE_SOURCES, REPOSITORY, RUN, LabError
from labkit.lifecycle import BOOTED, SAVED, command, set_clock, state_key
from labkit.machine import TOOLS, Machine
from labkit.stages import run, stage

GUEST, DOMID = "win", 5
BOOT_SECONDS, GUEST_SECONDS = 300, 1500
# Debian builds this qemu and dom0's from one source; dom0's own can do without Xen nothing at all (-accel help).
EMULATOR = Path("/usr/bin/qemu-system-x86_64")
MODULES = [Path("/usr/lib/x86_64-linux-gnu/qemu") / name for name in ("accel-tcg-x86_64.so", "hw-usb-host.so")]
TOOLS_MB = 160


def up(machine: Machine) -> None:
    """A fresh boot: the machine, xenstored, the guest."""
    image = current()
    if machine.pid is not None:
        raise LabError("the machine for HVM guests is up already; `lab down` (XENPLUG_LAB_MACHINE=hvm) first")
    for path in (BOOTED, SAVED):
        path.unlink(missing_ok=True)
    RUN.mkdir(parents=True, exist_ok=True)
    with stage("disk of tools"):
        make_tools(image)
    with stage("the machine boots, without Xen"):
        machine.start(image)
        ssh.open_master(machine, BOOT_SECONDS)
    set_clock(machine)
    with stage("xenstored and xl"):
        command(machine, "mkdir -p /opt/hvm && mount -o ro /dev/vdb /opt/hvm && python3 /opt/hvm/host.py start")
    with stage(f"guest {GUEST} boots, emulated twice over (minutes)"):
        command(machine, f"python3 /opt/hvm/host.py create {GUEST} {DOMID}")
        wait_for_guest(machine)
    BOOTED.write_text(state_key(image))


def wait_for_guest(machine: Machine) -> None:
    """Until the Linux in it has made its first report."""
    log = console.LOG.format(GUEST)
    tries = f"for i in $(seq {GUEST_SECONDS}); do grep -qs 'XPLAB end' {log} && exit; sleep 1; done"
    command(machine, f"{tries}; tail -n 3 {log}; exit 1", 4 * GUEST_SECONDS)


def copy_helpers(machine: Machine) -> None:
    """dom0's small tools, in their current version."""
    names = tuple(path.name for path in DOM0_SOURCES.iterdir() if path.suffix in (".sh", ".py"))
    ssh.copy_in(machine, DOM0_SOURCES, "/usr/local/bin", names)


def make_tools(image: Image) -> None:
    """The disk: qemu with the files that dom0 lacks, the shims, the guest's kernel and initramfs, host.py."""
    folder = RUN / "tools"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("lib", "modules", "shim", "bench"):
        (folder / name).mkdir(parents=True)
    copy_emulator(folder)
    for name, path in shims().items():
        shutil.copy2(path, folder / "shim" / name)
    for path in HVM_SOURCES:
        if path.name == "host.py" or path.parent.name == "bench":
            shutil.copy2(path, folder / ("bench" if path.parent.name == "bench" else ".") / path.name)
    shutil.copy2(image.folder / "vmlinux", folder)
    (folder / "initrd").write_bytes((image.folder / "guest-initrd").read_bytes() + own_init())
    with TOOLS.open("wb") as raw:
        raw.truncate(TOOLS_MB << 20)
    run(["mke2fs", "-q", "-t", "ext4", "-d", folder, TOOLS], "build")
    shutil.rmtree(folder)


def copy_emulator(folder: Path) -> None:
    """The emulator, its modules, and all its libraries but the C library's and libusb: those are dom0's."""
    shutil.copy2(EMULATOR, folder)
    for path in MODULES:
        shutil.copy2(path, folder / "modules")
    said = subprocess.run(["ldd", EMULATOR, *MODULES], capture_output=True, text=True, check=True).stdout
    for path in {Path(line.split(" => ")[1].split()[0]) for line in said.splitlines() if " => /" in line}:
        if not path.name.startswith(("libc.", "libm.", "libusb-", "libudev.")):
            shutil.copy2(path, folder / "lib" / path.name)


def shims() -> dict[str, Path]:
    """The replacements for the hypervisor, compiled here (tests/bench/shim)."""
    if not Path("/usr/include/xenctrl.h").exists():
        run(["apt-get", "install", "-y", "--no-install-recommends", "libxen-dev", "gcc"], "build")
    sys.path.append(str(REPOSITORY / "tests"))
    from bench.shims import build  # the bench is found only from here on

    return {"xl_wrapper": build("xl_wrapper"), **{f"{name}.so": build(name) for name in ("xl_shim", "xenstored_shim")}}


def own_init() -> bytes:
    """An archive appended to the guests' initramfs that replaces their init: the console is a serial line, and there is
    no Xen.
    """
    text = (IMAGE_SOURCES / "guest-init").read_text()
    # checking twice a second takes half of this guest's CPU time
    for theirs, ours in (("/dev/hvc0", "/dev/ttyS0"), ("xen-pcifront ", ""), ("-t 0.5", "-t 2")):
        text = text.replace(theirs, ours)
    folder = RUN / "tools" / "init"
    folder.mkdir()
    (folder / "init").write_text(text)
    (folder / "init").chmod(0o755)
    pack = ["cpio", "-o", "-H", "newc", "--quiet"]
    packed = subprocess.run(pack, input=b"init\n", cwd=folder, capture_output=True, check=True).stdout
    shutil.rmtree(folder)
    return packed
