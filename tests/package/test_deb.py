"""The Debian package: built, clean to lintian, and installed on a plain Debian 12 in a chroot, with no pip.

Needs root, Debian's build tools and a Debian 12 tree to copy (XENPLUG_ROOTFS; by default the lab's cached one).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHED = Path.home() / ".cache/xenplug-lab"
TOOLS = ("dpkg-buildpackage", "dh", "lintian", "chroot")
COMMANDS = {
    "xenplug --version": 0,
    "head -n 1 /usr/bin/xenplug | grep -q -- -I$": 0,  # nothing is imported from PYTHONPATH or the current folder
    "xenplug devices": 0,
    "xenplug config": 0,
    "xenplug check /usr/share/doc/xenplug/examples/gaming.yaml": 0,
    "xenplug test /usr/share/doc/xenplug/examples/tests": 0,
    "xenplug check": 1,
    "xenplug status": 1,
    "test -L /etc/systemd/system/multi-user.target.wants/xenplug.service": 0,
    "test -f /lib/udev/rules.d/38-xenplug.rules": 0,
    "test -f /lib/udev/rules.d/92-xenplug.rules": 0,
    "test -f /usr/share/man/man1/xenplug.1.gz": 0,
    "test -f /usr/share/man/man5/xenplug-policy.5.gz": 0,
    "test -f /usr/share/bash-completion/completions/xenplug": 0,
    "test -f /usr/share/zsh/vendor-completions/_xenplug": 0,
    "test -f /usr/share/doc/xenplug/docs/reference/settings.md": 0,  # /etc/xenplug/xenplug.yaml names it
    "test -f /usr/share/doc/xenplug/SECURITY.md": 0,
    'test -z "$(ls /etc/xenplug/policies.d)"': 0,
}


def rootfs() -> Path | None:
    """The Debian 12 tree to copy; None if there is none."""
    named = os.environ.get("XENPLUG_ROOTFS")
    if named:
        return Path(named)
    return next((path for path in sorted(CACHED.glob("rootfs-*")) if path.is_dir()), None)


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, TOOLS)) or rootfs() is None or "XENPLUG_PACKAGE" not in os.environ,
    reason="needs a minute, root, Debian's build tools and a Debian tree; set XENPLUG_PACKAGE=1",
)


@pytest.fixture(scope="module")
def package() -> Path:
    done = subprocess.run([ROOT / "packaging/build-deb"], capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def inside(package, tmp_path_factory):
    """Runs a shell command in a copy of the tree, with the package next to it."""
    tree = tmp_path_factory.mktemp("debian") / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(rootfs()), str(tree)], check=True)
    shutil.copy(package, tree / "root/xenplug.deb")
    for name in (tree / "etc/dpkg/dpkg.cfg.d").glob("*"):
        name.unlink()  # the lab's leaves documentation out
    (tree / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (tree / "usr/sbin/policy-rc.d").chmod(0o755)

    def run(command: str) -> subprocess.CompletedProcess[str]:
        argv = ["chroot", str(tree), "/bin/sh", "-c", command]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=200, env=env)

    yield run
    shutil.rmtree(tree.parent)


def test_it_works_on_a_plain_debian(inside):
    done = inside("dpkg -i /root/xenplug.deb")
    assert done.returncode == 0, done.stdout + done.stderr
    assert inside("command -v pip").returncode != 0
    for command, code in COMMANDS.items():
        done = inside(command)
        assert done.returncode == code, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


def test_an_upgrade_keeps_changed_files(inside):
    again = (
        "echo '# mine' >>/etc/xenplug/xenplug.yaml; echo 'version: 1' >/etc/xenplug/policies.d/10.yaml; cd /root; "
        "dpkg-deb -R xenplug.deb x && sed -i 's/^Version: .*/Version: 99/' x/DEBIAN/control && "
        "echo '# newer' >>x/etc/xenplug/xenplug.yaml && dpkg-deb -b x y.deb && "
        "dpkg --force-confdef --force-confold -i y.deb"
    )
    done = inside(again)
    assert done.returncode == 0, done.stdout + done.stderr
    assert inside("tail -n 1 /etc/xenplug/xenplug.yaml").stdout == "# mine\n"


def test_removal_and_purge(inside):
    assert inside("dpkg -r xenplug").returncode == 0
    assert inside("cat /etc/xenplug/policies.d/10.yaml").stdout == "version: 1\n"
    assert inside("dpkg -P xenplug").returncode == 0
    left = inside("find / -xdev -name '*xenplug*' -not -path '/root/*' -not -path '/var/log/*' -not -path '/proc/*'")
    assert left.stdout == "/etc/xenplug\n"
    assert inside("find /etc/xenplug -type f").stdout == "/etc/xenplug/policies.d/10.yaml\n"
