"""Records what the real xl answers: every command xenplug uses, calls that work and calls that fail, as
tests/data/xl/VERSION/NAME.json = {"argv", "code", "signal", "stdout", "stderr"} ("code" null where a signal ended xl).

The calls run in one order on one host, since each changes what the next one finds. Domains, buses and addresses differ
between boots: words in braces are filled in just before the call."""

import json
import shlex
from pathlib import Path

from labkit.devices import HostDevice
from labkit.lab import Lab
from labkit.waiting import wait_until

# Runs one command in dom0 without a shell between, so that a signal is seen as such. xl asks nothing: no stdin.
RUNNER = """
import json, subprocess, sys
argv = json.loads(sys.argv[1])
done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
code, signal = (done.returncode, None) if done.returncode >= 0 else (None, -done.returncode)
print(json.dumps({"argv": argv, "code": code, "signal": signal, "stdout": done.stdout, "stderr": done.stderr}))
"""

LOOKS = """
info                            xl info
list                            xl list
list-one                        xl list kiosk
list-verbose                    xl list -v
list-long                       xl list -l kiosk
list-nosuch                     xl list nosuch
domid                           xl domid kiosk
domid-nosuch                    xl domid nosuch
domname                         xl domname {kiosk}
domname-nosuch                  xl domname 999
usage                           xl usbdev-attach kiosk
unknown-command                 xl usbdev-fly
usb-list-empty                  xl usb-list kiosk
usb-list-no-controller          xl usb-list bare
usb-list-no-frontend            xl usb-list plain
usb-list-hvm                    xl usb-list bios
usb-list-nosuch                 xl usb-list nosuch
usb-list-dead-domid             xl usb-list 999
usb-list-extra-word             xl usb-list kiosk 0
"""

CONTROLLERS = """
usbctrl-attach                  xl usbctrl-attach kiosk type=qusb version=1 ports=2
usbctrl-attach-31-ports         xl usbctrl-attach kiosk type=qusb version=2 ports=31
usb-list-several                xl usb-list kiosk
usbctrl-attach-no-device-model  xl usbctrl-attach bare type=qusb version=2 ports=8
usbctrl-attach-bad-version      xl usbctrl-attach kiosk type=qusb version=3 ports=4
usbctrl-attach-many-ports       xl usbctrl-attach kiosk type=qusb version=2 ports=32
usbctrl-attach-bad-type         xl usbctrl-attach kiosk type=vusb version=2 ports=4
usbctrl-attach-bad-key          xl usbctrl-attach kiosk type=qusb controller=1
usbctrl-attach-pv-no-usbback    xl usbctrl-attach desk type=pv version=2 ports=4
usbctrl-detach-dead-pv          xl usbctrl-detach desk 1
usbctrl-attach-nosuch           xl usbctrl-attach nosuch type=qusb
usbctrl-attach-devicemodel      xl usbctrl-attach bios type=devicemodel version=3 ports=4
usbctrl-attach-devicemodel-bad-ports  xl usbctrl-attach bios type=devicemodel version=2 ports=4
usbctrl-detach                  xl usbctrl-detach kiosk 1
usbctrl-detach-31-ports         xl usbctrl-detach kiosk 2
usbctrl-detach-devicemodel      xl usbctrl-detach bios 1
usbctrl-detach-unknown          xl usbctrl-detach kiosk 9
usbctrl-detach-no-frontend      xl usbctrl-detach plain 0
"""

DEVICES = """
usbdev-attach                   xl usbdev-attach kiosk hostbus={b1} hostaddr={a1} controller=0 port=1
usb-list                        xl usb-list kiosk
usbdev-attach-again             xl usbdev-attach kiosk hostbus={b1} hostaddr={a1} controller=0 port=2
usbdev-attach-other-guest       xl usbdev-attach desk hostbus={b1} hostaddr={a1} controller=0 port=1
usbdev-attach-port-taken        xl usbdev-attach kiosk hostbus={b2} hostaddr={a2} controller=0 port=1
usbdev-attach-no-such-controller  xl usbdev-attach kiosk hostbus={b2} hostaddr={a2} controller=7 port=1
usbdev-attach-port-only         xl usbdev-attach kiosk hostbus={b2} hostaddr={a2} port=2
usbdev-attach-no-such-device    xl usbdev-attach kiosk hostbus=99 hostaddr=99 controller=0 port=2
usbdev-attach-hub               xl usbdev-attach kiosk hostbus={b1} hostaddr=1 controller=0 port=2
usbdev-attach-bad-key           xl usbdev-attach kiosk bus={b1} addr={a1}
usbdev-attach-nosuch            xl usbdev-attach nosuch hostbus={b2} hostaddr={a2} controller=0 port=1
usbdev-attach-no-device-model   xl usbdev-attach bare hostbus={b2} hostaddr={a2}
usbdev-detach-empty             xl usbdev-detach kiosk 0 3
usbdev-detach-beyond            xl usbdev-detach kiosk 0 9
usbdev-detach-no-such-controller  xl usbdev-detach kiosk 7 1
usbdev-detach-named-words       xl usbdev-detach kiosk controller=0 port=1
usbdev-detach-extra-word        xl usbdev-detach kiosk 0 1 2
usbdev-detach-nosuch            xl usbdev-detach nosuch 0 1
usbdev-detach                   xl usbdev-detach kiosk 0 1
usbdev-attach-hvm               xl usbdev-attach bios hostbus={b1} hostaddr={a1} controller=0 port=1
usb-list-hvm-attached           xl usb-list bios
qemu-monitor-info-usb           xl qemu-monitor-command bios 'info usb'
qemu-monitor-error              xl qemu-monitor-command bios 'device_del nosuch'
usbdev-detach-hvm               xl usbdev-detach bios 0 1
usbdev-attach-for-stale         xl usbdev-attach kiosk hostbus={b1} hostaddr={a1} controller=0 port=1
"""

