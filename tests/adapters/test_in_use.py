"""Devices that dom0 uses are recognised, in all ways of use; devices that it only has are not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.adapters.usbtree import STICK, Tree

from xenplug.adapters.in_use import InUse, Needs, default_routes, kernel_nodes
from xenplug.core.model import Interface, Use

DISK = "host6/target6:0:0/6:0:0:0/block/sdb"
MOUNT = "36 35 8:17 / /mnt rw,noatime shared:1 - ext4 /dev/sdb1 rw\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A host with a stick, sdb with one partition, and an Ethernet adapter, eth9."""
    tree = Tree(tmp_path)
    disk = f"{tree.plug('1-4', 2, [STICK], 'usb-storage')}/1-4:1.0/{DISK}"
    tree.write(f"{disk}/dev", "8:16\n")
    tree.write(f"{disk}/sdb1/dev", "8:17\n")
    tree.write(f"{disk}/sdb1/partition", "1\n")
    net = tree.plug("1-5", 3, [Interface(2, 6, 0)], "cdc_ether")
    (tree.root / net / "1-5:1.0/net/eth9").mkdir(parents=True)
    tree.write("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\nodd line\n")
    tree.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
    tree.write("proc/net/route", "Iface\tDestination\tGateway\nlan0\t00000000\t0101A8C0\t3\t0\t0\t0\t00000000\n")
    return tree


def uses(tree: Tree, port: str = "1-4") -> set[str]:
    return {str(use) for use in InUse(tree.root).of(str(tree.bus / port))}


def test_kernel_nodes_of_a_device(tree: Tree) -> None:
    found = kernel_nodes(str(tree.bus / "1-4"))
    assert [disk.name for disk in found.disks] == ["sdb", "sdb1"]
    assert kernel_nodes(str(tree.bus / "1-5")).nets == ("eth9",)


def holder(tree: Tree) -> None:
    tree.write(f"{tree.folder('1-4')}/1-4:1.0/{DISK}/sdb1/holders/dm-0", "")


def other_namespace(tree: Tree) -> None:
    for process in ("17", "18"):
        (tree.root / f"proc/{process}/ns").mkdir(parents=True)
        (tree.root / f"proc/{process}/ns/mnt").symlink_to("mnt:[9]")
    tree.write("proc/17/mountinfo", MOUNT)


def by_name(tree: Tree) -> None:
    tree.link("dev/disk/by-uuid/1234", "/dev/sdb1")
    tree.write("proc/self/mountinfo", "36 35 0:42 / /m\\040m rw - btrfs /dev/disk/by-uuid/1234 rw\n")


def zfs(tree: Tree) -> None:
    (tree.root / "proc/spl/kstat/zfs/tank").mkdir(parents=True)
    tree.write("run/udev/data/b8:17", "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\n")


def guest_disk(tree: Tree) -> None:
    tree.write("sys/bus/xen-backend/devices/vbd-7-51712/physical_device", "8:10\n")
    tree.write("sys/bus/xen-backend/devices/vbd-8-51712/physical_device", "\n")


def loop(tree: Tree) -> None:
    tree.write("sys/block/loop0/loop/backing_file", "/dev/sdb\n")


def device_model(tree: Tree) -> None:
    tree.write("proc/71/comm", "xen-qemu-system\n")
    (tree.root / "proc/71/fd").mkdir()
    (tree.root / "proc/71/fd/9").symlink_to("/dev/sdb1")


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda tree: tree.write("proc/self/mountinfo", MOUNT), id="mounted"),
        pytest.param(lambda tree: tree.write("proc/self/mountinfo", MOUNT.replace("8:17", "8:16")), id="whole disk"),
        pytest.param(by_name, id="mounted without its number (btrfs), by another name"),
        pytest.param(other_namespace, id="mounted in another namespace"),
        pytest.param(lambda tree: tree.write("proc/swaps", "Filename\n/dev/sdb1 partition 1 0 -2\n"), id="swap"),
        pytest.param(holder, id="under dm"),
        pytest.param(lambda tree: tree.write("sys/fs/btrfs/01-02/devices/sdb1", ""), id="second disk of a btrfs"),
        pytest.param(zfs, id="ZFS"),
        pytest.param(guest_disk, id="a guest's disk"),
        pytest.param(loop, id="under a loop device"),
        pytest.param(device_model, id="a guest's disk, served by its device model"),
    ],
)
def test_storage(tree: Tree, use: Callable[[Tree], object]) -> None:
    assert uses(tree) == set()
    use(tree)
    assert uses(tree) == {"storage"}


