"""A host device that a device model has claimed: this process holds its node open, dom0's drivers are detached."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from .tree import Tree


@dataclass(slots=True)
class Held:
    """One usb-host object of a device model. `fd` is None while there is no device behind it."""

    busid: str
    serial: int
    number: str = ""
    fd: int | None = None
    gone: float | None = None
    """When the device was unplugged (monotonic seconds)."""
    seen: bool = True
    """The guest sees the device; not so after a re-grab (xen-facts 3.1)."""


def grab(tree: Tree, held: Held) -> bool:
    """libusb_open and detach the drivers; False if there is no such device."""
    with tree.exclusive():
        if not tree.present(held.busid):
            return False
        held.number = tree.attribute(held.busid, "devnum")
        held.fd = os.open(tree.node(held.busid), os.O_RDWR)
        tree.take(held.busid)
        return True


def drop(tree: Tree, held: Held) -> None:
    """libusb_close; a device that is still present returns to dom0's drivers."""
    if held.fd is None:
        return
    os.close(held.fd)
    held.fd = None
    with tree.exclusive():
        if still_there(tree, held):
            tree.give_back(held.busid)


def still_there(tree: Tree, held: Held) -> bool:
    """Whether the device that was opened is still plugged in, not another one at its port. During a reset it has no
    number.
    """
    return tree.present(held.busid) and tree.attribute(held.busid, "devnum") in (held.number, "0")


def note_pull(tree: Tree, held: Held) -> bool:
    """Close the node of a device that was pulled; True when this is what just happened."""
    if held.fd is None or still_there(tree, held):
        return False
    os.close(held.fd)
    held.fd, held.gone = None, time.monotonic()
    return True