STALE = """
usb-list-stale                  xl usb-list kiosk
usbdev-detach-stale             xl usbdev-detach kiosk 0 1
usbdev-attach-blocked-by-stale  xl usbdev-attach desk hostbus={b2} hostaddr={a2} controller=0 port=1
usbctrl-detach-stale            xl usbctrl-detach kiosk 0
"""

PCI = """
pci-assignable-list-empty       xl pci-assignable-list
pci-list-empty                  xl pci-list kiosk
pci-assignable-add              xl pci-assignable-add {bdf}
pci-assignable-add-again        xl pci-assignable-add {bdf}
pci-assignable-add-absent       xl pci-assignable-add 0000:00:1e.7
pci-assignable-add-malformed    xl pci-assignable-add 00:zz
pci-assignable-list             xl pci-assignable-list
pci-attach-not-allowed          xl pci-attach bare {bdf}
pci-attach-nosuch               xl pci-attach nosuch {bdf}
pci-attach                      xl pci-attach desk {bdf}
pci-list                        xl pci-list desk
pci-assignable-list-given       xl pci-assignable-list
pci-assignable-remove-given     xl pci-assignable-remove -r {bdf}
pci-detach                      xl pci-detach desk {bdf}
pci-detach-again                xl pci-detach desk {bdf}
pci-attach-no-function          xl pci-attach desk {slot}
pci-assignable-remove           xl pci-assignable-remove -r {bdf}
pci-assignable-remove-again     xl pci-assignable-remove -r {bdf}
pci-assignable-remove-malformed xl pci-assignable-remove 00:zz
"""


class Recorder:
    """Runs calls on the lab and writes each answer to a file."""

    def __init__(self, lab: Lab, out: Path) -> None:
        self.lab = lab
        version = lab.must("xl info | sed -n 's/^xen_m[a-z]*or *: //p'").split()
        self.folder = out / ".".join(version)
        self.words: dict[str, str] = {"kiosk": str(lab.domid("kiosk"))}
        self.count = 0

    def calls(self, table: str) -> None:
        for line in table.strip().splitlines():
            name, _, command = line.partition(" ")
            self.call(name, shlex.split(command.strip().format(**self.words)))

    def call(self, name: str, argv: list[str]) -> None:
        done = self.lab.must(shlex.join(["python3", "-c", RUNNER, json.dumps(argv)]), timeout=90)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(done), indent=2, ensure_ascii=False) + "\n")
        self.count += 1

    def device(self, number: int, device: HostDevice) -> None:
        self.words |= {f"b{number}": str(device.bus), f"a{number}": str(device.address)}


def record(out: Path) -> int:
    """Records everything on a clean lab, below OUT/VERSION; the count of calls. The lab is dirty afterwards."""
    recorder = Recorder(Lab(), out)
    lab = recorder.lab
    for number, tag in ((1, "1050:0407"), (2, "046d:c016")):
        lab.gadget(f"g{number}", tag, product=f"Device {number}")
        recorder.device(number, lab.host_device(tag))
    recorder.calls(LOOKS)
    recorder.calls(DEVICES)
    lab.must("gadget.sh unplug g1")
    wait_until(lambda: len(lab.host_devices()) == 1, 10, "g1 is gone from dom0")
    recorder.calls(STALE)
    lab.xenstore_write(lab.port_path("kiosk", 0, 1), "")
    recorder.calls(CONTROLLERS)
    bdf = lab.must("basename $(ls -d /sys/bus/pci/drivers/xhci_hcd/0000:*:0b.0)").strip()
    recorder.words |= {"bdf": bdf, "slot": bdf.rpartition(".")[0]}
    recorder.calls(PCI)
    return recorder.count
