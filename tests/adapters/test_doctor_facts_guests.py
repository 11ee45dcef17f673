"""The doctor's facts about broken guests on the simulated host, and about dom0's USB side below a test root."""

from __future__ import annotations

import asyncio
import os

import pytest
from tests.adapters.usbtree import HOST
from tests.adapters.usbtree import Tree as UsbTree
from tests.simulator.host import attach, host, now, plugged, xl

from xenplug.adapters import doctor_facts
from xenplug.adapters.doctor_facts import DoctorBackends
from xenplug.adapters.host_files import HostFiles
from xenplug.core.doctor.facts import Facts, UsbFacts
from xenplug.core.doctor.running import phantom, untaken
from xenplug.core.model import Claim, Speed
from xenplug.core.settings import Paths, Settings
from xenplug.simulator.loop import run


async def seen(world):
    """What the doctor sees of the guests."""
    devices = world.kernel.devices()
    hands = DoctorBackends(world.commands, world.store, world.domains, alive=lambda _pid: True)
    found = await doctor_facts.guests(hands, Settings(), devices)
    return Facts(running=found.running, beyond=found.beyond, moving=found.moving, usb=UsbFacts(devices))


def of(facts, name):
    return next(running for running in facts.running if running.guest.name == name)


def test_a_controller_that_xl_made_in_xenstore_only():
    """T5: xl reports success, but qemu has no such bus."""

    async def look():
        world = host()
        here = await plugged(world, "1-1")
        await xl(world, "usbdev-attach", "win11", f"hostbus={here.bus}", f"hostaddr={here.number}")
        return await seen(world)

    facts = run(look())
    assert of(facts, "win11").objects == frozenset()
    assert [f.remedy.split(",")[0] for f in phantom(facts)] == ["xenstore-rm /libxl/2/device/vusb/0"]


def test_an_object_of_an_unplugged_device():
    """T21: qemu does not notice."""

    async def look():
        world = host()
        await xl(world, "usbctrl-attach", "win11", "type=devicemodel", "version=3", "ports=15")
        here = await plugged(world, "1-1")
        assert (await attach(world, here, ("win11", 0, 1))).ok
        before = await seen(world)
        world.kernel.unplug("1-1")
        await asyncio.sleep(1)
        return before, await seen(world), f"xenusb-{here.bus}-{here.number}"

    before, after, held = run(look())
    assert of(before, "win11").objects == {"xenusb-0", held}
    assert list(phantom(before)) == []
    assert [f.remedy for f in phantom(after)] == [f"xl qemu-monitor-command win11 'device_del {held}'"]


def test_a_device_that_its_controller_does_not_support():
    """T16: exit 0, and never in the guest."""

    async def look():
        world = host()
        good, fast = await plugged(world, "1-1"), await plugged(world, "2-2", Speed.SUPER)
        for number, here in enumerate((good, fast), 1):
            assert (await attach(world, here, ("kiosk", 0, number))).ok
        await asyncio.sleep(3)
        return await seen(world), now(world, "1-1").port, now(world, "2-2").port

    facts, good, fast = run(look())
    assert of(facts, "kiosk").claims == {good: Claim(True, True), fast: Claim()}
    [found] = untaken(facts)
    assert found.fact.startswith("port 2 of controller 0 of kiosk names 2-2")
    assert "does not carry its speed" in found.fact


def test_a_port_that_is_not_there_and_a_guest_on_the_move():
    async def look():
        world = host()
        await world.store.write("/local/domain/0/backend/qusb/1/0/port/9", "1-1")
        await world.store.write("/local/domain/2/name", "win11--migratedaway")
        return await seen(world)

    facts = run(look())
    assert facts.beyond == {"/local/domain/0/backend/qusb/1/0/port/9": "1-1"}
    assert facts.moving == ("win11--migratedaway",)
    assert [running.guest.name for running in facts.running] == ["kiosk"]


# --- files


def test_dom0s_usb_side(tmp_path):
    usb = UsbTree(tmp_path)
    usb.plug("1-1", 5)
    usb.link(f"sys{HOST}/driver", "/sys/bus/pci/drivers/pciback")
    usb.write(f"sys{HOST}/usb1/authorized_default", "1\n")
    usb.write(f"sys{HOST}/usb1/interface_authorized_default", "0\n")
    found = doctor_facts.usb(HostFiles(tmp_path), Settings())
    assert {port: device.kinds for port, device in found.devices.items()} == {"1-1": {"mouse"}}
    assert [(c.bdf, c.driver) for c in found.controllers] == [("0000:00:14.0", "pciback")]
    assert found.shut == ("/sys/bus/usb/devices/usb1/interface_authorized_default",)


def process(root, pid, begun, *argv):
    folder = root / f"proc/{pid}"
    folder.mkdir(parents=True)
    (folder / "cmdline").write_text("\0".join([*argv, ""]))
    rest = ["0"] * 18 + [str(int(begun * os.sysconf("SC_CLK_TCK"))), "0"]
    (folder / "stat").write_text(f"{pid} (a) b) S {' '.join(rest)}\n")


def test_calls_of_xl_that_hang(tmp_path):
    process(tmp_path, 5, 100.0, "/usr/lib/xen-4.17/bin/xl", "usbdev-attach", "kiosk", "hostbus=1")
    process(tmp_path, 6, 980.0, "xl", "usb-list", "kiosk")  # has just begun
    process(tmp_path, 7, 100.0, "/usr/sbin/xl", "create", "/etc/xen/kiosk.cfg")  # stays with its guest
    process(tmp_path, 8, 100.0, "vi", "usbdev-attach")
    process(tmp_path, 9, 100.0)  # a kernel thread
    (tmp_path / "proc/uptime").write_text("1000.25 3.0\n")
    [found] = doctor_facts.waiting(HostFiles(tmp_path), Settings())
    assert (found.pid, found.words, round(found.seconds)) == (5, "xl usbdev-attach kiosk hostbus=1", 900)


def test_this_machines_own_processes_are_read():
    assert all(
        found.seconds > doctor_facts.LONG for found in doctor_facts.waiting(HostFiles(), Settings(paths=Paths()))
    )


@pytest.mark.parametrize(("text", "where"), [
    ("XENDOMAINS_SAVE=/var/lib/xen/save\n", "/var/lib/xen/save"),
    ('# XENDOMAINS_SAVE=no\nXENDOMAINS_SAVE="/srv/save" # here\n', "/srv/save"),
    ("XENDOMAINS_SAVE=/a\nXENDOMAINS_SAVE=\n", ""),
    ('XENDOMAINS_SAVE=""\n', ""),
    ("", ""),
])  # fmt: skip
def test_where_the_init_script_saves_guests(tmp_path, text, where):
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/default/xendomains").write_text(text)
    assert doctor_facts.saved_to(HostFiles(tmp_path)) == where
