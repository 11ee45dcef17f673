"""`Lab`: the interface for tests. Devices are plugged and pulled through the emulator, everything else is a command in
dom0 over one ssh connection, or is read there.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from labkit import console, devices, gadgets, install, lifecycle, qmp, ssh
from labkit.config import LabError
from labkit.console import Seen
from labkit.devices import HostDevice
from labkit.gadgets import Gadget
from labkit.machine import QMP, Machine
from labkit.ssh import Done
from labkit.waiting import wait_until


class LabDownError(LabError):
    """The lab is not up."""


class Lab:
    """A running lab. Every method acts on the real machine at once; only the plugged devices are remembered."""

    def __init__(self) -> None:
        self.machine = Machine()
        if self.machine.pid is None or not lifecycle.BOOTED.exists():
            raise LabDownError("the lab is not up (tests/lab/lab up)")

    # dom0

    def dom0(self, command: str, timeout: float = 60, stdin: str | None = None) -> Done:
        """Runs a shell command in dom0; the caller looks at returncode, stdout, stderr."""
        return ssh.run(self.machine, command, timeout, stdin)

    def must(self, command: str, timeout: float = 60, stdin: str | None = None) -> str:
        """Runs a shell command in dom0 that has to succeed; its stdout."""
        done = self.dom0(command, timeout, stdin)
        assert done.returncode == 0, f"dom0: {command}: exit {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    def xl(self, *words: str | int, timeout: float = 60) -> Done:
        """Runs one xl command, word for word."""
        return self.dom0("xl " + shlex.join(map(str, words)), timeout)

    def host_devices(self) -> list[HostDevice]:
        """dom0's USB devices without root hubs, from sysfs."""
        return devices.parse_host(self.must(devices.LIST_HOST))

    def host_device(self, tag: str, seconds: float = 30) -> HostDevice:
        """Waits until dom0 has one device with that tag ("0627:0001") and returns it."""
        return wait_until(lambda: [d for d in self.host_devices() if d.tag == tag], seconds, f"dom0 has {tag}")[0]

    # guests

    def guest_sees(self, name: str) -> tuple[Seen, ...]:
        """The devices that the Linux guest `name` sees on its USB buses now; also empty while it boots."""
        return console.last_report(self.console(name)) or ()

    def guest_tags(self, name: str) -> list[str]:
        """The tags of the devices that the guest sees, sorted."""
        return sorted(seen.tag for seen in self.guest_sees(name))

    def guest_boots(self, name: str) -> int:
        """How often the guest has booted since dom0 did, to detect a reboot."""
        return console.boots(self.console(name))

    def console(self, name: str) -> str:
        """Everything that the guest has printed."""
        return self.dom0(f"cat {console.LOG.format(name)}").stdout

    def domid(self, name: str) -> int | None:
        """The guest's present domid; None when it does not run."""
        done = self.xl("domid", name)
        return int(done.stdout) if done.returncode == 0 else None

    def start_guest(self, name: str) -> None:
        self.must(f"xl create /etc/xen/{name}.cfg", 120)

    def device_model(self, name: str, command: str) -> str:
        """A monitor command of the guest's device model ("info usb")."""
        return self.xl("qemu-monitor-command", name, command).stdout

    # xenstore

    def xenstore(self, path: str) -> str | None:
        """The value at a path; None when there is none."""
        done = self.dom0(f"xenstore-read {shlex.quote(path)}")
        return done.stdout.removesuffix("\n") if done.returncode == 0 else None

    def xenstore_write(self, path: str, value: str) -> None:
        self.must(f"xenstore-write {shlex.quote(path)} {shlex.quote(value)}")

    def port_path(self, name: str, controller: int = 0, port: int = 1) -> str:
        """The xenstore path of the busid of a qusb guest port; "" there means free."""
        return f"/local/domain/0/backend/qusb/{self.domid(name)}/{controller}/port/{port}"

    def guest_port(self, name: str, controller: int = 0, port: int = 1) -> str | None:
        """The busid at a qusb guest port ("1-4"), "" when it is free."""
        return self.xenstore(self.port_path(name, controller, port))

    # devices

    def plug(self, name: str, kind: str, bus: str = "ehci", port: str | None = None, **properties: Any) -> None:
        """Plugs a device: kind mouse, keyboard, tablet, storage (serial="S1"), hub, audio, serial; bus xhci, xhci2,
        ehci, uhci; `port` counted from 1 ("1.2": behind a hub). QMP's refusal is an error."""
        devices.plug(QMP, name, kind, bus, port, **properties)

    def unplug(self, name: str, with_it: Iterable[str] = ()) -> None:
        """Unplugs it. `with_it`: the devices behind it."""
        devices.unplug(QMP, name)
        for below in with_it:
            devices.forget(QMP, below)

    def plugged(self) -> list[str]:
        """The names of the plugged devices."""
        return devices.plugged(QMP)

    def gadget(self, name: str, tag: str, **texts: str) -> Gadget:
        """Plugs a device of any tag in dom0, on a high-speed bus of its own: product, serial, manufacturer, class_,
        subclass, protocol (hex), speed ("low-speed"), function ("acm", "hid", "mass_storage", "ecm", …)."""
        return gadgets.add(self.must, name, tag, texts)

    def liar(self, name: str, port: int, device: bytes, *configurations: bytes) -> None:
        """Plugs a high-speed device in dom0 (vhci_hcd, ports 0 to 7) whose descriptors are these bytes, however false;
        `liar.py unplug NAME` pulls it."""
        self.must(f"liar.py plug {name} {port} {device.hex()} {' '.join(each.hex() for each in configurations)}")

    def unplug_all(self) -> None:
        """Unplugs everything, including gadgets."""
        for name in reversed(self.plugged()):
            self.unplug(name)
        self.must("gadget.sh clear; liar.py clear")

    def monitor(self, command: str) -> str:
        """A monitor command of the emulated machine itself."""
        return qmp.human(QMP, command)

    # the agent

    def install(self, policies: Sequence[Path] = ()) -> None:
        """Installs this checkout's xenplug in dom0 (not started)."""
        install.install(self.machine, policies)

    def policy(self, text: str, name: str = "lab.yaml") -> None:
        """Writes one policy file in dom0."""
        install.put_policy(self.machine, name, text)

    def status(self) -> dict[str, Any]:
        """The status of the running agent: `xenplug status --json`, whose exit code 1 means that a device has a
        problem.
        """
        done = self.dom0("xenplug status --json")
        assert done.returncode in (0, 1) and done.stdout, f"xenplug status: exit {done.returncode}: {done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def agent_log(self) -> str:
        """The agent's journal."""
        return self.dom0("journalctl -u xenplug --no-pager -o short-precise").stdout

    # the machine

    def restore(self) -> None:
        """Back to the saved state, about 5 s."""
        lifecycle.restore(self.machine)
