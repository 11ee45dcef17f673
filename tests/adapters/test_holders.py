"""Who holds a USB device's nodes: an invented /proc and sysfs, and a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.core.make import device

from xenplug.adapters.holders import Held, Holders, service_of
from xenplug.core.doctor.facts import Holder, Manager

STICK = device("1-4", 7)
HUB_CHILD = device("1-4.2", 9)
NODES = {
    "1-4/1-4:1.0/ttyUSB0/tty/ttyUSB0": "ttyUSB0",
    "1-4/1-4:1.0/host6/target6:0:0/6:0:0:0/block/sdz": "sdz",
    "1-4/1-4:1.0/host6/target6:0:0/6:0:0:0/block/sdz/sdz1": "sdz1",
    "1-4/1-4:1.1/0003:046D:C016.0001/hidraw/hidraw3": "hidraw3",
    "1-4/1-4:1.1/input/input5/event5": "input/event5",
    "1-4/1-4:1.2/video4linux/video0": "video0",
    "1-4/1-4:1.2/sound/card1/pcmC1D0p": "snd/pcmC1D0p",
    "1-4/1-4.2/1-4.2:1.0/tty/ttyACM9": "ttyACM9",  # of a device behind the hub
}


class Host:
    """A /proc and a sysfs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.sys, self.proc = folder / "sys", folder / "proc"
        self.proc.mkdir()
        real = self.sys / "devices/pci0000:00/usb1"
        for path, name in NODES.items():
            (real / path).mkdir(parents=True)
            (real / path / "uevent").write_text(f"MAJOR=1\nDEVNAME={name}\n")
        (self.sys / "bus/usb/devices").mkdir(parents=True)
        for port, place in (("1-4", "1-4"), ("1-4.2", "1-4/1-4.2")):
            (self.sys / "bus/usb/devices" / port).symlink_to(real / place)

    def process(self, pid: int, comm: str, *opened: str, cgroup: str = "", cmdline: str = "") -> None:
        fds = self.proc / str(pid) / "fd"
        fds.mkdir(parents=True)
        for number, target in enumerate(("/dev/null", "socket:[12]", *opened)):
            (fds / str(number)).symlink_to(target)
        for name, text in (("comm", f"{comm}\n"), ("cgroup", cgroup), ("cmdline", cmdline.replace(" ", "\0"))):
            (self.proc / str(pid) / name).write_text(text)

    def of(self, *devices: object, most: int = 1000, models: tuple[int, ...] = ()) -> Held:
        return Holders(self.sys, self.proc, "/dev", most).of(devices or (STICK, HUB_CHILD), models)  # type: ignore[arg-type]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("name", ["bus/usb/001/007", *list(NODES.values())[:-1]])
def test_every_kind_of_node(host: Host, name: str) -> None:
    host.process(812, "brltty", f"/dev/{name}", cgroup="0::/system.slice/brltty.service\n")
    held = Holder(STICK.port, (f"/dev/{name}",), 812, "brltty", "brltty.service", Manager.SYSTEMD)
    assert host.of() == Held((held,))


def test_the_device_behind_a_hub_is_not_the_hub(host: Host) -> None:
    host.process(5, "gpsd", "/dev/ttyACM9", "/dev/bus/usb/001/009", "/dev/bus/usb/001/007")
    assert {held.device: held.nodes for held in host.of().holders} == {
        HUB_CHILD.port: ("/dev/bus/usb/001/009", "/dev/ttyACM9"),
        STICK.port: ("/dev/bus/usb/001/007",),
    }
    assert host.of(device("1-9", 8)) == Held()


def test_what_is_no_service_of_dom0(host: Host) -> None:
    node = "/dev/bus/usb/001/007"
    host.process(4001, "qemu-system-i38", node, cmdline="/usr/libexec/xen-qemu-system-i386 -xen-domid 3 -nographic")
    host.process(4002, "whatever", node)
    host.process(4003, "late", f"{node} (deleted)")
    host.process(os.getpid(), "xenplug", node)
    assert host.of(models=(4002,)) == Held()
    host.process(4004, "qemu-system-x86", node, cmdline="qemu-system-x86_64 -device usb-host")
    assert [held.pid for held in host.of(models=(4002,)).holders] == [4004]


def test_hostile_names_and_numbers(host: Host) -> None:
    host.process(7, "\x1b[2J\nx" * 40, "/dev/ttyUSB0", cgroup="0::/user.slice/user@1000.service/x;reboot.service\n")
    (found,) = host.of().holders
    assert found.command.isprintable()
    assert len(found.command) <= 80
    assert (found.service, found.manager) == ("user@1000.service", Manager.USER)
    host.process(8, "greedy", *(f"/dev/zero{n}" for n in range(50)))
    host.process(9, "later", "/dev/ttyUSB0")
    held = host.of(most=20)
    assert not held.complete
    assert [holder.pid for holder in held.holders] == [7]


@pytest.mark.parametrize(
    ("cgroup", "service", "manager"),
    [
        ("0::/system.slice/pcscd.service\n", "pcscd.service", Manager.SYSTEMD),
        ("0::/system.slice/system-gpsdctl.slice/gpsdctl@ttyACM0.service\n", "gpsdctl@ttyACM0.service", Manager.SYSTEMD),
        ("0::/system.slice/pcscd.service/worker\n", "pcscd.service", Manager.SYSTEMD),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/pipewire.service\n", "pipewire.service",
         Manager.USER),
        ("0::/user.slice/user-1000.slice/session-2.scope\n", "session-2.scope", Manager.USER),
        ("0::/system.slice/docker-abc.scope\n", "docker-abc.scope", Manager.SYSTEMD),
        ("3:cpuset:/\n1:name=systemd:/system.slice/upower.service\n0::/\n", "upower.service", Manager.SYSTEMD),
        ("1:name=openrc:/pcscd\n0::/\n", "pcscd", Manager.OPENRC),
        ("0::/openrc.brltty\n", "brltty", Manager.OPENRC),
        ("5:devices:/system.slice/x.service\n0::/\n", None, Manager.NONE),
        ("0::/init.scope\n", "init.scope", Manager.SYSTEMD),
        ("0::/system.slice/a b.service\n", None, Manager.NONE),
        ("garbage", None, Manager.NONE),
        ("", None, Manager.NONE),
    ],
)  # fmt: skip
def test_the_service_of_a_process(cgroup: str, service: str | None, manager: Manager) -> None:
    assert service_of(cgroup) == (service, manager)


def test_a_real_process(host: Host, tmp_path: Path) -> None:
    node = tmp_path / "ttyUSB0"
    node.touch()
    code = f"f = open({str(node)!r}); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        held = Holders(host.sys, Path("/proc"), str(tmp_path)).of([STICK])
        process.communicate(b"\n")
    assert [(holder.pid, holder.nodes) for holder in held.holders] == [(process.pid, (str(node),))]
