"""Which commands a host has: os-release of many distributions, and odd ones."""

from __future__ import annotations

import pytest

from xenplug.core.host_system import Family, HostSystem, Package, Services, host_system, os_release

DEBIAN = (
    'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\nHOME_URL="https://www.debian.org/"\n'
)
KNOWN = [
    (DEBIAN, "apt-get install xen-utils-common", "systemctl start xenplug"),
    ("ID=ubuntu\nID_LIKE=debian\n", "apt-get install xen-utils-common", "systemctl start xenplug"),
    ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "apt-get install xen-utils-common", "systemctl start xenplug"),
    ("ID=devuan\nID_LIKE=debian\n", "apt-get install xen-utils-common", "service xenplug start"),
    ("ID=fedora\n", "dnf install xen-runtime", "systemctl start xenplug"),
    ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install xen-runtime", "systemctl start xenplug"),
    ("NAME=Qubes\nID=qubes\n", "qubes-dom0-update xen-runtime", "systemctl start xenplug"),
    ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "zypper install xen-tools", "systemctl start xenplug"),
    ("ID='sles'\nID_LIKE='suse'\n", "zypper install xen-tools", "systemctl start xenplug"),
    ("ID=alpine\n", "apk add xen", "rc-service xenplug start"),
    ("ID=arch\n", "install xen from the AUR", "systemctl start xenplug"),
    ("ID=manjaro\nID_LIKE=arch\n", "install xen from the AUR", "systemctl start xenplug"),
]


@pytest.mark.parametrize(("release", "install", "start"), KNOWN)
def test_known_systems(release: str, install: str, start: str) -> None:
    system = host_system(release)
    assert system.install(Package.XEN_TOOLS) == install
    assert system.service("start") == start
    assert system.start_it() == f"start it with {start}"


@pytest.mark.parametrize("release", [
    None, "", "ID=nixos\n", "ID=\n", "debian", 'ID="debian\n', "# ID=debian\n", "\0", "ID=$(debian)\n", "IDX=debian\n",
    "ID_LIKE=\n", "=debian\n", "ID=gentoo\nID_LIKE=\n", "id=debian\n",
])  # fmt: skip
def test_an_unknown_system_is_told_what_is_needed(release: str | None) -> None:
    system = host_system(release)
    assert system == HostSystem()
    assert system.install(Package.XEN_TOOLS) == "install the package that has xl, Xen's command line tool"
    assert system.start_it() == system.service("start") == "start the service xenplug"
    assert system.log() == "the system log (/var/log)"


def test_a_line_counts_as_a_shell_reads_it() -> None:
    text = "# x\n\nID=one\n  NAME='a b'\nID=\"two\"\nBAD=a b\nEMPTY=\n"
    assert os_release(text) == {"ID": "two", "NAME": "a b", "EMPTY": ""}


def test_what_runs_counts_more_than_what_is_usual() -> None:
    assert host_system("ID=gentoo\n", Services.OPENRC).service("enable") == "rc-update add xenplug"
    assert host_system(DEBIAN, Services.OPENRC).service("restart") == "rc-service xenplug restart"
    assert host_system("ID=nixos\n", Services.SYSTEMD).log() == "journalctl -u xenplug"


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("services", Services)
def test_every_remedy_is_one_line(family: Family, services: Services) -> None:
    system = HostSystem(family, services)
    words = [system.install(package) for package in Package]
    words += [system.service(verb) for verb in ("start", "stop", "restart", "enable")]
    words += [system.log(), system.start_it(), system.start_xenstored(), system.make_initramfs()]
    words += [system.make_group("g"), system.make_user("u"), system.join_group("g"), system.load_at_boot("m")]
    assert all(word and word.isprintable() and word == word.strip() for word in words)
    assert ("apt" in " ".join(words)) is (family is Family.DEBIAN)