def test_network(tree: Tree) -> None:
    assert uses(tree, "1-5") == set()
    tree.write("proc/net/route", "Iface\neth9\t00000000\t0101A8C0\t3\t0\t0\t0\t00000000\n")
    assert uses(tree, "1-5") == {"network"}


def test_a_file_named_like_a_disk_is_none(tree: Tree) -> None:
    tree.write("sys/block/loop0/loop/backing_file", "/srv/images/sdb\n")
    assert uses(tree) == set()


@pytest.mark.parametrize(
    "links",
    [
        pytest.param(["br0/lower_eth9"], id="port of a bridge"),
        pytest.param(
            ["br0/lower_bond0", "bond0/lower_vlan7", "vlan7/lower_eth9"], id="VLAN under a bond under a bridge"
        ),
        pytest.param(["eth9/upper_ovs-system"], id="port of Open vSwitch"),
        pytest.param(["br0/lower_br0", "br0/lower_eth9"], id="a circle"),
    ],
)
def test_network_under_what_has_the_route(tree: Tree, links: list[str]) -> None:
    tree.write("proc/net/route", "Iface\nbr0\t00000000\t0101A8C0\t3\t0\t0\t0\t00000000\n")
    assert uses(tree, "1-5") == set()
    for link in links:
        tree.write(f"sys/class/net/{link}", "")
    assert uses(tree, "1-5") == {"network"}


def test_ports_of_open_vswitch_do_not_count_where_the_route_has_hardware(tree: Tree) -> None:
    tree.write("proc/net/route", "Iface\nlan0\t00000000\t0101A8C0\t3\t0\t0\t0\t00000000\n")
    tree.write("sys/class/net/lan0/device/vendor", "")
    tree.write("sys/class/net/eth9/upper_ovs-system", "")
    assert uses(tree, "1-5") == set()


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "expected"),
    [
        pytest.param("eth0\t00000000\t1\t3\t0\t0\t0\t00000000\t0\t0\t0", "", ["eth0"], id="IPv4"),
        pytest.param("eth0\t0000A8C0\t0\t1\t0\t0\t0\t00FFFFFF\t0\t0\t0", "", [], id="a subnet"),
        pytest.param("", f"{'0' * 32} 00 {'0' * 32} 00 {'f' * 32} 0 0 0 3 eth1", ["eth1"], id="IPv6"),
        pytest.param("", f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} f 1 0 200200 lo", [], id="unreachable"),
        pytest.param("", f"{'0' * 32} 60 {'0' * 32} 00 {'0' * 32} f 1 0 1 eth1", [], id="IPv6 subnet"),
        pytest.param("", "", [], id="no network"),
    ],
)
def test_default_routes(ipv4: str, ipv6: str, expected: list[str]) -> None:
    assert list(default_routes(ipv4, ipv6)) == expected


@pytest.mark.parametrize("driver", [None, "usbfs", "usbhid"])
def test_nothing_below_harmless_drivers_is_read(tree: Tree, driver: str | None) -> None:
    tree.write("proc/self/mountinfo", MOUNT)
    tree.bind("1-4", 0, driver)
    assert uses(tree) == set()


def test_a_hub_is_not_in_use_by_the_devices_below_it(tree: Tree) -> None:
    tree.plug("1-6", 4, [Interface(9, 0, 0)], "odd")
    disk = f"{tree.plug('1-6.1', 5, [STICK], 'usb-storage')}/1-6.1:1.0/{DISK}"
    tree.write(f"{disk}/dev", "8:1\n")
    assert uses(tree, "1-6") == set()
    assert uses(tree, "1-6.1") == {"storage"}


def test_needs_are_asked_only_where_it_matters(tree: Tree) -> None:
    asked = []

    def needs() -> Needs:
        asked.append(1)
        return Needs(nets=frozenset({"eth9"}))

    inuse = InUse(tree.root)
    assert inuse.of(str(tree.bus / "1-9"), needs) == frozenset()
    assert not asked
    assert inuse.of(str(tree.bus / "1-5"), needs) == {Use.NETWORK}
