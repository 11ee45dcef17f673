"""The real xenstored and the real xl in a scratch folder, on a machine without Xen.

    toolstack = BenchToolstack(Path("/tmp/x"), sysfs=testbed.root / "sys"); toolstack.start()
    toolstack.add_domain(5, "kiosk", "pvh"); toolstack.xl("usbctrl-attach", "kiosk", "type=qusb")

For the agent: the setting toolstack.xl is `xl_path`, its environment gets `environment()`, paths.xen_lib is `xen_lib`.
paths.proc stays /proc: device models are real processes. One xl call takes about 8 ms.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from .domains import Domain, GuestKind, nodes, trees, userdata, write_domains, write_userdata
from .shims import build
from .xswire import INTRODUCE, Xenstore

XEN_BIN = Path("/usr/lib/xen-4.17/bin")
FOLDERS = ("run", "var/lib/xen", "var/run/xen", "var/lock", "run/lock", "etc/xen", "proc/xen")
DOM0 = Domain(0, "Domain-0", "pv", "00000000-0000-0000-0000-000000000000")
SOCKET_LIMIT = 70
"""Longest scratch path: UNIX socket names end at 108 characters."""


@dataclass(frozen=True, slots=True)
class XlCall:
    """A call of the agent's xl: CLOCK_MONOTONIC seconds at the start of the process, and its arguments."""

    time: float
    pid: int
    argv: tuple[str, ...]


