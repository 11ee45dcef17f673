"""The emulated machine: one QEMU process, its sockets and its disk below the run folder. Flow: lifecycle -> Machine ->
QEMU; `devices` plugs USB devices into it through its monitor."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from labkit import qmp
from labkit.build import Image
from labkit.config import CPU, DOM0_MB, HERE, KIND, MEMORY_MB, RUN, SNAPSHOT, LabError
from labkit.stages import log_path, tail

QMP, SERIAL = RUN / "qmp.sock", RUN / "serial.sock"
PID, PORT, DISK, TOOLS = RUN / "qemu.pid", RUN / "ssh.port", RUN / "disk.qcow2", RUN / "tools.img"
XEN_ARGS = f"dom0_mem={DOM0_MB}M,max:{DOM0_MB}M com1=115200,8n1 console=com1 loglvl=info guest_loglvl=info noreboot"
LINUX_ARGS = "root=/dev/vda rw net.ifnames=0 systemd.show_status=0 loglevel=5"


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of the run folder, running or not."""

    @property
    def pid(self) -> int | None:
        """The emulator's process id, if it runs."""
        try:
            pid = int(PID.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(RUN).encode() in command else None

    @property
    def ssh_port(self) -> int:
        return int(PORT.read_text())

    def start(self, image: Image, restore: bool = False) -> None:
        """Starts the emulator, from power-on or from the saved state; returns while dom0 still boots."""
        RUN.mkdir(parents=True, exist_ok=True)
        for path in (*RUN.glob("*.sock"), *RUN.glob("ssh.master*")):
            path.unlink()
        if not restore:
            make_disk(image)
        PORT.write_text(str(free_port()))
        command = [*emulator(image, self.ssh_port), *(["-loadvm", SNAPSHOT] if restore else [])]
        with log_path("qemu").open("wb") as out:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        if done.returncode:
            raise LabError(f"the emulator does not start:\n{tail(log_path('qemu'))}")
        prefer(self.pid or 0)
        start_watchdog(self.pid or 0)

    def check_alive(self) -> None:
        if self.pid is None:
            raise LabError(f"the emulator has ended:\n{tail(log_path('qemu'))}\n{tail(log_path('serial'))}")

    def stop(self) -> None:
        """Ends the emulator at once; its disk stays."""
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 10
        while self.pid is not None:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        PID.unlink(missing_ok=True)

    def save(self) -> None:
        """Keeps memory, devices and disk as the snapshot; the machine goes on running."""
        printed = qmp.human(QMP, f"savevm {SNAPSHOT}", timeout=300)
        if printed.strip():
            raise LabError(f"savevm: {printed.strip()}")


def prefer(pid: int) -> None:
    """Gives the emulator a higher priority than other work of this machine, if that is permitted: the toolstack inside
    has its own time limits (10 s for a device model's answer), which a machine without CPU time does not meet.
    """
    try:
        Path(f"/proc/{pid}/autogroup").write_text("-8\n")
    except OSError:
        return


def start_watchdog(pid: int) -> None:
    """Starts the watchdog, which leaves this process group and ends with the emulator."""
    log_path("watchdog").unlink(missing_ok=True)  # the previous one may still write its last line
    with log_path("watchdog").open("ab") as out:
        command = [sys.executable, "-m", "labkit.watchdog", str(pid), str(SERIAL)]
        subprocess.run(command, cwd=HERE, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True)


def make_disk(image: Image) -> None:
    """A fresh disk on top of the image's; everything that earlier runs wrote is gone."""
    DISK.unlink(missing_ok=True)
    base = image.folder / "disk.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(DISK)]
    subprocess.run(command, check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def emulator(image: Image, ssh_port: int) -> list[str]:
    """QEMU's command line: no KVM; UHCI, EHCI and two xHCI controllers for devices; what the kind of machine needs."""
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        raise LabError("qemu-system-x86_64 is missing; `tests/lab/lab build` installs it")
    words = f"""
        -daemonize -pidfile {PID}
        -accel tcg,thread=multi -machine q35 -cpu {CPU} -smp 2 -display none -nodefaults -no-reboot
        -drive if=none,id=disk,file={DISK},format=qcow2,cache=unsafe -device virtio-blk-pci,drive=disk
        -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{ssh_port}-:22
        -device virtio-net-pci,netdev=net,romfile=
        -chardev socket,id=serial,path={SERIAL},server=on,wait=off,logfile={log_path("serial")} -serial chardev:serial
        -qmp unix:{QMP},server=on,wait=off
        -audiodev none,id=silence
        -device qemu-xhci,id=xhci,addr=0x8 -device usb-ehci,id=ehci,addr=0x9 -device piix3-usb-uhci,id=uhci,addr=0xa
        -device qemu-xhci,id=xhci2,addr=0xb
    """.split()
    return [program, *words, *(with_xen(image) if KIND == "xen" else without_xen(image))]


def with_xen(image: Image) -> list[str]:
    """An IOMMU, for whole controllers; Xen, with dom0's kernel and initrd as its modules."""
    modules = f"{image.folder / 'vmlinux'} console=hvc0 {LINUX_ARGS},{image.folder / 'initrd.img'}"
    words = ["-m", str(MEMORY_MB), "-device", "intel-iommu,intremap=on"]
    line = f"{XEN_ARGS} {os.environ.get('XENPLUG_LAB_XEN', '')}".strip()
    return [*words, "-kernel", str(image.folder / "xen"), "-append", line, "-initrd", modules]


def without_xen(image: Image) -> list[str]:
    """The same system on the machine itself, and a disk with what it needs for that (labkit/hvm.py)."""
    words = f"""
        -m {DOM0_MB} -drive if=none,id=tools,file={TOOLS},format=raw,readonly=on -device virtio-blk-pci,drive=tools
        -kernel {image.folder / "vmlinux"} -initrd {image.folder / "initrd.img"}
    """.split()
    return [*words, "-append", f"console=ttyS0 mitigations=off {LINUX_ARGS}"]
