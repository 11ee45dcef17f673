"""os-release and the service manager of a host, read below a root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xenplug.adapters.host_system import MAX_RELEASE_BYTES, read_host_system
from xenplug.core.host_system import Family, HostSystem, Services


def write(root: Path, path: str, text: str = "") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_etc_comes_before_usr_lib(tmp_path: Path) -> None:
    assert read_host_system(tmp_path) == HostSystem()
    write(tmp_path, "usr/lib/os-release", "ID=fedora\n")
    assert read_host_system(tmp_path).family is Family.FEDORA
    write(tmp_path, "etc/os-release", "ID=alpine\n")
    assert read_host_system(tmp_path) == HostSystem(Family.ALPINE, Services.OPENRC)


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/os-release", "ID=arch\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("../usr/lib/os-release")
    assert read_host_system(tmp_path).family is Family.ARCH


@pytest.mark.parametrize(("folder", "services"), [
    ("run/systemd/system", Services.SYSTEMD), ("run/openrc", Services.OPENRC),
])  # fmt: skip
def test_the_service_manager_that_runs(tmp_path: Path, folder: str, services: Services) -> None:
    (tmp_path / folder).mkdir(parents=True)
    assert read_host_system(tmp_path) == HostSystem(Family.UNKNOWN, services)


def test_what_is_no_such_file_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/os-release")
    assert read_host_system(tmp_path) == HostSystem()
    (tmp_path / "etc/os-release").unlink()
    write(tmp_path, "etc/os-release", "ID=debian\n" + "#" * MAX_RELEASE_BYTES)
    assert read_host_system(tmp_path) == HostSystem()
    (tmp_path / "etc/os-release").write_bytes(b"\xff\xfe\nID=suse\n")
    assert read_host_system(tmp_path).family is Family.SUSE
