"""Commands in dom0, over one shared ssh connection (a new one per command costs a second under emulation)."""

import shlex
import subprocess
import time
from pathlib import Path

from labkit.config import KEY, RUN, LabError
from labkit.machine import Machine

Done = subprocess.CompletedProcess[str]


def ssh_words(machine: Machine, *options: str) -> list[str]:
    """ssh with all its options and the host."""
    fixed = {
        "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "LogLevel": "ERROR", "ConnectTimeout": "10",
        "ControlMaster": "auto", "ControlPath": RUN / "ssh.master", "ControlPersist": "600", "BatchMode": "yes",
    }  # fmt: skip
    words = [word for key, value in fixed.items() for word in ("-o", f"{key}={value}")]
    return ["ssh", "-i", str(KEY), "-p", str(machine.ssh_port), *words, *options, "root@127.0.0.1"]


def run(machine: Machine, command: str, timeout: float = 60, stdin: str | None = None) -> Done:
    """Runs a shell command in dom0; 255 is ssh's own failure. subprocess.TimeoutExpired after `timeout` seconds."""
    words = [*ssh_words(machine), f"exec bash -c {shlex.quote(command)}"]
    return subprocess.run(words, input=stdin or "", capture_output=True, text=True, errors="replace", timeout=timeout)


def open_master(machine: Machine, seconds: float) -> None:
    """Waits for dom0's sshd and leaves a shared connection open."""
    end = time.monotonic() + seconds
    # devnull, not a pipe: the connection stays behind and would hold a pipe open for ever
    null = subprocess.DEVNULL
    while subprocess.run(ssh_words(machine, "-fN"), stdin=null, stdout=null, stderr=null).returncode:
        machine.check_alive()
        if time.monotonic() > end:
            raise LabError(f"dom0 does not answer ssh after {seconds:.0f} s; its console is in the log serial.log")
        time.sleep(0.5)


def close_master(machine: Machine) -> None:
    if (RUN / "ssh.master").exists():
        subprocess.run(ssh_words(machine, "-O", "exit"), capture_output=True)


def copy_in(machine: Machine, folder: Path, target: str, names: tuple[str, ...] = (".",)) -> None:
    """Copies a folder's contents, or just `names` in it, below `target` in dom0."""
    pack = ["tar", "-C", str(folder), "--exclude=__pycache__", "--owner=0", "--group=0", "-c", *names]
    packed = subprocess.run(pack, capture_output=True, check=True).stdout
    unpack = f"mkdir -p {target} && tar -C {target} -x --no-same-owner"
    done = subprocess.run([*ssh_words(machine), unpack], input=packed, capture_output=True)
    if done.returncode:
        raise LabError(f"copying {folder} to dom0:{target}: {done.stderr.decode(errors='replace').strip()}")
