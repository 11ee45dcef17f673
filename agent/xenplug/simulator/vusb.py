"""Guest controllers in xenstore, written and read as libxl does (libxl_usb.c, Xen 4.17).

The live port values of qusb and pv are in the backend's folder; the copy under /libxl is written only once. For
devicemodel there is only /libxl (xen-facts 2.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from xenplug.core.model import ControllerType
from xenplug.core.policy.rules import ControllerSpec
from xenplug.simulator.store import StoreTree

BACKEND_FOLDERS = {ControllerType.QUSB: "qusb", ControllerType.PV: "vusb"}
XENBUS_CONNECTED = "4"


@dataclass(frozen=True, slots=True)
class Vusb:
    """One guest controller in xenstore."""

    domid: int
    id: int
    type: ControllerType
    version: int
    ports: int

    @property
    def libxl(self) -> str:
        return f"{folder(self.domid)}/{self.id}"

    @property
    def backend(self) -> str:
        """The backend's folder; for devicemodel, which has none, libxl's."""
        if self.type is ControllerType.DEVICEMODEL:
            return self.libxl
        return f"/local/domain/0/backend/{BACKEND_FOLDERS[self.type]}/{self.domid}/{self.id}"

    @property
    def frontend(self) -> str:
        return f"/local/domain/{self.domid}/device/vusb/{self.id}"

    def port(self, number: int) -> str:
        """The node of a guest port's live value."""
        return f"{self.backend}/port/{number}"


def folder(domid: int) -> str:
    """The folder in which libxl lists a domain's controllers."""
    return f"/libxl/{domid}/device/vusb"


def read(tree: StoreTree, domid: int, id_: int) -> Vusb | None:
    """The controller; None if libxl does not know it."""
    base = f"{folder(domid)}/{id_}"
    type_ = tree.read(f"{base}/type")
    if type_ is None:
        return None
    version, ports = tree.read(f"{base}/usb-ver") or "0", tree.read(f"{base}/num-ports") or "0"
    return Vusb(domid, id_, ControllerType(type_), int(version), int(ports))


def all_of(tree: StoreTree, domid: int) -> list[Vusb]:
    """Every controller of the domain, in libxl's order."""
    found = (read(tree, domid, int(name)) for name in tree.directory(folder(domid)))
    return [vusb for vusb in found if vusb]


def next_id(tree: StoreTree, domid: int) -> int:
    """libxl__device_nextid."""
    return max((int(name) for name in tree.directory(folder(domid))), default=-1) + 1


def write(tree: StoreTree, domid: int, id_: int, spec: ControllerSpec) -> Vusb:
    """Create the controller's nodes."""
    vusb = Vusb(domid, id_, spec.type, spec.version, spec.ports)
    facts = {"type": spec.type.value, "usb-ver": str(spec.version), "num-ports": str(spec.ports), "port": ""}
    facts |= {f"port/{number}": "" for number in range(1, spec.ports + 1)}
    if spec.type is not ControllerType.DEVICEMODEL:
        shared = {"frontend": vusb.frontend, "frontend-id": str(domid), "online": "1", "state": "1"}
        _put(tree, vusb.frontend, {"backend": vusb.backend, "backend-id": "0", "state": "1"})
        _put(tree, vusb.backend, shared | facts)
        facts = {"frontend": vusb.frontend, "backend": vusb.backend} | shared | facts
    _put(tree, vusb.libxl, facts)
    return vusb


def empty(tree: StoreTree, vusb: Vusb) -> None:
    """Empty all its ports."""
    for number in range(1, vusb.ports + 1):
        tree.write(vusb.port(number), "")


def remove(tree: StoreTree, vusb: Vusb) -> None:
    """Remove the controller's nodes."""
    for path in (vusb.frontend, vusb.backend, vusb.libxl):
        tree.remove(path)


def _put(tree: StoreTree, base: str, values: dict[str, str]) -> None:
    for name, value in values.items():
        tree.write(f"{base}/{name}", value)
