"""Power-on to "guests up", and back: what the commands up, save, restore, down and purge do. Flow: cli -> lifecycle ->
machine, ssh."""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from labkit import console, ssh
from labkit.build import Image, build, current, digest
from labkit.config import (
    CACHE,
    DOM0_SOURCES,
    FRONTEND_GUESTS,
    GUESTS,
    HVM_SOURCES,
    KIND,
    OF_KIND,
    PV_GUESTS,
    RUN,
    LabError,
)
from labkit.machine import Machine
from labkit.stages import stage

BOOTED, SAVED = RUN / "booted", RUN / "saved"
BOOT_SECONDS, GUEST_SECONDS = 300, 120


@contextmanager
def locked(name: str = f"lock{OF_KIND}") -> Iterator[None]:
    """One command at a time builds, boots or stops."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"another lab command works in {CACHE}; wait for it, or set XENPLUG_LAB_CACHE") from None
        yield


@contextmanager
def turn() -> Iterator[None]:
    """One suite at a time, whichever machine it needs: two emulators on two cores starve each other until libxl's own
    time limits pass. Waits for the other to end."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "turn").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with stage("another suite runs in the lab; waiting"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def state_key(image: Image) -> str:
    """Identifies the inputs of a booted or saved machine."""
    if KIND == "hvm":
        return f"{image.key} {digest(*HVM_SOURCES)}"
    sources = sorted(path for path in DOM0_SOURCES.rglob("*") if path.is_file())
    return f"{image.key} {digest(*sources)}"


def up(machine: Machine) -> None:
    """A fresh boot from the built image: dom0, then the guests."""
    image = build()
    if machine.pid is not None:
        raise LabError("the lab is up already; `lab down` first, or `lab restore` for a clean host")
    for path in (BOOTED, SAVED):
        path.unlink(missing_ok=True)
    with stage("dom0 boots"):
        machine.start(image)
        ssh.open_master(machine, BOOT_SECONDS)
        wait_for_toolstack(machine)
    set_clock(machine)
    ssh.copy_in(machine, DOM0_SOURCES / "guests", "/etc/xen")
    ssh.copy_in(machine, DOM0_SOURCES, "/usr/local/bin", ("gadget.sh", "ffs.py", "liar.py", "prepare.sh"))
    command(machine, "prepare.sh")
    for name in GUESTS:
        with stage(f"guest {name}"):
            create_guest(machine, name)
    with stage("guests boot"):
        wait_for_guests(machine)
    BOOTED.write_text(state_key(image))


def create_guest(machine: Machine, name: str) -> None:
    """xl create, tried twice: libxl's own time limits (10 s for a device model's answer) are tight under emulation."""
    create = f"xl create /etc/xen/{name}.cfg"
    command(machine, f"{create} || {{ xl destroy {name}; sleep 3; {create}; }}", 2 * GUEST_SECONDS)


def wait_for_toolstack(machine: Machine) -> None:
    ready = "xl list >/dev/null 2>&1 && systemctl is-active -q xen"
    command(machine, f"for i in $(seq 240); do {ready} && exit; sleep 0.5; done; systemctl status xen; exit 1", 180)


def wait_for_guests(machine: Machine) -> None:
    """Until every Linux guest has made its first report and the frontends are connected."""
    logs = " ".join(f'"$(cat {console.LOG.format(name)} 2>/dev/null)"' for name in PV_GUESTS)
    backends = "/local/domain/0/backend/qusb"
    states = [f"xenstore-read {backends}/$(xl domid {name})/0/state" for name in FRONTEND_GUESTS]
    ready = "".join(f' && [ "$({state})" = 4 ]' for state in states)
    up = f'up() {{ for log in {logs}; do case $log in *"XPLAB end"*) ;; *) return 1;; esac; done{ready}; }}'
    tries = f"for i in $(seq {GUEST_SECONDS}); do up && exit; sleep 1; done"
    command(machine, f"{up}; {tries}; tail -n 3 /var/log/xen/console/*; exit 1", 4 * GUEST_SECONDS)


def command(machine: Machine, text: str, timeout: float = 60) -> str:
    """A command in dom0 that must succeed."""
    done = ssh.run(machine, text, timeout)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise LabError(f"dom0: {text.split(';')[0]}: exit {done.returncode}: {said}")
    return done.stdout


def set_clock(machine: Machine) -> None:
    """dom0's clock stands where the snapshot was taken; tests compare times, so it gets ours."""
    command(machine, f"date -s @{time.time():.3f} >/dev/null")


def save(machine: Machine) -> None:
    require_up(machine)
    with stage("saving"):
        command(machine, "sync")
        machine.save()
    SAVED.write_text(BOOTED.read_text())


def restore(machine: Machine) -> None:
    """The saved state in a new emulator: nothing of the current one is left, including its devices."""
    image = current()
    if not saved(image):
        raise LabError("nothing is saved, or from other inputs than today's; `lab down`, then `lab up --save`")
    with stage("restoring"):
        stop(machine)
        machine.start(image, restore=True)
        ssh.open_master(machine, 60)
        set_clock(machine)


def saved(image: Image) -> bool:
    """Whether there is a snapshot made from the current inputs."""
    return image.complete and SAVED.exists() and SAVED.read_text() == state_key(image)


def ready(machine: Machine, boot: Callable[[Machine], None] = up) -> None:
    """The clean state, by the shortest way: restored if it is saved, else booted and saved."""
    if saved(build()):
        restore(machine)
        return
    stop(machine)
    boot(machine)
    save(machine)


def require_up(machine: Machine) -> None:
    if machine.pid is None or not BOOTED.exists():
        raise LabError("the lab is not up; `tests/lab/lab up` boots it")


def stop(machine: Machine) -> None:
    ssh.close_master(machine) if machine.pid is not None else None
    machine.stop()


def purge(machine: Machine) -> None:
    """Removes everything that the lab ever wrote."""
    stop(machine)
    for pattern in ("run*", "logs*", "image-*", "modules-*", "rootfs-*"):
        for folder in CACHE.glob(pattern):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink(missing_ok=True)
    for name in ("id_lab", "id_lab.pub", "kernel-version"):
        (CACHE / name).unlink(missing_ok=True)
