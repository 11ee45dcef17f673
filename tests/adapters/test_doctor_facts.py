"""The doctor's facts: a host's files below a test root, and the simulated xl and xenstore."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from xenplug.adapters import doctor_facts
from xenplug.adapters import host_files as tree_
from xenplug.adapters.doctor_facts import DoctorBackends
from xenplug.adapters.host_files import HostFiles
from xenplug.cli.main import main
from xenplug.core.doctor.checks import examine
from xenplug.core.doctor.facts import Facts
from xenplug.core.doctor.toolstack import usb_host
from xenplug.core.host_system import Family, HostSystem
from xenplug.core.model import ControllerType, GuestType
from xenplug.core.policy.load import load
from xenplug.core.policy.rules import ControllerSpec
from xenplug.core.protocols import Result
from xenplug.core.settings import Settings
from xenplug.simulator.domain import GuestConfig
from xenplug.simulator.loop import run
from xenplug.simulator.toolstack import HostFacts
from xenplug.simulator.world import World

POLICY = "version: 1\nrules:\n  - {name: mice, match: {kind: mouse}, attach: [kiosk, win11]}\n"
FILES = {
    "/proc/xen/capabilities": "control_d\n",
    "/etc/xen/kiosk.cfg": 'name="kiosk"\ntype="pv"\n',
    "/etc/xen/xl.conf": 'autoballoon="auto"\n',
    "/srv/desk.cfg": 'name="desk"\nusbdev=["hostbus=1,hostaddr=4"]\n',
    "/etc/udev/rules.d/90-usb.rules": 'ACTION=="add", RUN+="/usr/sbin/xl usbdev-attach kiosk hostbus=1 hostaddr=2"\n',
    "/etc/udev/rules.d/37-xenplug-guests.rules": "# xl usbdev-attach is not run here\n",
    "/etc/udev/rules.d/72-xenplug-guests.rules": "# of an earlier version\n",
    "/usr/lib/udev/rules.d/92-xenplug.rules": "",
    "/etc/group": "root:x:0:\n",
    "/etc/xenplug/policies.d/10.yaml": POLICY,
    "/usr/libexec/xen-qemu-system-i386": "",
    "/usr/bin/qubesd": "",
}


@pytest.fixture
def tree(tmp_path):
    for path, text in FILES.items():
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "etc/xen/auto").mkdir()
    (tmp_path / "etc/xen/auto/desk").symlink_to("/srv/desk.cfg")
    (tmp_path / "etc/xenplug/policies.d/10.yaml").chmod(0o666)
    (tmp_path / "sys/bus/pci/drivers/pciback").mkdir(parents=True)
    return HostFiles(tmp_path)


def test_configurations(tree):
    found = tree_.configs(tree)
    assert [(c.file, c.starts_at_boot) for c in found] == [("/etc/xen/kiosk.cfg", False), ("/srv/desk.cfg", True)]
    assert found[1].settings["usbdev"].value == ("hostbus=1,hostaddr=4",)
    assert tree_.configs(HostFiles(tree.root / "nowhere")) == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_configurations_that_may_not_be_read(tree):
    (tree.root / "etc/xen").chmod(0)
    assert tree_.configs(tree) is None


def test_others(tree):
    assert doctor_facts.others(tree) == {
        "/usr/bin/qubesd": "Qubes attaches USB devices with its own tools",
        "/etc/udev/rules.d/90-usb.rules": "runs `xl usbdev-attach`",
    }


def test_install(tree):
    found = doctor_facts.install(tree, Settings(), Path("/etc/xenplug/policies.d"))
    assert (found.unit, found.enabled, found.udev_rules, found.group) == (None, False, {"92-xenplug.rules"}, True)
    assert found.guest_rules == FILES["/etc/udev/rules.d/37-xenplug-guests.rules"]
    assert found.old_rules == ("/etc/udev/rules.d/72-xenplug-guests.rules",)
    assert all(found.packages.values())
    modes = {entry.path: entry.mode for entry in found.owned}
    assert modes["/etc/xenplug/policies.d/10.yaml"] == 0o666
    assert set(modes) == {"/etc/xenplug", "/etc/xenplug/policies.d", "/etc/xenplug/policies.d/10.yaml"}


class Commands:
    """A host whose tools answer as given, or are missing."""

    def __init__(self, **said):
        self._said = said

    async def run(self, argv, timeout):
        return self._said.get(argv[-1], Result(tuple(argv), None, error=f"{argv[0]}: no such program; install it"))


def test_no_xl_and_no_xenstored(tree):
    class Nobody:
        async def connect(self):
            raise ConnectionRefusedError(111, "Connection refused")

    hands = DoctorBackends(Commands(), Nobody(), None)
    found = asyncio.run(doctor_facts.toolstack(tree, hands, Settings(), "/run/x"))
    assert (found.dom0, found.xl, found.pciback, found.usbback, found.qemu) == (True, None, True, False, None)
    assert found.xl_error == "xl: no such program; install it"
    assert found.store_error == "Connection refused"
    assert not found.qemu_missing


def test_the_version_of_qemu():
    said = Result(("q",), 0, "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright\n")
    commands = Commands(**{"-version": said})
    assert asyncio.run(doctor_facts.qemu_version(commands, HostFiles(), "/q")) == (7, 2, 22)
    assert asyncio.run(doctor_facts.qemu_version(Commands(), HostFiles(), "/q")) is None


def test_a_simulated_host(tree):
    """Everything on the simulated host, set up wrongly: no IOMMU, a dead device model, a stale port, one without."""

    async def look():
        world = World((), HostFacts(iommu=False))
        qusb = ControllerSpec(ControllerType.QUSB, 2, 4)
        world.add_guest(GuestConfig(name="kiosk", type=GuestType.PV, controllers=(qusb,)), True)
        world.add_guest(GuestConfig(name="win11", type=GuestType.PV, controllers=()), True)
        domid = world.guests.named("kiosk").domid
        await world.store.write(f"/local/domain/0/backend/qusb/{domid}/0/port/2", "9-9")
        hands = DoctorBackends(world.commands, world.store, world.domains, alive=lambda _pid: False)
        settings = Settings()
        policy = load({"p.yaml": POLICY.replace("}, attach", "}, via: pci, attach").encode()}).policy
        return Facts(
            toolstack=await doctor_facts.toolstack(tree, hands, settings, "/run/x"),
            policy=policy,
            configs=tree_.configs(tree),
            running=(await doctor_facts.guests(hands, settings, {})).running,
            install=replace(doctor_facts.install(tree, settings, Path("/etc/xenplug")), agent="1", version="1"),
            others=doctor_facts.others(tree),
        )

    found = {check.name for check, findings in examine(run(look())) if findings}
    assert found >= {"iommu", "stale-ports", "dead-device-model", "no-device-model", "usbdev", "device-model", "others"}
    assert not found & {"dom0", "xl", "xenstored", "xen-version", "pciback", "running"}


def test_the_command(tree, capsys):
    argv = ["doctor", "--root", str(tree.root)]
    assert main([*argv, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"sound", "checks"}
    assert report["sound"] is False
    assert all(set(check) == {"name", "title", "findings"} for check in report["checks"])
    assert main(argv) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("BAD      /srv/desk.cfg:2: usbdev= prevents desk from starting") for line in lines)
    assert any("10.yaml can be written by users other than root; chmod go-w" in line for line in lines)
    assert lines[-1].endswith("checks good; --all lists them")
    assert not any(line.startswith("good") for line in lines)
    assert main([*argv, "--all"]) == 1
    assert any(line.startswith("good") for line in capsys.readouterr().out.splitlines())


OWN_QEMU = "usr/lib/xen/bin/qemu-system-i386"
SUSE_WRAPPER = '#!/bin/sh\n\nexec /usr/bin/qemu-system-i386 "$@"\n'


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"usr/bin/qemu-system-i386": "ELF"}, True),
        ({"usr/bin/qemu-system-i386": "ELF", "usr/lib64/qemu/hw-usb-host.so": ""}, False),
        ({"usr/bin/qemu-system-x86_64": "ELF", "usr/lib/qemu/hw-usb-host.so": ""}, False),
        ({OWN_QEMU: "\x7fELF"}, False),
        ({OWN_QEMU: "\x7fELF" + "x" * (1 << 19)}, False),
        ({OWN_QEMU: SUSE_WRAPPER}, True),
        ({OWN_QEMU: SUSE_WRAPPER, "usr/lib64/qemu/hw-usb-host.so": ""}, False),
        ({"usr/libexec/xen-qemu-system-i386": "\x7fELF"}, False),
        ({}, False),
    ],
    ids=["distribution", "lib64", "lib", "xen's own", "xen's own, big", "wrapper", "wrapper, module", "debian", "none"],
)
def test_a_missing_usb_host_module(tmp_path, files, wanted):
    """Xen's own QEMU has it built in; openSUSE's path of Xen's QEMU is a script that starts the distribution's."""
    for path, text in files.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    class Nobody:
        async def connect(self):
            raise ConnectionRefusedError

    hands = DoctorBackends(Commands(), Nobody(), None)
    found = asyncio.run(doctor_facts.toolstack(HostFiles(tmp_path), hands, Settings(), "/run/x"))
    facts = Facts(system=HostSystem(Family.SUSE), toolstack=found)
    assert bool(list(usb_host(facts))) is wanted


def test_the_service_of_openrc_and_of_sysv(tmp_path):
    def found():
        install = doctor_facts.install(HostFiles(tmp_path), Settings(), Path("/p"))
        return install.unit, install.enabled

    script, runlevel, sysv = (tmp_path / p for p in ("etc/init.d/xenplug", "etc/runlevels/default", "etc/rc2.d"))
    for folder in (script.parent, runlevel, sysv):
        folder.mkdir(parents=True)
    script.touch()
    assert found() == ("/etc/init.d/xenplug", False)
    (runlevel / "xenplug").touch()
    assert found() == ("/etc/init.d/xenplug", True)
    (runlevel / "xenplug").unlink()
    (sysv / "S01xenplug").touch()
    assert found() == ("/etc/init.d/xenplug", True)


@pytest.mark.parametrize("file", ["etc/default/xendomains", "etc/sysconfig/xendomains", "etc/conf.d/xendomains"])
def test_where_guests_are_saved_and_which_file_says_so(tmp_path, file):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("XENDOMAINS_SAVE=/var/lib/xen/save\n")
    tree = HostFiles(tmp_path)
    assert (doctor_facts.saved_to(tree), doctor_facts.saved_by(tree)) == ("/var/lib/xen/save", f"/{file}")


def test_the_commands_remedies_are_the_hosts_under_root(tree, capsys):
    (tree.root / "etc/os-release").write_text('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n')
    (tree.root / "usr/libexec/xen-qemu-system-i386").unlink()
    assert main(["doctor", "--root", str(tree.root), "--json"]) == 1
    out = capsys.readouterr().out
    assert "zypper install qemu-x86" in out
    assert "apt-get" not in out