class BenchToolstack:
    """xenstored, xl and the domains of one scratch folder. One xenstored per instance; stop() ends it."""

    def __init__(self, scratch: Path, sysfs: Path | None = None) -> None:
        if len(str(scratch)) > SOCKET_LIMIT:
            raise ValueError(f"{scratch}: too long for the sockets below it; use a shorter scratch path")
        self.scratch = scratch
        self.xl_path = scratch / "xl"
        self.xen_lib = scratch / "var/lib/xen"
        self.qmp_folder = scratch / "var/run/xen"
        self.socket = scratch / "run/socket"
        self.domains: dict[int, Domain] = {0: DOM0}
        self._xenstored: subprocess.Popen[bytes] | None = None
        self._store: Xenstore | None = None
        self._turn = threading.RLock()
        self._lay_out(sysfs)

    def _lay_out(self, sysfs: Path | None) -> None:
        for folder in FOLDERS:
            (self.scratch / folder).mkdir(parents=True, exist_ok=True)
        if sysfs is not None:
            (self.scratch / "sys").symlink_to(sysfs)
        else:
            (self.scratch / "sys/bus/usb/devices").mkdir(parents=True)
        (self.scratch / "proc/xen/xsd_port").write_text("1")
        (self.scratch / "proc/xen/xsd_kva").write_bytes(bytes(4096))
        (self.scratch / "etc/xen/xl.conf").touch()
        os.mkfifo(self.scratch / "run/virq")
        shutil.copy2(build("xl_wrapper"), self.xl_path)  # a copy: it finds its scratch folder by its own path
        wrapper = {"XL": str(XEN_BIN / "xl"), "LD_PRELOAD": str(build("xl_shim")), **self._shim_environment()}
        (self.scratch / "xl-env").write_text("".join(f"{key}={value}\n" for key, value in wrapper.items()))
        (self.scratch / "xl-calls.log").touch()
        self._write_domains()

    def _shim_environment(self) -> dict[str, str]:
        return {
            "XENPLUG_BENCH_ROOT": str(self.scratch),
            "XENPLUG_BENCH_DOMAINS": str(self.scratch / "doms.txt"),
            **self.environment(),
        }

    def environment(self) -> dict[str, str]:
        """What the agent needs to find this xenstored (libxenstore knows the variable too)."""
        return {"XENSTORED_PATH": str(self.socket)}

    # ---- xenstored -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start xenstored; returns when it answers. Also after stop(), then with an empty store."""
        run = str(self.scratch / "run")
        environment = {
            **os.environ,
            **self._shim_environment(),
            "LD_PRELOAD": str(build("xenstored_shim")),
            "XENSTORED_RUNDIR": run,
            "XENSTORED_ROOTDIR": run,
        }
        self.socket.unlink(missing_ok=True)
        with (self.scratch / "xenstored.log").open("ab") as log:
            self._xenstored = subprocess.Popen(
                [XEN_BIN / "xenstored", "-N", "-I"], env=environment, stdout=log, stderr=log
            )
        self._store = self._connect()
        self.store.write("/local/domain/0/name", DOM0.name)
        self.store.write("/local/domain/0/domid", "0")

    def _connect(self, patience: float = 5.0) -> Xenstore:
        deadline = time.monotonic() + patience
        while True:
            try:
                return Xenstore(self.socket)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)

    def stop(self) -> None:
        """End xenstored; every client sees its connection close."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._xenstored is not None:
            self._xenstored.kill()
            self._xenstored.wait()
            self._xenstored = None

    @property
    def store(self) -> Xenstore:
        """The bench's own connection. Other threads open their own on `socket`; domains may come and go from any."""
        if self._store is None:
            raise RuntimeError("xenstored is not started")
        return self._store

    # ---- xl --------------------------------------------------------------------------------------------------

    def xl(self, *arguments: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run the real xl as somebody at the console: not logged, and never made to fail."""
        environment = {**os.environ, "XENPLUG_BENCH_CONSOLE": "1"}
        command = [str(self.xl_path), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)

    def calls(self, subcommand: str | None = None) -> list[XlCall]:
        """The agent's calls so far, of one subcommand or all, in order of their start."""
        found = []
        for line in (self.scratch / "xl-calls.log").read_text().splitlines():
            when, pid, *argv = line.split("\t")
            found.append(XlCall(float(when), int(pid), tuple(argv)))
        return [call for call in found if subcommand is None or call.argv[:1] == (subcommand,)]

    def misbehave(self, subcommand: str, mode: str, times: int | None = None) -> None:
        """Make the next `times` calls (None: all) of a subcommand ("*": any) fail; modes: shim/xl_wrapper.c."""
        with (self.scratch / "xl-mode").open("a") as modes:
            modes.write(f"{subcommand} {'-' if times is None else times} {mode}\n")

    def behave(self) -> None:
        """Forget every misbehave()."""
        (self.scratch / "xl-mode").unlink(missing_ok=True)

    # ---- domains ---------------------------------------------------------------------------------------------

    def add_domain(
        self,
        domid: int,
        name: str,
        kind: GuestKind,
        *,
        uuid: str | None = None,
        backend: str | None = "qusb",
        device_model_pid: int | None = None,
        introduce: bool = True,
        ready: bool = True,
    ) -> Domain:
        """A started guest: nodes, then introduced, then ready. Without `backend` it has no device model at all.

        `device_model_pid` defaults to this process, for tests that need no real holder of nodes.
        """
        domain = Domain(domid, name, kind, uuid or f"{domid:08x}-2222-3333-4444-555555555555")
        pid = None if backend is None else device_model_pid or os.getpid()
        with self._turn:
            self.domains[domid] = domain
            self._write_domains()
            with self.store.transaction():
                for path, value in nodes(domain, backend, pid).items():
                    self.store.write(path, value)
            if introduce:
                self.introduce(domid)
            if ready:
                self.make_ready(domid)
        return domain

    def introduce(self, domid: int) -> None:
        """Tell xenstored of the domain: @introduceDomain fires, IS_DOMAIN_INTRODUCED holds."""
        self.store.request(INTRODUCE, str(domid), "256", "7")

    def make_ready(self, domid: int) -> None:
        """Write the libxl-json file, before which libxl refuses every hotplug."""
        write_userdata(self.xen_lib, self.domains[domid])

    def set_flags(self, domid: int, flags: str) -> None:
        """p paused, s shut down, u suspended, d dying; xenstored hears of it as from the hypervisor (p: not at all)."""
        with self._turn:
            self.domains[domid] = replace(self.domains[domid], flags=flags)
            self._write_domains()
            self._interrupt()

    def remove_domain(self, domid: int) -> None:
        """Destroyed, in libxl's order: xenstore nodes, userdata, then the domain itself (@releaseDomain)."""
        with self._turn:
            domain = self.domains.pop(domid)
            for tree in trees(domain):
                self.store.rm(tree)
            userdata(self.xen_lib, domain).unlink(missing_ok=True)
            self._write_domains()
            self._interrupt()

    def _write_domains(self) -> None:
        write_domains(self.scratch / "doms.txt", list(self.domains.values()))

    def _interrupt(self) -> None:
        with (self.scratch / "run/virq").open("wb", buffering=0) as virq:
            virq.write(struct.pack("i", 1))

    def __enter__(self) -> BenchToolstack:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
