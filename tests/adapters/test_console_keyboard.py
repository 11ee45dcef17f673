"""dom0's console, and whether anything but USB can serve it."""

from pathlib import Path

import pytest
from tests.adapters.usbtree import Tree

from xenplug.adapters.console_keyboard import console_needs_usb

FULL = "402000007 ff803078f800d001 feffffdfffefffff fffffffffffffffe\n"
BUTTON = "10000000000000 0\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A dom0 with a virtual terminal, a power button, and a keyboard on USB."""
    tree = Tree(tmp_path)
    tree.write("sys/class/tty/console/active", "hvc0 tty0\n")
    give(tree, 0, "/devices/LNXSYSTM:00/LNXPWRBN:00", BUTTON)
    give(tree, 5, "/devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0/0003:046D:C31C.0001", FULL)
    give(tree, 6, "/devices/virtual", FULL)
    return tree


def give(tree: Tree, number: int, path: str, keys: str) -> None:
    tree.write(f"sys{path}/input/input{number}/capabilities/key", keys)
    tree.link(f"sys/class/input/input{number}", f"/sys{path}/input/input{number}")


def test_a_console_and_usb_keyboards_only(tree: Tree) -> None:
    assert console_needs_usb(tree.sys)


def test_a_built_in_keyboard(tree: Tree) -> None:
    give(tree, 3, "/devices/platform/i8042/serio0", FULL)
    assert not console_needs_usb(tree.sys)


@pytest.mark.parametrize("keys", ["", "x y", "fffffffe", "0 fffffffe", "7fffffe"])
def test_odd_bitmaps(tree: Tree, keys: str) -> None:
    give(tree, 3, "/devices/platform/i8042/serio0", keys)
    assert console_needs_usb(tree.sys) is not keys.endswith("fffffffe")


def test_no_console(tree: Tree) -> None:
    tree.write("sys/class/tty/console/active", "hvc0 ttyS0\n")
    assert not console_needs_usb(tree.sys)
    tree.write("sys/class/drm/card0-HDMI-A-1/status", "disconnected\n")
    assert not console_needs_usb(tree.sys)
    tree.write("sys/class/drm/card0-DP-1/status", "connected\n")
    assert console_needs_usb(tree.sys)


def test_nothing_there(tmp_path: Path) -> None:
    assert not console_needs_usb(tmp_path)
