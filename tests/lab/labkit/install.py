"""Puts this checkout's xenplug into dom0 as a Debian package would: the package below dist-packages, the command, the
unit, the policies. It runs there with Debian's own pyudev, yaml and jsonschema."""

import compileall
import py_compile
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from labkit import ssh
from labkit.config import REPOSITORY, LabError
from labkit.machine import Machine
from labkit.stages import stage

DOM0_PYTHON = (3, 11)
PACKAGES = "/usr/lib/python3/dist-packages"
COMMAND = """#!/usr/bin/python3
import sys
from xenplug.cli.main import entry
sys.exit(entry())
"""


def install(machine: Machine, policies: Sequence[Path] = ()) -> None:
    """Replaces the files of an earlier install; the policies are put into /etc/xenplug/policies.d, other files there
    stay.
    """
    source = REPOSITORY / "agent" / "xenplug"
    if not (source / "cli" / "main.py").exists():
        raise LabError(f"{source} has no cli/main.py: nothing to install")
    with stage("installing xenplug in dom0"):
        must(machine, f"rm -rf {PACKAGES}/xenplug && mkdir -p /etc/xenplug/policies.d")
        copy_package(machine, source)
        put(machine, "/usr/bin/xenplug", COMMAND, "755")
        install_unit(machine)
        for path in policies:
            put_policy(machine, path.name, path.read_text())


def copy_package(machine: Machine, source: Path) -> None:
    """The package, with byte code made here if our Python is dom0's: there it takes twenty seconds."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "xenplug"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if sys.version_info[:2] == DOM0_PYTHON:
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            compileall.compile_dir(copy, stripdir=folder, prependdir=PACKAGES, quiet=1, invalidation_mode=mode)
        ssh.copy_in(machine, Path(folder), PACKAGES, ("xenplug",))


def install_unit(machine: Machine) -> None:
    """The systemd unit, if the checkout has one; not started."""
    unit = REPOSITORY / "packaging" / "xenplug.service"
    if unit.exists():
        put(machine, "/etc/systemd/system/xenplug.service", unit.read_text())
    must(machine, "systemctl daemon-reload")


def put_policy(machine: Machine, name: str, text: str) -> None:
    """Writes one policy file; those of other names stay."""
    put(machine, f"/etc/xenplug/policies.d/{name}", text)


def put(machine: Machine, path: str, text: str, mode: str = "644") -> None:
    must(machine, f"mkdir -p $(dirname {path}) && cat > {path} && chmod {mode} {path}", text)


def must(machine: Machine, text: str, stdin: str | None = None) -> None:
    done = ssh.run(machine, text, 120, stdin)
    if done.returncode:
        raise LabError(f"dom0: {text}: {done.stderr.strip()}")
