"""A scenario's guests as domains of the lab. They have the scenario's names and controllers, and the kernel, initramfs
and firmware of the lab's own guests. If one of the lab's own guests has the name and the same configuration and is
clean, it is used as it is, because a guest takes ten seconds to boot here.
"""

import time
from collections.abc import Mapping

from labkit.lab import Lab
from labkit.sockets import find_buses
from labkit.waiting import wait_until
from xenplug.core.model import GuestType
from xenplug.scenario.format import GuestSpec
from xenplug.scenario.runner import Unplayable

OWN = ("kiosk", "desk", "plain", "bare", "bios")
FOLDER = "/run/scenario"
PV = """type = "pv"
kernel = "/guest/vmlinux"
ramdisk = "/guest/initrd"
extra = "console=hvc0 {nohcd}quiet loglevel=1"
"""
HVM = """type = "hvm"
serial = "pty"
vnc = 0
boot = "c"
disk = ["format=raw,vdev=hda,access=rw,backendtype=qdisk,target={folder}/{name}.img"]
"""
REBOOT_SLEEP = 2.0
"""Seconds that xl itself sleeps between the end of a domain and the next one (xl_vmcontrol.c)."""
STATE = """
id=$(xl domid {name} 2>/dev/null) || exit 0
echo "id = $id"
for tree in /local/domain/0/backend/qusb/$id /libxl/$id/device/vusb; do xenstore-ls -f $tree 2>/dev/null; done
pid=$(xenstore-read /local/domain/$id/image/device-model-pid 2>/dev/null) && kill -0 $pid || echo "no device model"
"""


def config(name: str, spec: GuestSpec) -> str:
    """The guest's xl configuration. What the scenario leaves open about a controller, libxl decides."""
    make = PV if spec.type is GuestType.PV else HVM
    text = make.format(nohcd="nohcd " if spec.frontend is False else "", folder=FOLDER, name=name)
    usb = [",".join(f"{key}={value}" for key, value in controller.items()) for controller in spec.controllers]
    passthrough = 'passthrough = "enabled"\n' if spec.passthrough else ""
    return f'name = "{name}"\nmemory = 128\nvcpus = 1\n{text}usbctrl = {usb}\n{passthrough}'.replace("'", '"')


def playable(name: str, spec: GuestSpec) -> None:
    """Raises Unplayable with what the lab lacks for this guest."""
    kinds = {str(controller["type"]) for controller in spec.controllers}
    model = spec.type is GuestType.HVM or bool(kinds)
    if spec.type is GuestType.PVH:
        raise Unplayable(f"guest {name}: a PVH guest dies in early boot under this emulation")
    if spec.type is GuestType.HVM and (spec.frontend or "qusb" in kinds):
        raise Unplayable(f"guest {name}: an HVM guest has only its firmware here, no PVUSB driver")
    if spec.device_model is not None and spec.device_model != model:
        raise Unplayable(f"guest {name}: libxl decides by itself whether a guest has a device model")
    if spec.boots_in is not None:
        raise Unplayable(f"guest {name}: guests boot in their own time here")


class ScenarioGuests:
    """The guests of one lab, and the numbers of its buses, from scenario to scenario."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.buses = find_buses(lab.must)
        self._made: dict[str, str] = {}
        """Config of each guest made here."""

    def take(self, specs: Mapping[str, GuestSpec]) -> None:
        """The scenario's guests in its first state: those that run are up already."""
        for name in [*self._made]:
            if name not in specs and name not in OWN:
                self.destroy(name)
        self._lab.must(f"mkdir -p {FOLDER}")
        for name, spec in specs.items():
            if spec.running and self._fit(name, spec):
                continue
            self.destroy(name)
            self._lab.must(f"cat > {FOLDER}/{name}.cfg", stdin=config(name, spec))
            if spec.type is GuestType.HVM:
                self._lab.must(f"cp /guest/halt.img {FOLDER}/{name}.img")
            self._made[name] = config(name, spec)
            if spec.running:
                self.create(name)
        for name, spec in specs.items():
            if spec.running:
                self._up(name, spec)

    def _fit(self, name: str, spec: GuestSpec) -> bool:
        """Whether it runs with this configuration and has nothing left of an earlier scenario."""
        own = {"kiosk": (None, 1), "desk": (None, 1), "plain": (False, 1), "bare": (None, 0)}
        if name in self._made:
            same = self._made[name] == config(name, spec)
        else:
            frontend = None if spec.frontend else spec.frontend
            sizes = {tuple(c.items()) for c in spec.controllers}
            plain = {(("type", "qusb"), ("version", "2"), ("ports", "8"))}
            same = spec.type is GuestType.PV and sizes <= plain and own.get(name) == (frontend, len(spec.controllers))
        return same and self._clean(name, spec)

    def _clean(self, name: str, spec: GuestSpec) -> bool:
        state = self._lab.dom0(STATE.format(name=name)).stdout.splitlines()
        ids = {line.split("/vusb/")[1].split("/")[0] for line in state if "/device/vusb/" in line}
        # libxl's copy of a qusb port keeps the unplugged device; the backend's is the live one
        live = "/backend/" if spec.type is GuestType.PV else "/libxl/"
        held = [line for line in state if live in line and "/port/" in line and not line.endswith('= ""')]
        dead = "no device model" in state and bool(spec.controllers)
        return bool(state) and len(ids) == len(spec.controllers) and not held and not dead

    def _up(self, name: str, spec: GuestSpec) -> None:
        if spec.type is not GuestType.PV:
            return
        if spec.controllers and spec.frontend is not False:
            path = f"/local/domain/0/backend/qusb/{self._lab.domid(name)}/0/state"
            wait_until(lambda: self._lab.xenstore(path) == "4", 90, f"the frontend of {name}")
        else:
            wait_until(lambda: self._lab.guest_boots(name), 90, f"{name} boots")

    # Acts on a guest; each returns when it is done.

    def create(self, name: str) -> None:
        """libxl's own time limit (10 s for a device model's answer) is tight under emulation, so tried twice."""
        create = f"xl create {FOLDER}/{name}.cfg"
        self._lab.must(f"{create} || {{ xl destroy {name}; sleep 3; {create}; }}", 240)

    def destroy(self, name: str) -> None:
        """Ends it at once, if it runs."""
        if self._lab.domid(name) is not None:
            self._lab.dom0(f"xl destroy {name}", 120)
            self._gone(name)

    def stop(self, name: str, hvm: bool) -> None:
        """Let it shut itself down; firmware cannot, and is destroyed."""
        if hvm:
            self.destroy(name)
        else:
            self._lab.must(f"xl shutdown -w {name}", 120)
            self._gone(name)

    def reboot(self, name: str, hvm: bool) -> None:
        """Let it reboot itself; firmware cannot: its domain is created again, as xl does."""
        if hvm:
            self.destroy(name)
            time.sleep(REBOOT_SLEEP)
            self.create(name)
        else:
            self._lab.must(f"xl reboot {name}")

    def load_driver(self, name: str) -> None:
        """Loads the PVUSB driver at the guest's console."""
        self._lab.must(f"echo modprobe xen-hcd > $(xenstore-read /local/domain/{self._lab.domid(name)}/console/tty)")

    def kill_device_model(self, name: str) -> None:
        """kill -9."""
        self._lab.must(f"kill -9 $(xenstore-read /local/domain/{self._lab.domid(name)}/image/device-model-pid)")

    def _gone(self, name: str) -> None:
        wait_until(lambda: self._lab.domid(name) is None, 60, f"{name} is gone")
