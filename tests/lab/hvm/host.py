#!/usr/bin/env python3
"""Runs inside the machine that `lab hvm` boots: Debian's real xenstored and xl without a hypervisor, and HVM guests
that consist only of their device model, a real qemu with a Linux inside. This program does the work of the hypervisor
and `xl create`: the list of domains, a guest's nodes in xenstore, starting qemu. All that follows is xl's, qemu's and
libusb's.

    host.py start                    start xenstored and xl
    host.py create NAME DOMID        a guest boots; its console is the log that the lab's other guests have, too
    host.py destroy NAME             as `xl destroy`: SIGHUP for qemu, nodes away, domain away

The tools (qemu, shims, the guest's kernel) are on a disk mounted at TOOLS, read-only; what changes is in PLACE."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TOOLS, PLACE = Path("/opt/hvm"), Path("/var/lib/hvm")
sys.path.insert(0, str(TOOLS))

from bench.domains import Domain, nodes, trees, userdata, write_domains, write_userdata  # noqa: E402
from bench.xswire import INTRODUCE, Xenstore  # noqa: E402

DOM0 = Domain(0, "Domain-0", "pv", "00000000-0000-0000-0000-000000000000")
XEN_BIN, SOCKET, XEN_LIB = Path("/usr/lib/xen-4.17/bin"), Path("/run/xenstored/socket"), Path("/var/lib/xen")
DOMAINS, VIRQ = PLACE / "doms.txt", PLACE / "run/virq"
CONSOLE = "/var/log/xen/console/guest-{}.log"
# No XSAVE or AVX, and no family 16: there the kernel falls back to a timer that costs more than all the rest.
EMULATOR = """-daemonize -accel tcg,thread=single,tb-size=128 -machine pc,usb=off,vmport=off -cpu qemu64 -smp 1 -m 160
    -display none -nodefaults -no-reboot -L /usr/share/seabios -L /usr/share/qemu"""
# The kernel tests and calibrates nothing that takes time when it is emulated twice over.
KERNEL_ARGS = """console=ttyS0 nohcd loglevel=4 mitigations=off nokaslr noreplace-smp tsc=reliable no_timer_check
    lpj=4000000 random.trust_cpu=on audit=0 nowatchdog i8042.noaux i8042.nokbd i8042.nopnp 8250.nr_uarts=1"""


def start() -> None:
    """Start xenstored and put xl first on the PATH; no guest yet."""
    for folder in (PLACE / "run", PLACE / "proc/xen", SOCKET.parent, XEN_LIB, Path(CONSOLE).parent, Path("/run/xen")):
        folder.mkdir(parents=True, exist_ok=True)
    (PLACE / "proc/xen/xsd_port").write_text("1")
    (PLACE / "proc/xen/xsd_kva").write_bytes(bytes(4096))
    os.mkfifo(VIRQ)
    # the wrapper logs every call of xl and runs the real one; it takes its environment from the folder it lies in
    shutil.copy2(TOOLS / "shim/xl_wrapper", PLACE / "xl")
    wrapper = {"XL": XEN_BIN / "xl", "LD_PRELOAD": TOOLS / "shim/xl_shim.so", "XENPLUG_BENCH_DOMAINS": DOMAINS}
    (PLACE / "xl-env").write_text("".join(f"{key}={value}\n" for key, value in wrapper.items()))
    Path("/usr/local/sbin/xl").symlink_to(PLACE / "xl")
    write_domains(DOMAINS, [DOM0])
    start_xenstored()
    store = connect()
    store.write("/local/domain/0/name", DOM0.name)
    store.write("/local/domain/0/domid", "0")


def start_xenstored() -> None:
    shim = {
        "LD_PRELOAD": str(TOOLS / "shim/xenstored_shim.so"),
        "XENPLUG_BENCH_ROOT": str(PLACE),
        "XENPLUG_BENCH_DOMAINS": str(DOMAINS),
    }
    with Path("/var/log/xen/xenstored.log").open("ab") as log:
        command = [XEN_BIN / "xenstored", "-N", "-I"]
        null = subprocess.DEVNULL
        subprocess.Popen(command, env=os.environ | shim, stdin=null, stdout=log, stderr=log, start_new_session=True)


def connect(patience: float = 30) -> Xenstore:
    """A connection to xenstored; waits until it is possible."""
    end = time.monotonic() + patience
    while True:
        try:
            return Xenstore(SOCKET)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def create(name: str, domid: int) -> None:
    """Start the guest's qemu, then write libxl's nodes and introduce the domain, as `xl create` does."""
    domain = Domain(domid, name, "hvm", f"{domid:08x}-2222-3333-4444-555555555555")
    pid = start_device_model(domain)
    write_domains(DOMAINS, [*domains(), domain])
    store = connect()
    with store.transaction():
        for path, value in nodes(domain, None, pid).items():
            store.write(path, value)
    store.request(INTRODUCE, str(domid), "256", "7")
    write_userdata(XEN_LIB, domain)


def start_device_model(domain: Domain) -> int:
    """qemu with its monitor where libxl looks for it; returns its process id once it runs."""
    console = f"path={PLACE / domain.name}.con,server=on,wait=off,logfile={CONSOLE.format(domain.name)},logappend=on"
    pid_file = PLACE / f"{domain.name}.pid"
    words = [
        *("-name", domain.name, "-pidfile", str(pid_file), "-chardev", f"socket,id=con,{console}"),
        *("-serial", "chardev:con", "-qmp", f"unix:/var/run/xen/qmp-libxl-{domain.domid},server=on,wait=off"),
        *(
            "-kernel",
            str(TOOLS / "vmlinux"),
            "-initrd",
            str(TOOLS / "initrd"),
            "-append",
            " ".join(KERNEL_ARGS.split()),
        ),
    ]
    found = {"LD_LIBRARY_PATH": str(TOOLS / "lib"), "QEMU_MODULE_DIR": str(TOOLS / "modules")}
    with Path(f"/var/log/xen/qemu-dm-{domain.name}.log").open("ab") as log:
        command = [TOOLS / "qemu-system-x86_64", *EMULATOR.split(), *words]
        subprocess.run(command, env=os.environ | found, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
    return int(pid_file.read_text())


def destroy(name: str) -> None:
    """Remove in libxl's order: device model, nodes, userdata, the domain itself (@releaseDomain)."""
    domain = next(domain for domain in domains() if domain.name == name)
    pid = int((PLACE / f"{name}.pid").read_text())
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 30)
    store = connect()
    for tree in trees(domain):
        store.rm(tree)
    userdata(XEN_LIB, domain).unlink(missing_ok=True)
    write_domains(DOMAINS, [one for one in domains() if one.domid != domain.domid])
    with VIRQ.open("wb", buffering=0) as virq:
        virq.write(struct.pack("i", 1))


def domains() -> list[Domain]:
    """Those of the file that the shims read; names come from xenstore."""
    store, found = connect(), []
    for line in DOMAINS.read_text().splitlines():
        domid, kind, uuid, *_ = line.split()
        name = store.read(f"/local/domain/{domid}/name") or ""
        found.append(Domain(int(domid), name, kind, uuid))
    return found


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"not within {seconds} s")
        time.sleep(0.1)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["start"]:
            start()
        case ["create", name, domid]:
            create(name, int(domid))
        case ["destroy", name]:
            destroy(name)
        case _:
            sys.exit(__doc__)
