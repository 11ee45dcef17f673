"""The pci-* commands of the simulated xl, for USB host controllers (xen-facts 1.7, 5; lab 10).

Output on stderr does not mean failure: a pci-attach that succeeds still prints that the kernel cannot reset the device.
"""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

from xenplug.core.model import Bdf, GuestType
from xenplug.simulator.answers import NOT_ADDED, NOT_REMOVED, SIGSEGV, Answer, XlRefusal, error, line
from xenplug.simulator.domain import SimGuest
from xenplug.simulator.pci_backend import write_pci
from xenplug.simulator.sockets import HostController
from xenplug.simulator.toolstack import SimulatedToolstack, XlCall
from xenplug.simulator.xl_usb import no_type

SPEC = re.compile(r"(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,2}):([01]?[0-9a-f])(?:\.([0-7]))?(?:[@,].*)?\Z", re.IGNORECASE)
ADDED = "libxl_pci.c:1809:device_pci_add_done"
ASSIGN = "libxl__device_pci_assignable"


class _Named(NamedTuple):
    bdf: Bdf
    libxl: str
    """As in libxl's messages: 0:0:14.0."""


async def assignable_list(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    await host.turn()
    attached = {bdf for guest in host.guests for bdf in guest.pci}
    assignable = [
        c.bdf for c in host.guests.kernel.sockets.controllers if c.driver == "pciback" and c.bdf not in attached
    ]
    return Answer(stdout="".join(f"{bdf} \n" for bdf in assignable))


async def assignable_add(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    bdf = _named(words[-1], "pci-assignable-add: malformed BDF").bdf
    await host.turn()
    controller = host.guests.kernel.sockets.by_bdf(bdf)
    if controller is None:
        text = f"Couldn't lstat /sys/bus/pci/devices/{bdf}: No such file or directory"
        raise XlRefusal(error(f"libxl_pci.c:792:{ASSIGN}_add", text))
    said = ""
    if controller.driver == "pciback":
        said = line("warning", f"libxl_pci.c:802:{ASSIGN}_add", f"{bdf} already assigned to pciback")
    else:
        host.guests.tree.write(_memory(bdf), f"/sys/bus/pci/drivers/{controller.driver}")
        host.guests.kernel.drive(controller, "pciback")
    if not host.facts.iommu:  # and pciback keeps it (lab 10)
        raise XlRefusal(said + error(f"libxl_pci.c:848:{ASSIGN}_add", f"failed to quarantine {bdf}"))
    return Answer(stderr=said)


async def assignable_remove(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    bdf = _named(words[-1], "pci-assignable-remove: malformed BDF").bdf
    await host.turn()
    controller = host.guests.kernel.sockets.by_bdf(bdf)
    attached = any(bdf in guest.pci for guest in host.guests)
    if controller is None or controller.driver != "pciback" or attached or not host.facts.iommu:
        raise XlRefusal(error(f"libxl_pci.c:906:{ASSIGN}_remove", f"failed to de-quarantine {bdf}"))
    return Answer(stderr=_rebind(host, controller, bdf, "-r" in words))


def _rebind(host: SimulatedToolstack, controller: HostController, bdf: Bdf, wanted: bool) -> str:
    path = host.guests.tree.read(_memory(bdf))
    host.guests.tree.remove(f"/libxl/pci/{_folder(bdf)}")
    if not wanted or path is None:
        host.guests.kernel.drive(controller, None)
        lost = f"libxl_pci.c:933:{ASSIGN}_remove"
        return line("warning", lost, "Couldn't find path for original driver; not rebinding") if wanted else ""
    host.guests.kernel.drive(controller, path.rpartition("/")[2])
    return line("info", f"libxl_pci.c:925:{ASSIGN}_remove", f"Rebinding to driver at {path}")


async def attach(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    domid, named = host.find(words[0]), _named(words[1], "pci-attach: malformed PCI_SPEC_STRING")
    await host.turn()
    guest = host.guests.of(domid)
    controller = host.guests.kernel.sockets.by_bdf(named.bdf)
    attached = any(named.bdf in other.pci for other in host.guests)
    nobody = "" if guest else no_type(domid)
    if controller is None or controller.driver != "pciback" or attached:
        text = f"PCI device {named.libxl} is not assignable"
        raise _not_added(domid, named, nobody + error("libxl_pci.c:1677:libxl__device_pci_add", text, domid))
    said = _reset(named.bdf)
    if guest is None:
        raise _not_added(domid, named, nobody + said + 2 * nobody)
    problem = _unable(host, guest, named)
    if problem:
        raise _not_added(domid, named, problem)
    guest.pci.append(named.bdf)
    write_pci(host.guests.tree, domid, guest.pci)
    return Answer(stderr=said)


def _unable(host: SimulatedToolstack, guest: SimGuest, named: _Named) -> str:
    """Why Xen does not assign it. Without passthrough="enabled" the message wrongly names the IOMMU (xen-facts T39)."""
    if guest.config.type is GuestType.PVH:
        text = "passthrough not yet supported for x86 PVH guests"
        return error("libxl_x86.c:851:libxl__arch_passthrough_mode_setdefault", text, guest.domid)
    if host.facts.iommu and guest.config.passthrough:
        return ""
    if guest.config.type is GuestType.HVM:
        text = f"PCI device {named.libxl} cannot be assigned - no IOMMU?"
        return error("libxl_pci.c:1651:libxl__device_pci_add", text, guest.domid)
    text = "xc_assign_device failed: Operation not supported"
    return _reset(named.bdf) + error("libxl_pci.c:1529:pci_add_dm_done", text, guest.domid)


def _not_added(domid: int, named: _Named, said: str) -> XlRefusal:
    text = f"libxl__device_pci_add failed for PCI device {named.libxl} (rc -3)"
    return XlRefusal(said + error(ADDED, text, domid) + NOT_ADDED)


async def detach(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    plain = [word for word in words if not word.startswith("-")]
    domid, bdf = host.find(plain[0]), _named(plain[1], "pci-detach: malformed PCI_SPEC_STRING").bdf
    await host.turn()
    guest = host.guests.of(domid)
    if guest is None and "-f" in words:  # exit 0: libxl has nothing left to do (seen with 4.17)
        return Answer(stderr=no_type(domid) + _reset(bdf))
    if guest is None or bdf not in guest.pci:
        raise XlRefusal(("" if guest else no_type(domid)) + NOT_REMOVED)
    await asyncio.sleep(host.guests.times.pci_detach)
    if bdf in guest.pci:
        guest.pci.remove(bdf)
        write_pci(host.guests.tree, domid, guest.pci)
    return Answer(stderr=_reset(bdf))


async def list_devices(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    domid = host.find(words[0])
    await host.turn()
    guest = host.guests.of(domid)
    rows = [f"{number:02x}.0 {bdf}\n" for number, bdf in enumerate(guest.pci if guest else [])]
    return Answer(stdout="Vdev Device\n" + "".join(rows) if rows else "")


def _named(text: str, complaint: str) -> _Named:
    found = SPEC.match(text)
    if not found:
        raise XlRefusal(f'{complaint} "{text}"\n', code=2)
    if found[4] is None:
        raise XlRefusal("", code=None, signal=SIGSEGV)  # xen-facts T40
    domain, bus, device, function = (int(part or "0", 16) for part in found.groups())
    return _Named(Bdf(f"{domain:04x}:{bus:02x}:{device:02x}.{function}"), f"{domain:x}:{bus:x}:{device:x}.{function}")


def _reset(bdf: Bdf) -> str:
    text = f"The kernel doesn't support reset from sysfs for PCI device {bdf}"
    return error("libxl_pci.c:1573:libxl__device_pci_reset", text)


def _folder(bdf: Bdf) -> str:
    return re.sub("[:.]", "-", bdf)


def _memory(bdf: Bdf) -> str:
    """The node where libxl stores the device's earlier driver."""
    return f"/libxl/pci/{_folder(bdf)}/driver_path"
